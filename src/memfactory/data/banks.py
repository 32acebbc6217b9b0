"""A file of banks: what an agent's memory held after each session of some dialogues (JSON Lines).

The first line says who wrote it. Every other line is one dialogue:
`{"dialogue": id, "sessions": {session id: [{"text": ..., "time": ...}, ...], ...}}`. `memfactory data banks` writes it.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

from memfactory.core.errors import BadInput, did_you_mean
from memfactory.core.files import disk_errors
from memfactory.data.dialogue import Memory
from memfactory.data.fields import kind_of, require, require_text
from memfactory.data.files import LineRecords
from memfactory.data.parsing import Record

FORMAT, VERSION = "memfactory-banks", 1
#: Of one dialogue: the memories after each session, by the session's id.
Bank = Mapping[str, tuple[Memory, ...]]
_FIELDS = tuple(field.name for field in fields(Memory))


def read_banks(path: str) -> dict[str, Bank]:
    """The banks of every dialogue of a file, by the dialogue's id. Raises `BadInput` naming line and field."""
    if not Path(path).expanduser().exists():
        raise BadInput(
            f"{path}: no such file of banks; make it with: memfactory data banks RECIPE --output {path}"
        )
    records = LineRecords(path)
    if len(records) == 0:
        raise BadInput(f"{path}: the file is empty; make it with: memfactory data banks")
    check_header(records[0], records.where(0))
    banks: dict[str, Bank] = {}
    for index in range(1, len(records)):
        where = records.where(index)
        _compare(records[index], where)
        dialogue = require_text(records[index], "dialogue", where)
        if dialogue in banks:
            raise BadInput(f"{where}: dialogue '{dialogue}' was there before")
        sessions = require(records[index], "sessions", where)
        if not isinstance(sessions, Mapping):
            raise BadInput(f"{where}: field 'sessions' must be an object, not {kind_of(sessions)}")
        banks[dialogue] = {
            session: _memories(held, f"{where}.{session}") for session, held in sessions.items()
        }
    return banks


def check_header(record: Record, where: str) -> None:
    """Raise `BadInput` unless a file's first line is that of a file of banks, of a version that can be read."""
    if record.get("format") != FORMAT:
        raise BadInput(f"{where}: not a file of banks; make one with: memfactory data banks")
    if record.get("version") != VERSION:
        raise BadInput(
            f"{where}: version {record.get('version')} of this format; this memfactory reads version {VERSION}"
        )


class BankWriter:
    """Appends one dialogue after the other; what an interrupted writer of the same kind left is kept."""

    def __init__(self, path: Path, written_by: Mapping[str, Any]) -> None:
        """Raises `BadInput` for a file that is something else, or that another agent or model wrote."""
        self.path = path
        header = {"format": FORMAT, "version": VERSION, **written_by}
        self.done: set[str] = set()
        if path.exists() and path.stat().st_size:
            self._take_up(header)
        else:
            self._append(header)

    def write(self, dialogue: str, bank: Mapping[str, Sequence[Memory]]) -> None:
        """Add a dialogue's banks; they are on disk when this returns. Raises `DiskError`."""
        sessions = {session: [_record(memory) for memory in held] for session, held in bank.items()}
        line = {"dialogue": dialogue, "sessions": sessions}
        self._append({**line, "check": _check(line)})
        self.done.add(dialogue)

    def _take_up(self, header: Mapping[str, Any]) -> None:
        data = self.path.read_bytes()
        whole = data[: data.rfind(b"\n") + 1]
        try:
            first, *others = [json.loads(line) for line in whole.splitlines()]
            check_header(first, f"{self.path}:1")
            for number, record in enumerate(others, start=2):
                _compare(record, f"{self.path}:{number}")
            self.done = {str(record["dialogue"]) for record in others}
        except (ValueError, TypeError, KeyError, AttributeError):
            raise BadInput(f"{self.path}: exists and is no file of banks; choose another --output") from None
        if first != header:
            other = next(key for key in {**first, **header} if first.get(key) != header.get(key))
            raise BadInput(
                f"{self.path}: was begun with another {other} ({first.get(other)}, not {header.get(other)}); "
                "choose another --output"
            )
        if len(whole) < len(data):  # the last line was cut off by a kill
            with disk_errors(self.path), open(self.path, "r+b") as file:
                file.truncate(len(whole))

    def _append(self, record: Mapping[str, Any]) -> None:
        with disk_errors(self.path):
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with open(self.path, "a", encoding="ascii") as file:
                file.write(json.dumps(record) + "\n")


def _compare(line: Record, where: str) -> None:
    """Raise `BadInput` for a line that is another than when it was written; one without a checksum is not compared."""
    content = {name: value for name, value in line.items() if name != "check"}
    if "check" in line and line["check"] != _check(content):
        raise BadInput(
            f"{where}: is not as it was written (its checksum is another): delete the line, and memfactory data banks "
            "makes it again; if it was changed on purpose, take 'check' out of it"
        )


def _check(line: Mapping[str, Any]) -> str:
    """16 hex digits of a line, whatever the spelling of its JSON."""
    return hashlib.blake2b(json.dumps(line, sort_keys=True).encode(), digest_size=8).hexdigest()


def _record(memory: Memory) -> dict[str, Any]:
    return {name: value for name, value in asdict(memory).items() if value}


def _memories(held: object, where: str) -> tuple[Memory, ...]:
    if not isinstance(held, list):
        raise BadInput(f"{where}: must be a list of memories, not {kind_of(held)}")
    return tuple(_memory(entry, f"{where}[{number}]") for number, entry in enumerate(held))


def _memory(entry: object, where: str) -> Memory:
    if not isinstance(entry, Mapping):
        raise BadInput(f"{where}: a memory must be an object, not {kind_of(entry)}")
    values: dict[str, Any] = {"text": require_text(entry, "text", where)}
    for name, value in entry.items():
        if name not in _FIELDS:
            raise BadInput(f"{where}: unknown field '{name}'{did_you_mean(name, _FIELDS)}")
        if name in ("tags", "sources"):
            if not isinstance(value, list) or not all(isinstance(part, str) for part in value):
                raise BadInput(f"{where}: field '{name}' must be a list of strings")
            values[name] = tuple(value)
        else:
            values[name] = require_text(entry, name, where, empty=True)
    return Memory(**values)
