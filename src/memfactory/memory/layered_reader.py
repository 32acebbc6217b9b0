"""What can be asked of a memory bank: its layers of changes, read as one."""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from memfactory.core.texts import forms, nfc
from memfactory.memory.item import Hit, MemoryItem, Vector, best_hits
from memfactory.memory.layers import Base, Layer, Shadows
from memfactory.memory.vectors import unit

if TYPE_CHECKING:
    from memfactory.memory.bm25 import TextIndex


@dataclass(frozen=True)
class BankState:
    """All of a bank at one moment; nothing in it changes any more."""

    base: Base | None
    layers: tuple[Layer, ...]
    length: int
    next_number: int
    meta: Mapping[str, str]
    texts: TextIndexOnce
    shadows: Shadows | None = None


class TextIndexOnce:
    """The BM25 index of one state of a bank, made when it is first asked for, shared by its forks."""

    def __init__(self) -> None:
        self.index: TextIndex | None = None


class LayeredReader:
    """The reading half of `LayeredBank`, which changes what is held here."""

    def __init__(self, embedder: str, dim: int) -> None:
        if dim < 1:
            raise ValueError(f"a bank's vectors need a dimension of at least 1, not {dim}")
        self._embedder = embedder
        self._dim = dim
        self._base: Base | None = None
        self._layers: tuple[Layer, ...] = ()
        self._shadows = Shadows(())
        self._open = Layer(dim)
        self._length = 0
        self._meta: Mapping[str, str] = {}
        self._texts = TextIndexOnce()

    @property
    def embedder(self) -> str:
        return self._embedder

    @property
    def dim(self) -> int:
        return self._dim

    @property
    def meta(self) -> Mapping[str, str]:
        return self._meta

    def __len__(self) -> int:
        return self._length

    def __contains__(self, item_id: object) -> bool:
        return isinstance(item_id, str) and self.get(item_id) is not None

    def get(self, item_id: str) -> MemoryItem | None:
        """The item of an id, or None; an id is the same in every form of Unicode."""
        found = (self._get(form) for form in forms(item_id))
        return next((item for item in found if item is not None), None)

    def _get(self, item_id: str) -> MemoryItem | None:
        for layer in self._newest_first():
            if item_id in layer.changes:
                return layer.changes[item_id]
        return self._base.get(item_id) if self._base is not None else None

    def items(self, *, embeddings: bool = True) -> Iterator[MemoryItem]:
        """Every item, in the order of adding. The bank must not change meanwhile.

        Without `embeddings` a store on disk leaves them out, which reads much less.
        """
        hidden: set[str] = set()
        parts: list[Iterable[MemoryItem]] = []
        for layer in self._newest_first():
            parts.append(layer.items(hidden))
            hidden |= layer.changes.keys()
        if self._base is not None:
            items = self._base.items(embeddings=embeddings)
            parts.append(item for item in items if item.id not in hidden)
        return heapq.merge(*parts, key=lambda item: item.number)

    def with_text(self, text: str) -> list[MemoryItem]:
        """The items of exactly this text, whatever form of Unicode it is in, in the order of adding."""
        hidden: set[str] = set()
        found: list[MemoryItem] = []
        for layer in self._newest_first():
            found += layer.with_text(nfc(text), hidden)
            hidden |= layer.changes.keys()
        if self._base is not None:
            for form in forms(text):  # a bank from before may hold any
                found += [item for item in self._base.with_text(form) if item.id not in hidden]
        return sorted(found, key=lambda item: item.number)

    def search_vector(self, vector: Vector, k: int) -> list[Hit]:
        """The `k` items nearest to a vector, scored by cosine; items without an embedding are not found."""
        query = unit(vector, self._dim)
        if k < 1:
            return []
        own = self._open.changes.keys()
        hits = self._open.nearest(query, k, ())
        for layer, hidden in self._shadows.pairs():
            hits += layer.nearest(query, k, hidden | own if hidden else own)
        if self._base is not None:
            hits += self._base.nearest(query, k, self._shadows.ids | own)
        return best_hits(hits, k)

    def search_text(self, query: str, k: int) -> list[Hit]:
        """The `k` items that BM25 ranks highest; items that share no word with the query are not found."""
        if self._texts.index is None:
            from memfactory.memory.bm25 import TextIndex

            self._texts.index = TextIndex(self.items(embeddings=False))
        found = self._texts.index.search(query, k)
        items = self._get_all([item_id for item_id, _ in found])
        return [Hit(items[item_id], score) for item_id, score in found]

    def _get_all(self, ids: Sequence[str]) -> dict[str, MemoryItem]:
        """Items that are known to be there, by id."""
        if self._base is None:
            return {item_id: item for item_id in ids if (item := self.get(item_id)) is not None}
        changed = {i for layer in self._newest_first() for i in ids if i in layer.changes}
        found = self._base.fetch([item_id for item_id in ids if item_id not in changed])
        return found | {item_id: item for item_id in changed if (item := self.get(item_id)) is not None}

    def _newest_first(self) -> Iterator[Layer]:
        yield self._open
        yield from reversed(self._layers)
