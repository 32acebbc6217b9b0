"""The memory bank: what every store can do, and the store in memory."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import AbstractContextManager
from typing import Protocol

from memfactory.memory.item import Hit, MemoryItem, Vector
from memfactory.memory.layered import KEEP, LayeredBank

__all__ = ["KEEP", "InMemoryBank", "MemoryBank"]


class MemoryBank(Protocol):
    """Memories with ids that modules read and edit.

    Ids are `m1`, `m2`, … in the order of adding, and no id is given twice, whatever is deleted. Searches
    rank by score, and equal scores by that order. Vectors are compared by cosine.
    """

    @property
    def embedder(self) -> str:
        """The name of the embedder that all vectors of this bank come from."""

    @property
    def dim(self) -> int:
        """The dimension of its vectors."""

    @property
    def meta(self) -> Mapping[str, str]:
        """Small notes kept with the bank: how far ingesting came, for instance."""

    def __len__(self) -> int: ...
    def __contains__(self, item_id: object) -> bool: ...
    def items(self, *, embeddings: bool = True) -> Iterator[MemoryItem]: ...
    def get(self, item_id: str) -> MemoryItem | None: ...
    def with_text(self, text: str) -> list[MemoryItem]: ...
    def add(
        self,
        text: str,
        *,
        embedding: Vector | None = ...,
        key: str = ...,
        type: str = ...,
        tags: Iterable[str] = ...,
        session: str = ...,
        time: str = ...,
        sources: Iterable[str] = ...,
    ) -> MemoryItem: ...
    def insert(self, item: MemoryItem) -> MemoryItem: ...
    def update(
        self,
        item_id: str,
        *,
        text: str = ...,
        embedding: Vector | None = ...,
        key: str = ...,
        type: str = ...,
        tags: Iterable[str] = ...,
        session: str = ...,
        time: str = ...,
        sources: Iterable[str] = ...,
    ) -> MemoryItem: ...
    def delete(self, item_id: str) -> MemoryItem: ...
    def set_meta(self, key: str, value: str) -> None: ...
    def search_vector(self, vector: Vector, k: int) -> list[Hit]: ...
    def search_text(self, query: str, k: int) -> list[Hit]: ...
    def transaction(self) -> AbstractContextManager[None]: ...
    def fork(self) -> MemoryBank: ...
    def require_embedder(self, name: str, dim: int, where: str = ...) -> None: ...
    def close(self) -> None: ...


class InMemoryBank(LayeredBank):
    """A memory bank in this process only: what rollouts edit, each its own fork."""
