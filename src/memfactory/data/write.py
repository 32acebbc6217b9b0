"""Writing data files whole or not at all, with the same bytes for the same content."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from memfactory.core.errors import BadInput, DiskError
from memfactory.core.files import new_file
from memfactory.core.partials import remove_partials_of


@contextmanager
def atomic_write(path: str) -> Iterator[IO[bytes]]:
    """A binary file that appears under `path` only when all of it is written; an error leaves nothing.

    Missing parent folders are made. Raises `DiskError` when writing fails (disk full, no permission).
    """
    target = Path(path).expanduser()
    try:
        remove_partials_of(target)
        with new_file(target, option="--output") as file:
            yield file
    except OSError as error:
        raise DiskError(f"{path}: cannot be written ({error.strerror or error})") from None


def json_line(record: Mapping[str, Any]) -> bytes:
    """One record as a line of JSON in UTF-8; lone surrogates, which UTF-8 has not, stay escaped."""
    try:
        return json.dumps(record, ensure_ascii=False).encode() + b"\n"
    except UnicodeEncodeError:
        return json.dumps(record).encode() + b"\n"


def write_jsonl(path: str, records: Iterable[Mapping[str, Any]]) -> int:
    """Write records one a line, as they come; returns how many. Raises `DiskError`."""
    count = 0
    with atomic_write(path) as file:
        for record in records:
            file.write(json_line(record))
            count += 1
    return count


def write_json(path: str, records: Iterable[Mapping[str, Any]]) -> int:
    """Write records as one JSON array, a record a line; returns how many. Raises `DiskError`."""
    count = 0
    with atomic_write(path) as file:
        for record in records:
            file.write((b"[\n" if count == 0 else b",\n") + json_line(record).rstrip(b"\n"))
            count += 1
        file.write(b"[]\n" if count == 0 else b"\n]\n")
    return count


def write_parquet(path: str, records: Iterable[Mapping[str, Any]]) -> int:
    """Write records as a Parquet table, 64 rows a group; returns how many. Raises `DiskError`."""
    import pyarrow
    import pyarrow.parquet

    rows: list[Mapping[str, Any]] = list(records)
    table = pyarrow.Table.from_pylist(rows)
    with atomic_write(path) as file:
        pyarrow.parquet.write_table(table, file, row_group_size=64)
    return len(rows)


def writer_for(path: str, known: Iterable[str] = (".jsonl", ".json", ".parquet")) -> Callable[..., int]:
    """The writer of a path's suffix. Raises `BadInput` naming the suffixes there are."""
    writers = {".jsonl": write_jsonl, ".json": write_json, ".parquet": write_parquet}
    suffix = Path(path).suffix
    if suffix not in set(known):
        raise BadInput(f"{path}: the output must end in {', '.join(known)}")
    return writers[suffix]
