"""Sequences of tasks that are made when they are asked for: from the records of a file, or by a generator."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar, overload

from memfactory.core.bounds import AtLeastOne, Count, Seed
from memfactory.core.errors import BadInput
from memfactory.core.types import Task
from memfactory.data.files import Records, open_records
from memfactory.data.parsing import Record

T = TypeVar("T")

#: Makes an item: (record, where it stands, its default id) -> item. Raises `BadInput` starting with `where`.
Parse = Callable[[Record, str, str], T]


@dataclass(frozen=True)
class FileConfig:
    """Fields of every component that reads a file.

    `shuffle_seed` puts the file's records in a seeded order; then `offset` are passed over and at most
    `limit` are kept.
    """

    path: str
    limit: AtLeastOne | None = None
    offset: Count = 0
    shuffle_seed: Seed | None = None


class LazySequence(Sequence[T], Generic[T]):
    """Items 0 .. size - 1, each made anew by `make(index)` whenever it is asked for, also those of a slice."""

    def __init__(self, size: int, make: Callable[[int], T]) -> None:
        self._size = size
        self._make = make

    def __len__(self) -> int:
        return self._size

    @overload
    def __getitem__(self, index: int) -> T: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[T]: ...
    def __getitem__(self, index: int | slice) -> T | Sequence[T]:
        if isinstance(index, slice):
            kept = range(self._size)[index]
            return LazySequence(len(kept), lambda place: self._make(kept[place]))
        return self._make(range(self._size)[index])


def load(
    parse: Parse[T | None],
    path: str,
    limit: int | None = None,
    offset: int = 0,
    shuffle_seed: int | None = None,
) -> Sequence[T]:
    """Check every record of a file, and return the chosen ones as a lazy sequence.

    Records of which `parse` makes None are left out. Raises `BadInput` naming the first bad record's place, for
    tasks whose ids are not unique, and when nothing is left.
    """
    records = open_records(path)
    seen: dict[str, int] = {}
    kept: list[int] = []
    for index in range(len(records)):
        item = parse_at(records, index, parse)
        if item is None:
            continue
        kept.append(index)
        if isinstance(item, Task):
            first = seen.setdefault(item.id, index)
            if first != index:
                raise BadInput(
                    f"{records.where(index)}: id '{item.id}' was used before, at {records.where(first)}"
                )
    if not kept:
        raise BadInput(f"{path}: none of its {len(records)} records can be used")
    chosen = choose(len(kept), path, limit, offset, shuffle_seed)

    def item_of(place: int) -> T:
        item = parse_at(records, kept[chosen[place]], parse)
        assert item is not None  # the same record gave an item above
        return item

    return LazySequence(len(chosen), item_of)


def parse_at(records: Records, index: int, parse: Parse[T]) -> T:
    """The item of one record. Raises `BadInput` naming its place."""
    return parse(records[index], records.where(index), f"{stem(records.path)}-{index}")


def choose(
    size: int, name: str, limit: int | None = None, offset: int = 0, shuffle_seed: int | None = None
) -> Sequence[int]:
    """Which of `size` items to keep, in which order. Raises `BadInput` when that would be none."""
    if limit is not None and limit < 1:
        raise BadInput(f"{name}: limit must be at least 1, not {limit}")
    if not 0 <= offset < size:
        raise BadInput(f"{name}: offset {offset} leaves none of the {size} records")
    order: Sequence[int] = range(size)
    if shuffle_seed is not None:
        order = random.Random(f"choose|{shuffle_seed}").sample(order, size)
    return order[offset:][:limit]


def stem(path: str) -> str:
    """A file's name without folder and suffixes."""
    name = Path(path).name
    for suffix in (".gz", ".jsonl", ".json", ".parquet"):
        name = name.removesuffix(suffix)
    return name


def as_task(record: dict[str, Any]) -> Task:
    """The task that a generator described: `id`, `question`, `text`, `answers`, `meta`."""
    return Task(
        record["id"], record["question"], record["text"], tuple(record["answers"]), record.get("meta", {})
    )
