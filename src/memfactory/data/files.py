"""Records in data files, with errors that say where: `train.jsonl:17: no field 'question'`.

A file's records are mappings, one a line (JSON Lines), an array (JSON) or a table (Parquet); gzip is unpacked
in memory. Which of them it is, the first characters tell, not the name. Of plain JSON only one record is
in memory at a time, so a file may be larger than memory.
"""

from __future__ import annotations

import io
import re
from abc import ABC, abstractmethod
from array import array
from collections.abc import Callable, Sequence
from typing import Any

from memfactory.core.errors import BadInput
from memfactory.data import contents, parsing
from memfactory.data.fields import mapping
from memfactory.data.json_array import ArrayPlaces
from memfactory.data.parsing import Record, parse_json

_CHUNK = 1 << 20
_NEWLINE = re.compile(rb"\n")


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
        return mapping(self._items[index], self.where(index))


class _Slices(Records):
    """Records that are parsed from their bytes when they are asked for.

    `data` is the file's content where it had to be unpacked; otherwise records are read from the file.
    """

    def __init__(self, path: str, data: bytes | None = None) -> None:
        super().__init__(path)
        self._data = data

    def _source(self) -> Any:
        return contents.open_file(self.path) if self._data is None else io.BytesIO(self._data)

    def _slice(self, start: int, stop: int, where: str) -> bytes:
        if stop - start > contents.LARGEST:
            raise BadInput(
                f"{where}: a record of {(stop - start) >> 20} MiB; at most {contents.LARGEST >> 20} can be read"
            )
        if self._data is not None:
            return self._data[start:stop]
        with contents.open_file(self.path) as file:
            file.seek(start)
            return bytes(file.read(stop - start))


class LineRecords(_Slices):
    """JSON Lines: only the places of the lines are kept in memory."""

    def __init__(self, path: str, data: bytes | None = None) -> None:
        super().__init__(path, data)
        self._starts, size = array("q", [0]), 0
        with self._source() as file:
            while chunk := file.read(_CHUNK):
                self._starts.extend(size + newline.end() for newline in _NEWLINE.finditer(chunk))
                size += len(chunk)
        if self._starts[-1] != size:  # the last line has no end of its own
            self._starts.append(size)

    def __len__(self) -> int:
        return len(self._starts) - 1

    def __getitem__(self, index: int) -> Record:
        where = self.where(index)
        line = self._slice(self._starts[index], self._starts[index + 1], where)
        if index == 0:
            line = line.removeprefix(contents.BOM)
        if not line.strip():
            raise BadInput(f"{where}: empty line")
        return mapping(parse_json(line, where), where)

    def where(self, index: int) -> str:
        return f"{self.path}:{index + 1}"


class FileArrayRecords(_Slices):
    """A JSON array: only the places of its elements are kept in memory."""

    def __init__(self, path: str, data: bytes | None = None) -> None:
        super().__init__(path, data)
        with self._source() as file:
            skipped = len(contents.BOM) if file.read(len(contents.BOM)) == contents.BOM else 0
            file.seek(skipped)
            self._places = ArrayPlaces(path, iter(lambda: file.read(_CHUNK), b""), skipped)

    def __len__(self) -> int:
        return len(self._places)

    def __getitem__(self, index: int) -> Record:
        places, where = self._places, self.where(index)
        data = self._slice(places.starts[index], places.stops[index], where)
        parsed = parse_json(data, self.path, line=places.lines[index], inside=f" of record {index}")
        return mapping(parsed, where)


def open_records(path: str, *, single: Callable[[Record], bool] | None = None) -> Records:
    """Open a data file: a Parquet table, a JSON array or JSON Lines, plain or packed with gzip.

    A file that is one JSON object is its only record if `single` says that such an object is one. Nothing but the
    outer form is checked here; each record is checked when it is read. Raises `BadInput` for a missing or empty file, a
    folder, a broken archive or table, an array whose brackets do not match, and any other file that is one object.
    """
    if contents.is_table(path):
        from memfactory.data.tables import TableRecords

        records: Records = TableRecords(path)
    else:
        records = _json_records(path, contents.unpacked(path), single)
    if len(records) == 0:
        raise BadInput(f"{path}: the file is empty")
    return records


def open_object(path: str) -> Record:
    """A file that is one JSON object, plain or packed. Raises `BadInput` for anything else, naming the line."""
    data = contents.whole(path)
    if not data.strip():
        raise BadInput(f"{path}: the file is empty")
    return mapping(parse_json(data, path, line=1), path)


def _json_records(path: str, data: bytes | None, single: Callable[[Record], bool] | None) -> Records:
    with contents.open_file(path) if data is None else io.BytesIO(data) as file:
        first = file.readline(contents.LARGEST).removeprefix(contents.BOM)
        while first.isspace():
            first = file.readline(contents.LARGEST)
        more = file.read(1)
    if first.lstrip().startswith(b"["):
        return FileArrayRecords(path, data)
    lines = LineRecords(path, data)
    if not first.lstrip().startswith(b"{"):
        return lines
    if more and parsing.goes_on(first):
        held = parsing.whole_object(contents.whole(path), path)
        if held is None:
            return lines
        if single is None or not single(held):
            raise parsing.refuse_whole(path, held)
        return ArrayRecords(path, [held])
    if len(lines) == 1 and not parsing.goes_on(first):
        _refuse_wrapped(lines)
    return lines


def _refuse_wrapped(lines: LineRecords) -> None:
    """Raise `BadInput` for a file of one line whose object only holds the list of records."""
    try:
        held = lines[0]
    except BadInput:
        return  # said when the record is read
    if parsing.holds_records(held):
        raise parsing.refuse_whole(lines.path, held)
