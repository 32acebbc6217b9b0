"""LoCoMo's own JSON (arXiv 2402.17753): very long conversations over many sessions, and questions about them."""

from __future__ import annotations

import re
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from memfactory.core.errors import BadInput, did_you_mean
from memfactory.core.registry import register
from memfactory.core.texts import plain
from memfactory.core.types import Task
from memfactory.data.dialogue import Dialogue, Form, Memory, Session, Turn
from memfactory.data.fields import kind_of, optional_text, record_id, require, require_answers, require_text
from memfactory.data.files import open_records
from memfactory.data.parsing import Record
from memfactory.data.tasks import FileConfig, LazySequence, choose, stem

CATEGORIES: Mapping[int, str] = {
    1: "multi-hop",
    2: "temporal",
    3: "open-domain",
    4: "single-hop",
    5: "adversarial",
}
#: Its questions have no answer; Memory-R1 and most papers leave them out.
LEFT_OUT = 5
#: Memory-R1's split (arXiv 2508.19828): one conversation each, and the rest; its numbers of questions.
TRAIN, VALIDATION = "conv-26", "conv-30"
PAPER: Mapping[str, int] = {"train": 152, "validation": 81, "test": 1307}
SPLITS = (*PAPER, "all")

_SESSION = re.compile(r"session_(\d{1,9})", re.ASCII)
_TURN_ID = re.compile(r"D\d+:\d+")


@dataclass(frozen=True)
class Conversation:
    """One record of the file: a dialogue, and the tasks about it."""

    dialogue: Dialogue
    tasks: tuple[Task, ...]

    @property
    def split(self) -> str:
        """train, validation or test."""
        return {TRAIN: "train", VALIDATION: "validation"}.get(self.dialogue.id, "test")


@dataclass(frozen=True)
class SplitCounts:
    """How many questions each split of a file holds; as text, one line that compares them with the paper's."""

    path: str
    conversations: int
    questions: Mapping[str, int]

    @property
    def as_in_paper(self) -> bool:
        """Whether these are Memory-R1's numbers."""
        return dict(self.questions) == dict(PAPER)

    def __str__(self) -> str:
        held = ", ".join(f"{name} {count}" for name, count in self.questions.items())
        if not any(self.questions.values()):
            return f"{self.path}: no questions; infer --input reads such a file into a memory bank"
        line = f"{self.path}: {self.conversations} conversations, questions without category 5: {held}"
        if self.as_in_paper:
            return f"{line} (as in Memory-R1)"
        other = [f"{name} {count}" for name, count in PAPER.items() if self.questions[name] != count]
        return f"{line}; differs from Memory-R1, which has {', '.join(other)}"


@dataclass(frozen=True)
class LocomoConfig(FileConfig):
    """Fields of `locomo`. `split` is train (conv-26), validation (conv-30), test (the others) or all.

    `form: text` gives agents that read texts the whole conversation as one.
    """

    split: Literal["train", "validation", "test", "all"] = "all"
    form: Form = "dialogue"


@register("data", "locomo", config=LocomoConfig, source="LoCoMo, arXiv 2402.17753")
def locomo(
    path: str,
    limit: int | None = None,
    offset: int = 0,
    shuffle_seed: int | None = None,
    split: str = "all",
    form: str = "dialogue",
) -> Sequence[Task]:
    """LoCoMo: questions about conversations of many sessions, split by conversation as in Memory-R1."""
    if split not in SPLITS:
        hint = did_you_mean(split, SPLITS) or f"; splits: {', '.join(SPLITS)}"
        raise BadInput(f"data 'locomo': unknown split '{split}'{hint}")
    conversations = read_conversations(path)
    print(plain(str(_count(path, conversations))), file=sys.stderr)
    chosen = [conversation for conversation in conversations if split in ("all", conversation.split)]
    tasks = [task for conversation in chosen for task in conversation.tasks]
    if not tasks:
        raise BadInput(f"{path}: holds no question of split '{split}'")
    order = choose(len(tasks), path, limit, offset, shuffle_seed)

    def task(index: int) -> Task:
        held = tasks[order[index]]
        return replace(held, evidence=held.evidence.in_form(form))

    return LazySequence(len(order), task)


def read_conversations(path: str) -> tuple[Conversation, ...]:
    """Every conversation of a file. Raises `BadInput` naming the place and field of what is wrong."""
    records = open_records(path, single=is_conversation)
    found: dict[str, Conversation] = {}
    for index in range(len(records)):
        where, record = records.where(index), records[index]
        conversation = parse_conversation(record, where, default_id(record, path, index))
        if conversation.dialogue.id in found:
            raise BadInput(f"{where}: sample_id '{conversation.dialogue.id}' was used before")
        found[conversation.dialogue.id] = conversation
    return tuple(found.values())


def is_conversation(record: Record) -> bool:
    """Whether an object is a conversation: a record of the file, or its field `conversation` alone."""
    return "conversation" in record or _is_bare(record)


def default_id(record: Record, path: str, index: int) -> str:
    """The id of a conversation that has none: one that stands alone in its file is called like the file."""
    return stem(path) if _is_bare(record) else f"conversation-{index}"


def _is_bare(record: Record) -> bool:
    return "conversation" not in record and "speaker_a" in record and any(map(_SESSION.fullmatch, record))


def count_questions(path: str) -> SplitCounts:
    """How many questions each split of a file holds."""
    return _count(path, read_conversations(path))


def parse_conversation(record: Record, where: str, default_id: str) -> Conversation:
    """A record as a conversation. Raises `BadInput` naming place and field."""
    dialogue = parse_dialogue(record, where, default_id)
    known = {turn.id for turn in dialogue.turns()}
    asked = [] if _is_bare(record) else require(record, "qa", where)
    if not isinstance(asked, list):
        raise BadInput(f"{where}: field 'qa' must be a list, not {kind_of(asked)}")
    tasks = []
    for number, question in enumerate(asked):
        task = _task(question, f"{where}.qa[{number}]", dialogue, number, known)
        if task is not None:
            tasks.append(task)
    return Conversation(dialogue, tuple(tasks))


def parse_dialogue(record: Record, where: str, default_id: str) -> Dialogue:
    """A record's conversation, its sessions by number. Raises `BadInput` naming place and field."""
    bare = _is_bare(record)
    conversation = record if bare else require(record, "conversation", where)
    if not isinstance(conversation, Mapping):
        raise BadInput(f"{where}: field 'conversation' must be an object, not {kind_of(conversation)}")
    inside = where if bare else f"{where}.conversation"
    speakers = tuple(require_text(conversation, name, inside) for name in ("speaker_a", "speaker_b"))
    names = {key: int(found[1]) for key in conversation if (found := _SESSION.fullmatch(key))}
    if not names:
        raise BadInput(f"{inside}: no session ('session_1', 'session_2', ...)")
    places: dict[str, str] = {}
    sessions = [
        _session(conversation, name, inside, speakers, places)
        for name in sorted(names, key=names.__getitem__)
        if bare is False
        or conversation[name] != []  # the authors' single files name sessions that were never held
    ]
    if not sessions:
        raise BadInput(f"{inside}: no session has a turn")
    if "observation" in record:
        sessions = _annotated(sessions, record["observation"], f"{where}.observation")
    return Dialogue(record_id(record, "sample_id", where, default_id), speakers, tuple(sessions))


def _annotated(sessions: Sequence[Session], noted: object, where: str) -> list[Session]:
    """The sessions with what LoCoMo's annotators noted of each and of those before: `[text, turn ids]` by speaker."""
    if not isinstance(noted, Mapping):
        raise BadInput(f"{where}: must be an object, not {kind_of(noted)}")
    after: tuple[Memory, ...] = ()
    result = []
    for session in sessions:
        place = f"{where}.{session.id}_observation"
        by_speaker = noted.get(f"{session.id}_observation") or {}
        if not isinstance(by_speaker, Mapping) or not all(isinstance(v, list) for v in by_speaker.values()):
            raise BadInput(f"{place}: must be an object of lists")
        for entry in (entry for entries in by_speaker.values() for entry in entries):
            if not isinstance(entry, list) or len(entry) != 2 or not isinstance(entry[0], str):
                raise BadInput(f"{place}: an observation must be [text, turn ids], not {kind_of(entry)}")
            text = " ".join(entry[0].split())
            if text and text not in {memory.text for memory in after}:  # a bank never has one text twice
                sources = tuple(_TURN_ID.findall(str(entry[1])))
                after = (*after, Memory(text, session.id, session.time, sources=sources))
        result.append(replace(session, after=after))
    return result


def _session(
    conversation: Record, name: str, where: str, speakers: tuple[str, ...], places: dict[str, str]
) -> Session:
    turns = conversation[name]
    if not isinstance(turns, list) or not turns:
        raise BadInput(f"{where}.{name}: must be a list of turns that is not empty, not {kind_of(turns)}")
    said = []
    for index, turn in enumerate(turns):
        place = f"{where}.{name}[{index}]"
        if not isinstance(turn, Mapping):
            raise BadInput(f"{place}: a turn must be an object, not {kind_of(turn)}")
        turn_id = require_text(turn, "dia_id", place)
        if turn_id in places:
            raise BadInput(f"{place}: turn id '{turn_id}' was used before, at {places[turn_id]}")
        places[turn_id] = place
        speaker = require_text(turn, "speaker", place)
        if speaker not in speakers:
            raise BadInput(f"{place}: speaker '{speaker}' is none of {', '.join(speakers)}")
        caption = optional_text(turn, "blip_caption", place)
        said.append(Turn(turn_id, speaker, require_text(turn, "text", place, empty=bool(caption)), caption))
    return Session(name, require_text(conversation, f"{name}_date_time", where), tuple(said))


def _task(question: object, where: str, dialogue: Dialogue, number: int, known: set[str]) -> Task | None:
    """A question as a task, or None for one of the category that is left out."""
    if not isinstance(question, Mapping):
        raise BadInput(f"{where}: a question must be an object, not {kind_of(question)}")
    category = require(question, "category", where)
    if not isinstance(category, int) or isinstance(category, bool) or category not in CATEGORIES:
        shown = category if isinstance(category, int | float) else kind_of(category)
        raise BadInput(f"{where}: field 'category' must be a whole number from 1 to 5, not {shown}")
    if category == LEFT_OUT:
        return None
    # Some of the original entries name two turns in one string, or turns that are not there.
    listed = question.get("evidence") or []
    if not isinstance(listed, list) or not all(isinstance(entry, str) for entry in listed):
        raise BadInput(f"{where}: field 'evidence' must be a list of turn ids")
    named = _TURN_ID.findall(" ".join(listed))
    return Task(
        id=f"{dialogue.id}-q{number}",
        question=require_text(question, "question", where),
        evidence=dialogue,
        answers=require_answers(question, "answer", where),
        meta={
            "benchmark": "locomo",
            "metric": "locomo",
            "group": CATEGORIES[category],
            "conversation": dialogue.id,
            "category": category,
            "category_name": CATEGORIES[category],
            **dialogue.gold([turn_id for turn_id in named if turn_id in known]),
        },
    )


def _count(path: str, conversations: Sequence[Conversation]) -> SplitCounts:
    counts = dict.fromkeys(PAPER, 0)
    for conversation in conversations:
        counts[conversation.split] += len(conversation.tasks)
    return SplitCounts(path, len(conversations), counts)
