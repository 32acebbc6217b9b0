"""One memory, and a memory that a search found."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypeAlias

if TYPE_CHECKING:
    import numpy

#: What a bank takes as an embedding or a query; it brings it to float32 and length 1 itself.
Vector: TypeAlias = "Sequence[float] | numpy.ndarray"


@dataclass(frozen=True, slots=True)
class MemoryItem:
    """One memory of a bank.

    `key` is a short title and `type` a class of memories, both free; `sources` are the ids of the turns it
    rests on; sessions and times are kept as the dialogue wrote them. `number` is its place in the order in
    which a bank's items were added: the bank sets it, an update keeps it, and it decides between equal
    scores. `embedding` is a read-only float32 vector of length 1, or None; it is no part of equality.
    """

    id: str
    text: str
    key: str = ""
    type: str = ""
    tags: tuple[str, ...] = ()
    created_session: str = ""
    created_time: str = ""
    updated_session: str = ""
    updated_time: str = ""
    sources: tuple[str, ...] = ()
    number: int = 0
    embedding: numpy.ndarray | None = field(default=None, compare=False, repr=False)


_OWN_ID = re.compile(r"m([1-9][0-9]{0,17})")  # as far as numbers of 64 bits reach
#: Every number from here on may be part of an id that is no bank's own.
FIRST_LONG = 10**18


def own_number(item_id: str) -> int | None:
    """The number in an id as banks give them (`m12`); None for any other id (`m007`, `m` and forty digits)."""
    found = _OWN_ID.fullmatch(item_id)
    return int(found.group(1)) if found else None


@dataclass(frozen=True, slots=True)
class Hit:
    """An item that a search found. Higher scores are better; what they mean depends on the search."""

    item: MemoryItem
    score: float


def best_hits(hits: list[Hit], k: int) -> list[Hit]:
    """The `k` best hits, best first; between equal scores the item that was added first."""
    return sorted(hits, key=lambda hit: (-hit.score, hit.item.number))[:k]
