"""The processes of one run: which of them this one is, and how they talk.

With one process every method is the identity, so callers need no second code path. Values must be known to
pickle; what one rank sends, all of them must ask for, in the same order.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from itertools import chain, zip_longest
from typing import Any, TypeVar

T = TypeVar("T")
_NOTHING: Any = object()


@dataclass(frozen=True)
class Ranks:
    """This process's number among `world` processes (0-based), and its number on its machine.

    `group` is the torch.distributed group over which Python objects travel (None: there is one process).
    """

    rank: int = 0
    world: int = 1
    local_rank: int = 0
    group: Any = field(default=None, repr=False, compare=False)

    @property
    def first(self) -> bool:
        """Whether this is the rank that prints and writes."""
        return self.rank == 0

    def gather(self, value: T) -> list[T]:
        """The values of all ranks, in the order of ranks, on every rank."""
        if self.world == 1:
            return [value]
        import torch.distributed as dist

        values: list[Any] = [None] * self.world
        dist.all_gather_object(values, value, group=self.group)
        return values

    def broadcast(self, value: T) -> T:
        """What rank 0 passed, on every rank; what the others passed is ignored."""
        if self.world == 1:
            return value
        import torch.distributed as dist

        box = [value if self.first else None]
        dist.broadcast_object_list(box, src=0, group=self.group)
        return box[0]  # type: ignore[return-value]

    def barrier(self) -> None:
        """Wait until every rank has come here."""
        self.gather(None)

    def share(self, items: Sequence[T]) -> list[T]:
        """The items of this rank: every `world`-th, so that neighbours go to different ranks."""
        return list(items[self.rank :: self.world])

    def join_shares(self, items: Sequence[T]) -> list[T]:
        """All ranks' items in the order that `share` took them from."""
        if self.world == 1:
            return list(items)
        rows: Iterable[tuple[Any, ...]] = zip_longest(*self.gather(list(items)), fillvalue=_NOTHING)
        return [item for item in chain.from_iterable(rows) if item is not _NOTHING]


ALONE = Ranks()
