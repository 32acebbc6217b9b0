"""Dialogue files without questions: LoCoMo's JSON, or JSON Lines of turns. For reading them into a memory bank."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from memfactory.core.errors import BadInput, did_you_mean
from memfactory.data.dialogue import Dialogue, Session, Turn
from memfactory.data.fields import kind_of, require_text
from memfactory.data.files import Records, open_records
from memfactory.data.parsing import Record
from memfactory.data.readers.locomo import default_id, is_conversation, parse_dialogue
from memfactory.data.tasks import stem

_FIELDS = ("speaker", "text", "time", "session", "id", "caption")
_NUMBERED = re.compile(r"(.*?)(\d{1,18})", re.ASCII)


@dataclass(frozen=True)
class DialogueFile:
    """The dialogues of a file, and one line for each thing in it that is odd but can be read."""

    dialogues: tuple[Dialogue, ...]
    warnings: tuple[str, ...] = ()


def read_dialogues(path: str) -> DialogueFile:
    """Read a file of dialogues; the first record tells which layout it has.

    LoCoMo: objects with `conversation` (an array of them, or a single one), or what that field holds alone.
    Turns: one dialogue, its turns as objects `{"speaker", "text"}` with `time`, `session`, `id` and `caption` if they
    like. Turns of one `session` belong together; without that field, turns of the same `time`. Raises `BadInput`
    naming place and field.
    """
    records = open_records(path, single=_is_record)
    first = records[0]
    if is_conversation(first):
        dialogues = _locomo(records)
    elif "speaker" in first or "text" in first:
        dialogues = (_turns(records),)
    else:
        raise BadInput(
            f"{records.where(0)}: is neither a LoCoMo conversation (no field 'conversation') nor a turn (no fields "
            f"'speaker' and 'text'); it has {', '.join(map(repr, list(first)[:6])) or 'no fields'}"
        )
    return DialogueFile(dialogues, tuple(line for dialogue in dialogues for line in gaps(dialogue, path)))


def gaps(dialogue: Dialogue, path: str) -> list[str]:
    """One line for every place where ids leave numbers out, so that sessions or turns may be missing."""
    found = []
    for name, ids in (
        ("session", [session.id for session in dialogue.sessions]),
        *((f"turn of '{session.id}'", [turn.id for turn in session.turns]) for session in dialogue.sessions),
    ):
        for before, after in _jumps(ids):
            found.append(
                f"{path}: dialogue '{dialogue.id}': no {name} between '{before}' and '{after}'; reading what is there"
            )
    return found


def _jumps(ids: Sequence[str]) -> Iterable[tuple[str, str]]:
    """Neighbours whose numbers differ by more than one, after the same beginning."""
    for before, after in itertools.pairwise(ids):
        one, other = _NUMBERED.fullmatch(before), _NUMBERED.fullmatch(after)
        if one and other and one[1] == other[1] and int(other[2]) - int(one[2]) > 1:
            yield before, after


def _is_record(held: Record) -> bool:
    return is_conversation(held) or "text" in held


def _locomo(records: Records) -> tuple[Dialogue, ...]:
    found: dict[str, Dialogue] = {}
    for index in range(len(records)):
        where, record = records.where(index), records[index]
        dialogue = parse_dialogue(record, where, default_id(record, records.path, index))
        if dialogue.id in found:
            raise BadInput(f"{where}: sample_id '{dialogue.id}' was used before")
        found[dialogue.id] = dialogue
    return tuple(found.values())


def _turns(records: Records) -> Dialogue:
    sessions: dict[str, list[Turn]] = {}
    times: dict[str, str] = {}
    places: dict[str, str] = {}
    named = "session" in records[0]
    last = ""
    for index in range(len(records)):
        record, where = records[index], records.where(index)
        for field in record:
            if field not in _FIELDS:
                raise BadInput(f"{where}: unknown field '{field}'{did_you_mean(field, _FIELDS)}")
        time = _text(record, "time", where)
        if ("session" in record) != named:
            raise BadInput(f"{where}: either every turn has a 'session' or none has")
        name = _text(record, "session", where) if named else time
        if named and not name:
            raise BadInput(f"{where}: field 'session' is empty")
        if name != last and name in sessions:
            what = f"session '{name}'" if named else f"time '{name}'"
            raise BadInput(
                f"{where}: {what} comes again after another one; turns of a session stand together"
            )
        last = name
        turns = sessions.setdefault(name, [])
        times[name] = times.get(name) or time
        turn_id = _text(record, "id", where) or f"{name if named else len(sessions)}:{len(turns) + 1}"
        if turn_id in places:
            raise BadInput(f"{where}: turn id '{turn_id}' was used before, at {places[turn_id]}")
        places[turn_id] = where
        caption = _text(record, "caption", where)
        text = require_text(record, "text", where, empty=bool(caption))
        turns.append(Turn(turn_id, require_text(record, "speaker", where), text, caption))
    speakers = dict.fromkeys(turn.speaker for turns in sessions.values() for turn in turns)
    held = [
        Session(name if named else f"session_{number}", times[name], tuple(turns))
        for number, (name, turns) in enumerate(sessions.items(), start=1)
    ]
    return Dialogue(stem(records.path), tuple(speakers), tuple(held))


def _text(record: Record, key: str, where: str) -> str:
    """A field that may be missing: a text, or a number as text."""
    value = record.get(key)
    if value is None:
        return ""
    if isinstance(value, bool) or not isinstance(value, str | int):
        raise BadInput(f"{where}: field '{key}' must be a text, not {kind_of(value)}")
    return str(value)
