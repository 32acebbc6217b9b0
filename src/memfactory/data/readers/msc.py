"""Multi-Session Chat in ParlAI's own layout (arXiv 2107.07567): what does somebody say next, after days apart?

The files `msc_dialogue/session_N/*.txt` are JSON Lines. A record has the current session (`dialog`), the earlier
ones (`previous_dialogs`), and what crowd workers noted about both speakers (`personas`).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from memfactory.core.errors import BadInput, did_you_mean
from memfactory.core.registry import register
from memfactory.core.types import Task
from memfactory.data.dialogue import Dialogue, Form, Session, Turn
from memfactory.data.fields import kind_of, optional_text, record_id, require, require_text
from memfactory.data.files import open_records
from memfactory.data.parsing import Record
from memfactory.data.tasks import FileConfig, LazySequence, choose, parse_at

SPEAKERS = ("Speaker 1", "Speaker 2")
Turns = Literal["last", "first", "all"]
TURNS = ("last", "first", "all")


@dataclass(frozen=True)
class MscConfig(FileConfig):
    """Fields of `msc`.

    Of the current session `turns` asks for the last utterance, for the first reply, or for all of them from the
    second on. `form: text` gives agents that read texts the earlier sessions as one.
    """

    turns: Turns = "last"
    form: Form = "dialogue"


@register("data", "msc", config=MscConfig, source="Multi-Session Chat, arXiv 2107.07567")
def msc(
    path: str,
    limit: int | None = None,
    offset: int = 0,
    shuffle_seed: int | None = None,
    turns: str = "last",
    form: str = "dialogue",
) -> Sequence[Task]:
    """Multi-Session Chat: the next utterance of a session, given the sessions before it."""
    if turns not in TURNS:
        hint = did_you_mean(turns, TURNS) or f"; known: {', '.join(TURNS)}"
        raise BadInput(f"data 'msc': unknown turns '{turns}'{hint}")
    records = open_records(path, single=is_chat)
    places: list[tuple[int, int, str]] = []
    uses: Counter[str] = Counter()
    for index in range(len(records)):
        chat = parse_at(records, index, parse_chat)
        uses[chat.past.id] += 1
        # Nothing says that a file holds a chat once only, and ids of tasks must be unique.
        again = "" if uses[chat.past.id] == 1 else f"#{uses[chat.past.id]}"
        places += [(index, turn, again) for turn in chat.asked(turns)]
    order = choose(len(places), path, limit, offset, shuffle_seed)

    def task(place: int) -> Task:
        index, turn, again = places[order[place]]
        return parse_at(records, index, parse_chat).task(turn, form, again)

    return LazySequence(len(order), task)


@dataclass(frozen=True)
class Chat:
    """One record: the sessions before, the current one, and what is known of each speaker."""

    past: Dialogue
    current: tuple[Turn, ...]
    personas: tuple[tuple[str, ...], ...]
    session: int | None

    def asked(self, turns: str) -> range:
        """Places, from 0, of the utterances of the current session that are asked for."""
        last = len(self.current) - 1
        return {"last": range(last, last + 1), "first": range(1, 2), "all": range(1, last + 1)}[turns]

    def task(self, turn: int, form: str = "dialogue", again: str = "") -> Task:
        """The task to say utterance `turn` (from 0) of the current session; `again` tells chats of one id apart."""
        wanted = self.current[turn]
        said = "\n".join(str(one) for one in self.current[:turn])
        question = f"{said}\nWhat does {wanted.speaker} say next?"
        meta: dict[str, Any] = {
            "benchmark": "msc",
            "metric": "meteor",
            "group": f"session {self.session}" if self.session is not None else "",
            "speaker": wanted.speaker,
            "turn": turn,
        }
        known = [
            f"{speaker}: {' '.join(lines)}"
            for speaker, lines in zip(SPEAKERS, self.personas, strict=False)
            if lines
        ]
        if known:
            meta["gold_evidence"] = "\n".join(known)
        return Task(f"{self.past.id}{again}-t{turn}", question, self.past.in_form(form), (wanted.text,), meta)


def is_chat(record: Record) -> bool:
    """Whether an object is a record of the file."""
    return "dialog" in record and "previous_dialogs" in record


def parse_chat(record: Record, where: str, default_id: str) -> Chat:
    """A record as a chat. Raises `BadInput` naming place and field."""
    metadata = require(record, "metadata", where)
    if not isinstance(metadata, Mapping):
        raise BadInput(f"{where}: field 'metadata' must be an object, not {kind_of(metadata)}")
    number = metadata.get("session_id")
    session = number if isinstance(number, int) and not isinstance(number, bool) else None
    current = _turns(require(record, "dialog", where), "now", f"{where}.dialog")
    if len(current) < 2:
        raise BadInput(f"{where}: field 'dialog' needs two utterances, one to answer with")
    earlier = require(record, "previous_dialogs", where)
    if not isinstance(earlier, list) or not earlier:
        raise BadInput(
            f"{where}: field 'previous_dialogs' must be a list that is not empty, not {kind_of(earlier)}"
        )
    sessions = []
    for place, held in enumerate(earlier):
        inside = f"{where}.previous_dialogs[{place}]"
        if not isinstance(held, Mapping):
            raise BadInput(f"{inside}: a session must be an object, not {kind_of(held)}")
        turns = _turns(require(held, "dialog", inside), str(place + 1), f"{inside}.dialog")
        sessions.append(Session(f"session_{place + 1}", _time(held, inside), turns))
    name = record_id(metadata, "initial_data_id", f"{where}.metadata", default_id)
    past = Dialogue(name if session is None else f"{name}-s{session}", SPEAKERS, tuple(sessions))
    return Chat(past, current, _personas(record, where), session)


def _turns(listed: object, session: str, where: str) -> tuple[Turn, ...]:
    if not isinstance(listed, list) or not listed:
        raise BadInput(f"{where}: must be a list of utterances that is not empty, not {kind_of(listed)}")
    turns = []
    for place, item in enumerate(listed):
        inside = f"{where}[{place}]"
        if not isinstance(item, Mapping):
            raise BadInput(f"{inside}: an utterance must be an object, not {kind_of(item)}")
        # Earlier sessions often leave the speaker out: the two take turns, the first one begins.
        named = item.get("id")
        speaker = named if named in SPEAKERS else SPEAKERS[place % 2]
        turns.append(Turn(f"D{session}:{place + 1}", speaker, require_text(item, "text", inside)))
    return tuple(turns)


def _time(session: Record, where: str) -> str:
    """When a session was, seen from the current one; empty where the file does not say."""
    back = optional_text(session, "time_back", where)
    if back.strip():
        return back
    number = record_id(session, "time_num", where, "")
    unit = optional_text(session, "time_unit", where)
    return f"{number} {unit} before the next session" if number and unit.strip() else ""


def _personas(record: Record, where: str) -> tuple[tuple[str, ...], ...]:
    listed = record.get("personas") or []
    if not isinstance(listed, list) or not all(
        isinstance(lines, list) and all(isinstance(line, str) for line in lines) for lines in listed
    ):
        raise BadInput(f"{where}: field 'personas' must hold a list of sentences for each speaker")
    return tuple(tuple(line for line in lines if line.strip()) for lines in listed)
