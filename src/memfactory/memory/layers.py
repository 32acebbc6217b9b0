"""Layers of changes: what makes a fork of a bank cost nothing.

A bank is a stack: an unchanging base (nothing, or a snapshot of a disk store), sealed layers that forks
share, and one open layer of its own. A fork seals the open layer and gives both banks a new, empty one.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import replace
from typing import Protocol

import numpy

from memfactory.memory.item import Hit, MemoryItem
from memfactory.memory.vectors import Rows, candidates, exact_scores


class Base(Protocol):
    """An unchanging set of items at the bottom of a stack."""

    def get(self, item_id: str) -> MemoryItem | None: ...

    def fetch(self, ids: Sequence[str]) -> dict[str, MemoryItem]:
        """The items of those ids that are there."""

    def items(self, *, embeddings: bool = True) -> Iterator[MemoryItem]:
        """Every item, by number; possibly without their embeddings."""

    def with_text(self, text: str) -> list[MemoryItem]: ...

    def nearest(self, query: numpy.ndarray, k: int, hidden: Collection[str]) -> list[Hit]:
        """At least the `k` best of the items whose ids are not hidden, with exact scores, in any order."""


class Layer:
    """Changes to a bank: the newest state of every id that was touched, None for one that was deleted."""

    def __init__(self, dim: int) -> None:
        self.changes: dict[str, MemoryItem | None] = {}
        self._dim = dim
        self._rows = Rows(dim)
        self._owners: list[MemoryItem | None] = []  # the item of each row; None once it was changed again
        self._row_of: dict[str, int] = {}
        self._dead: list[int] = []
        self._ids_of_text: dict[str, list[str]] | None = None

    def __len__(self) -> int:
        return len(self.changes)

    def put(self, item: MemoryItem) -> MemoryItem:
        """Set an item; returns it with its embedding as a view of this layer's rows."""
        self._forget_row(item.id)
        if item.embedding is not None:
            item = replace(item, embedding=self._rows.append(item.embedding))
            self._row_of[item.id] = len(self._owners)
            self._owners.append(item)
        self.changes[item.id] = item
        if self._ids_of_text is not None:
            self._ids_of_text.setdefault(item.text, []).append(item.id)
        return item

    def remove(self, item_id: str) -> None:
        """Mark an id as deleted."""
        self._forget_row(item_id)
        self.changes[item_id] = None

    def items(self, hidden: Collection[str]) -> list[MemoryItem]:
        """The items that are neither deleted nor hidden, by number."""
        found = [item for item in self.changes.values() if item is not None and item.id not in hidden]
        return sorted(found, key=lambda item: item.number)

    def with_text(self, text: str, hidden: Collection[str]) -> list[MemoryItem]:
        """The items of exactly this text that are not hidden, in any order."""
        if self._ids_of_text is None:
            self._ids_of_text = {}
            for item in self.changes.values():
                if item is not None:
                    self._ids_of_text.setdefault(item.text, []).append(item.id)
        ids = set(self._ids_of_text.get(text, ())) - set(hidden)
        found = [self.changes[item_id] for item_id in ids]
        return [item for item in found if item is not None and item.text == text]

    def nearest(self, query: numpy.ndarray, k: int, hidden: Collection[str]) -> list[Hit]:
        """At least the `k` best of the items that are not hidden, with exact scores, in any order."""
        scores = self._rows.dot(query)
        scores[self._dead] = -numpy.inf
        few, many = (hidden, self._row_of) if len(hidden) < len(self._row_of) else (self._row_of, hidden)
        scores[[self._row_of[item_id] for item_id in few if item_id in many]] = -numpy.inf
        owners = [self._owners[row] for row in candidates(scores, k)]
        return exact_scores([item for item in owners if item is not None], query)

    def _forget_row(self, item_id: str) -> None:
        row = self._row_of.pop(item_id, None)
        if row is None:
            return
        self._owners[row] = None
        self._dead.append(row)
        if len(self._dead) > max(64, len(self._row_of)):
            self._drop_dead_rows()

    def _drop_dead_rows(self) -> None:
        owners = [item for item in self._owners if item is not None]
        self._rows, self._owners, self._row_of, self._dead = Rows(self._dim), [], {}, []
        for item in owners:
            moved = replace(item, embedding=self._rows.append(item.embedding))  # type: ignore[arg-type]
            self._row_of[item.id] = len(self._owners)
            self._owners.append(moved)
            self.changes[item.id] = moved


class Shadows:
    """Which ids of each sealed layer a layer above it changed again: worked out once, shared by forks."""

    def __init__(self, layers: tuple[Layer, ...]) -> None:
        self._layers = layers
        self._pairs: list[tuple[Layer, set[str]]] | None = None
        self.ids: set[str] = set()  # that any of the layers changed

    def pairs(self) -> list[tuple[Layer, set[str]]]:
        """Each layer with its hidden ids, the newest first."""
        if self._pairs is None:
            self._pairs = []
            for layer in reversed(self._layers):
                self._pairs.append((layer, self.ids & layer.changes.keys()))
                self.ids |= layer.changes.keys()
        return self._pairs


def merged(layers: Collection[Layer], dim: int) -> Layer:
    """One layer that says what several say together, oldest first."""
    changes: dict[str, MemoryItem | None] = {}
    for layer in layers:
        changes.update(layer.changes)
    result = Layer(dim)
    for item_id, item in changes.items():
        if item is None:
            result.remove(item_id)
        else:
            result.put(item)
    return result


def compacted(layers: tuple[Layer, ...], dim: int) -> tuple[Layer, ...]:
    """The same changes in fewer layers, when that is cheap: small ones on top are merged pairwise.

    Sizes fall from the bottom up by at least half, as far as layers are small; so a change is copied
    a handful of times at most, and a search looks at few layers.
    """
    while len(layers) > 1:
        upper, lower = len(layers[-1]), len(layers[-2])
        if 2 * upper < lower or (upper + lower > _CHEAP and len(layers) <= _DEEPEST):
            break
        layers = (*layers[:-2], merged(layers[-2:], dim))
    return layers


_CHEAP = 128  # changes: merging so many takes less than a millisecond
_DEEPEST = 24
