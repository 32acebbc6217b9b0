"""LongMemEval's own JSON (arXiv 2410.10813): questions about a user's chats with an assistant over many sessions.

The three files (`oracle`, `s`, `m`) have one layout and differ in how many sessions surround the evidence.
Sessions are put in the order of their dates, in whatever form they are written: those of the oracle file are not.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from memfactory.core.errors import BadInput, did_you_mean
from memfactory.core.registry import register
from memfactory.core.types import Task
from memfactory.data.dates import date_text, in_order
from memfactory.data.dialogue import Dialogue, Form, Session, Turn
from memfactory.data.fields import kind_of, require, require_answers, require_text
from memfactory.data.parsing import Record
from memfactory.data.tasks import FileConfig, load

TYPES = (
    "single-session-user",
    "single-session-assistant",
    "single-session-preference",
    "temporal-reasoning",
    "knowledge-update",
    "multi-session",
)
#: Questions that cannot be answered from the chats, of any type: their ids end like this.
ABSTENTION, ABSTENTION_SUFFIX = "abstention", "_abs"
SPEAKERS = ("user", "assistant")


@dataclass(frozen=True)
class LongMemEvalConfig(FileConfig):
    """Fields of `longmemeval`.

    `question_type` keeps one type, or `abstention`. `form: text` gives agents that read texts all chats as one.
    """

    question_type: str | None = None
    form: Form = "dialogue"


@register("data", "longmemeval", config=LongMemEvalConfig, source="LongMemEval, arXiv 2410.10813")
def longmemeval(
    path: str,
    limit: int | None = None,
    offset: int = 0,
    shuffle_seed: int | None = None,
    question_type: str | None = None,
    form: str = "dialogue",
) -> Sequence[Task]:
    """LongMemEval: questions about chats of many sessions, with the turns and sessions that answer them."""
    known = (*TYPES, ABSTENTION)
    if question_type is not None and question_type not in known:
        hint = did_you_mean(question_type, known) or f"; types: {', '.join(known)}"
        raise BadInput(f"data 'longmemeval': unknown question_type '{question_type}'{hint}")

    def parse(record: Record, where: str, default_id: str) -> Task | None:
        task = parse_longmemeval(record, where, default_id, form)
        wanted = question_type in (
            None,
            task.meta["question_type"],
            ABSTENTION if task.meta["abstention"] else None,
        )
        return task if wanted else None

    return load(parse, path, limit, offset, shuffle_seed)


def parse_longmemeval(record: Record, where: str, default_id: str, form: str = "dialogue") -> Task:
    """A record as a task. Raises `BadInput` naming place and field.

    A turn's id is its session's, `_`, and its number in the session from 1, as in the benchmark's own retrieval.
    The question ends with the day on which it is asked: some cannot be answered without it.
    """
    name = require_text(record, "question_id", where)
    kind = require_text(record, "question_type", where)
    if kind not in TYPES:
        raise BadInput(f"{where}: unknown question_type '{kind}'{did_you_mean(kind, TYPES)}")
    dialogue, evidence = _dialogue(record, name, where)
    abstention = name.endswith(ABSTENTION_SUFFIX)
    named = _strings(record, "answer_session_ids", where)
    gold = dialogue.gold(evidence)
    # Sessions by the file's own list: in questions without an answer no turn is marked.
    held = tuple(session.id for session in dialogue.sessions if _original(session.id) in named)
    asked, date = require_text(record, "question", where), _date(record, "question_date", where)
    meta: dict[str, Any] = {
        "benchmark": "longmemeval",
        "metric": "longmemeval",
        "group": kind,
        "question_type": kind,
        "abstention": abstention,
        "question_date": date,
        "asked": asked,
        **gold,
        "evidence_sessions": held or gold["evidence_sessions"],
    }
    if "gold_evidence" not in meta and held:
        meta["gold_evidence"] = dialogue.quote(
            [turn.id for session in dialogue.sessions if session.id in held for turn in session.turns]
        )
    answers = require_answers(record, "answer", where)
    return Task(name, f"{asked} (asked on {date})", dialogue.in_form(form), answers, meta)


def _dialogue(record: Record, name: str, where: str) -> tuple[Dialogue, tuple[str, ...]]:
    """The chats of a record in the order of their dates, and the ids of the turns that hold evidence."""
    ids = _strings(record, "haystack_session_ids", where)
    dates = _dates(record, where)
    chats = require(record, "haystack_sessions", where)
    if not isinstance(chats, list):
        raise BadInput(f"{where}: field 'haystack_sessions' must be a list, not {kind_of(chats)}")
    if not chats:
        raise BadInput(f"{where}: field 'haystack_sessions' is empty")
    if not len(ids) == len(dates) == len(chats):
        raise BadInput(
            f"{where}: {len(ids)} haystack_session_ids, {len(dates)} haystack_dates and {len(chats)} "
            "haystack_sessions: there must be equally many"
        )
    uses: Counter[str] = Counter()
    sessions, evidence = [], []
    for number, (session_id, date, chat) in enumerate(zip(ids, dates, chats, strict=True)):
        uses[session_id] += 1
        # A chat that was drawn twice into a haystack keeps its id with a number: ids must be unique.
        unique = session_id if uses[session_id] == 1 else f"{session_id}#{uses[session_id]}"
        session, marked = _session(unique, date, chat, f"{where}.haystack_sessions[{number}]")
        sessions.append(session)
        evidence += marked
    ordered = tuple(sessions[place] for place in in_order(dates, f"{where}.haystack_dates"))
    return Dialogue(name, SPEAKERS, ordered), tuple(evidence)


def _session(session_id: str, date: str, chat: object, where: str) -> tuple[Session, list[str]]:
    if not isinstance(chat, list):
        raise BadInput(f"{where}: a session must be a list of turns, not {kind_of(chat)}")
    turns, marked = [], []
    for number, turn in enumerate(chat, start=1):
        place = f"{where}[{number - 1}]"
        if not isinstance(turn, Mapping):
            raise BadInput(f"{place}: a turn must be an object, not {kind_of(turn)}")
        role = require_text(turn, "role", place)
        if role not in SPEAKERS:
            raise BadInput(f"{place}: role '{role}' is none of {', '.join(SPEAKERS)}")
        turns.append(Turn(f"{session_id}_{number}", role, require_text(turn, "content", place, empty=True)))
        if turn.get("has_answer") is True:
            marked.append(turns[-1].id)
    return Session(session_id, date, tuple(turns)), marked


def _original(session_id: str) -> str:
    return session_id.partition("#")[0]


def _dates(record: Record, where: str) -> list[str]:
    value = require(record, "haystack_dates", where)
    if not isinstance(value, list):
        raise BadInput(f"{where}: field 'haystack_dates' must be a list of dates, not {kind_of(value)}")
    return [_date({"": date}, "", f"{where}.haystack_dates[{place}]") for place, date in enumerate(value)]


def _date(record: Record, key: str, where: str) -> str:
    """A date in a field as agents read it."""
    value, place = require(record, key, where), f"{where}: field '{key}'" if key else f"{where}:"
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        raise BadInput(f"{place} must be a date, not {kind_of(value)}")
    if isinstance(value, str) and not value.strip():
        raise BadInput(f"{place} is empty")
    try:
        return date_text(value)
    except ValueError as error:
        raise BadInput(f"{place} {error}") from None


def _strings(record: Record, key: str, where: str) -> list[str]:
    value = require(record, key, where)
    if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
        raise BadInput(f"{where}: field '{key}' must be a list of strings")
    return value
