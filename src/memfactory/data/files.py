"""Records in data files, with errors that say where: `train.jsonl:17: no field 'question'`.

A file's records are mappings, one a line (JSON Lines), an array (JSON) or a table (Parquet); `.gz` is unpacked
in memory. Which of the first two it is, the first character tells, not the name. Of plain JSON only one record is
in memory at a time, so a file may be larger than memory.
"""

from __future__ import annotations

import gzip
import io
import json
import zlib
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from memfactory.core.errors import BadInput, did_you_mean
from memfactory.data.catalog import where_to_get
from memfactory.data.json_array import ArrayPlaces

Record = Mapping[str, Any]
_BOM = b"\xef\xbb\xbf"
_CHUNK = 1 << 20


class Records(ABC):
    """The records of one file, read and checked one at a time."""

    def __init__(self, path: str) -> None:
        self.path = path

    @abstractmethod
    def __len__(self) -> int: ...

    @abstractmethod
    def __getitem__(self, index: int) -> Record:
        """Record `index`, from 0. Raises `BadInput` naming the place of one that is no JSON object."""

    def where(self, index: int) -> str:
        """The place of a record for error messages: `file[index]`, from 0, or `file:line`, from 1."""
        return f"{self.path}[{index}]"


class ArrayRecords(Records):
    """A JSON array in memory."""

    def __init__(self, path: str, items: Sequence[Any]) -> None:
        super().__init__(path)
        self._items = items

    def __len__(self) -> int:
        return len(self._items)

    def __getitem__(self, index: int) -> Record:
        return _mapping(self._items[index], self.where(index))


class _Slices(Records):
    """Records that are parsed from their bytes when they are asked for.

    `data` is the file's content where it had to be unpacked; otherwise records are read from the file.
    """

    def __init__(self, path: str, data: bytes | None = None) -> None:
        super().__init__(path)
        self._data = data

    def _source(self) -> Any:
        return _open(self.path) if self._data is None else io.BytesIO(self._data)

    def _slice(self, start: int, stop: int) -> bytes:
        if self._data is not None:
            return self._data[start:stop]
        with _open(self.path) as file:
            file.seek(start)
            return bytes(file.read(stop - start))


class LineRecords(_Slices):
    """JSON Lines: only the places of the lines are kept in memory."""

    def __init__(self, path: str, data: bytes | None = None) -> None:
        super().__init__(path, data)
        self._starts = [0]
        with self._source() as file:
            for line in file:
                self._starts.append(self._starts[-1] + len(line))

    def __len__(self) -> int:
        return len(self._starts) - 1

    def __getitem__(self, index: int) -> Record:
        where = self.where(index)
        line = self._slice(self._starts[index], self._starts[index + 1])
        if index == 0:
            line = line.removeprefix(_BOM)
        if not line.strip():
            raise BadInput(f"{where}: empty line")
        return _mapping(_parse(line, where), where)

    def where(self, index: int) -> str:
        return f"{self.path}:{index + 1}"


class FileArrayRecords(_Slices):
    """A JSON array: only the places of its elements are kept in memory."""

    def __init__(self, path: str, data: bytes | None = None) -> None:
        super().__init__(path, data)
        with self._source() as file:
            skipped = len(_BOM) if file.read(len(_BOM)) == _BOM else 0
            file.seek(skipped)
            self._places = ArrayPlaces(path, iter(lambda: file.read(_CHUNK), b""), skipped)

    def __len__(self) -> int:
        return len(self._places)

    def __getitem__(self, index: int) -> Record:
        places = self._places
        data = self._slice(places.starts[index], places.stops[index])
        parsed = _parse(data, self.path, line=places.lines[index], inside=f" of record {index}")
        return _mapping(parsed, self.where(index))


class TableRecords(Records):
    """A Parquet table, kept in Arrow's compact form; a row becomes Python values when asked for."""

    def __init__(self, path: str) -> None:
        super().__init__(path)
        import pyarrow
        import pyarrow.parquet

        try:
            self._table = pyarrow.parquet.read_table(_existing(path))
        except (pyarrow.ArrowInvalid, pyarrow.ArrowNotImplementedError, OSError) as error:
            raise BadInput(f"{path}: not a readable Parquet file ({_first_line(error)})") from None

    def __len__(self) -> int:
        return int(self._table.num_rows)

    def __getitem__(self, index: int) -> Record:
        return dict(self._table.slice(index, 1).to_pylist()[0])


def open_records(path: str) -> Records:
    """Open a data file: Parquet by its suffix, else a JSON array or JSON Lines, plain or `.gz`.

    Nothing but the outer form is checked here; each record is checked when it is read. Raises `BadInput`
    for a missing or empty file, a folder, a broken archive or table, or an array whose brackets do not match.
    """
    if path.endswith(".parquet"):
        records: Records = TableRecords(path)
    else:
        data = _unpack(path) if path.endswith(".gz") else None
        head = data[:4096] if data is not None else _head(path)
        if head.removeprefix(_BOM).lstrip().startswith(b"["):
            records = FileArrayRecords(path, data)
        else:
            records = LineRecords(path, data)
    if len(records) == 0:
        raise BadInput(f"{path}: the file is empty")
    return records


def open_object(path: str) -> Record:
    """A file that is one JSON object, plain or `.gz`. Raises `BadInput` for anything else, naming the line."""
    data = _unpack(path) if path.endswith(".gz") else _read(path)
    if not data.strip():
        raise BadInput(f"{path}: the file is empty")
    return _mapping(_parse(data.removeprefix(_BOM), path, line=1), path)


def require(record: Record, key: str, where: str) -> Any:
    """The value of a field; a dotted key reaches into objects.

    Raises `BadInput` naming place, field and the nearest field that is there.
    """
    if key in record:
        return record[key]
    value: Any = record
    parts = key.split(".")
    for depth, part in enumerate(parts, start=1):
        if not isinstance(value, Mapping) or part not in value:
            known = [str(name) for name in value] if isinstance(value, Mapping) else []
            raise BadInput(f"{where}: no field '{'.'.join(parts[:depth])}'{did_you_mean(part, known)}")
        value = value[part]
    return value


def require_text(record: Record, key: str, where: str, *, empty: bool = False) -> str:
    """The string in a field; `empty` allows one of only spaces. Raises `BadInput` as `require` does."""
    value = require(record, key, where)
    if not isinstance(value, str):
        raise BadInput(f"{where}: field '{key}' must be a string, not {kind_of(value)}")
    if not empty and not value.strip():
        raise BadInput(f"{where}: field '{key}' is empty")
    return value


def require_answers(record: Record, key: str, where: str) -> tuple[str, ...]:
    """The gold answers in a field: a string or number, or a list of them, none empty.

    Raises `BadInput` if there is none, or as `require` does.
    """
    value = require(record, key, where)
    answers = value if isinstance(value, list | tuple) else [value]
    for answer in answers:
        if isinstance(answer, bool) or not isinstance(answer, str | int | float):
            raise BadInput(f"{where}: field '{key}' must hold strings, not {kind_of(answer)}")
    texts = tuple(str(answer) for answer in answers)
    if not texts or not all(text.strip() for text in texts):
        raise BadInput(f"{where}: no gold answer in field '{key}'")
    return texts


def kind_of(value: object) -> str:
    """The JSON name of a value's type, with an article."""
    names = {
        dict: "an object",
        list: "a list",
        str: "a string",
        bool: "a boolean",
        int: "a number",
        float: "a number",
    }
    return "null" if value is None else names.get(type(value), f"a {type(value).__name__}")


def _mapping(value: Any, where: str) -> Record:
    if not isinstance(value, dict):
        raise BadInput(f"{where}: expected an object, found {kind_of(value)}")
    return value


def _parse(data: bytes, where: str, *, line: int | None = None, inside: str = "") -> Any:
    """Parse JSON. `line`, the one on which `data` begin, adds that of an error to `where`; places count `inside`."""
    try:
        return json.loads(data.decode())
    except UnicodeDecodeError as error:
        lines_before = data.count(b"\n", 0, error.start)
        place = where if line is None else f"{where}:{line + lines_before}"
        raise BadInput(f"{place}: not UTF-8 text (byte {error.start}{inside})") from None
    except json.JSONDecodeError as error:
        place = where if line is None else f"{where}:{line + error.lineno - 1}"
        at = f"character {error.pos + 1}{inside}" if inside else f"column {error.colno}"
        raise BadInput(f"{place}: not valid JSON ({error.msg} at {at})") from None
    except (RecursionError, ValueError) as error:
        place = where if line is None else f"{where}:{line}"
        raise BadInput(f"{place}: not valid JSON ({_first_line(error)})") from None


def _existing(path: str) -> Path:
    file = Path(path).expanduser()
    if file.is_dir():
        raise BadInput(f"{path}: is a folder, not a data file")
    if not file.exists():
        near = did_you_mean(
            file.name, [p.name for p in file.parent.iterdir()] if file.parent.is_dir() else []
        )
        raise BadInput(f"{path}: no such data file{where_to_get(path) or near}")
    return file


def _open(path: str) -> Any:
    try:
        return _existing(path).open("rb")
    except OSError as error:
        raise BadInput(f"{path}: cannot be read ({error.strerror or error})") from None


def _read(path: str) -> bytes:
    with _open(path) as file:
        return bytes(file.read())


def _head(path: str) -> bytes:
    with _open(path) as file:
        return bytes(file.read(4096))


def _unpack(path: str) -> bytes:
    try:
        with gzip.open(_open(path)) as file:
            return bytes(file.read())
    except (OSError, EOFError, zlib.error) as error:
        raise BadInput(f"{path}: not a readable gzip file ({_first_line(error)})") from None


def _first_line(error: Exception) -> str:
    return (str(error) or type(error).__name__).splitlines()[0]
