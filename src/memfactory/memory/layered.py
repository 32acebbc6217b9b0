"""A memory bank as layers of changes: all of the semantics, for every store.

A store on disk adds only where the base comes from and what a commit does. So the same calls give the same
results in every store.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any, Self

from memfactory.core.errors import BadInput
from memfactory.core.texts import nfc
from memfactory.memory.item import FIRST_LONG, MemoryItem, Vector, own_number
from memfactory.memory.layered_reader import BankState, LayeredReader, TextIndexOnce
from memfactory.memory.layers import Layer, Shadows, compacted
from memfactory.memory.vectors import unit

#: Left out of an update: stays as it is.
KEEP: Any = type("Keep", (), {"__repr__": lambda self: "KEEP"})()


class LayeredBank(LayeredReader):
    """A memory bank as a stack of layers of changes. See `MemoryBank` for what the methods promise."""

    def __init__(self, embedder: str, dim: int) -> None:
        super().__init__(embedder, dim)
        self._depth = 0  # of open transactions
        self._settled = 0  # so many of the lowest layers are not to be merged with those above
        self._next_number = 1

    def add(
        self,
        text: str,
        *,
        embedding: Vector | None = None,
        key: str = "",
        type: str = "",
        tags: Iterable[str] = (),
        session: str = "",
        time: str = "",
        sources: Iterable[str] = (),
    ) -> MemoryItem:
        """Add a memory under the next id, created and updated at `session` and `time`."""
        item = MemoryItem(
            id="",
            text=text,
            key=key,
            type=type,
            tags=tuple(tags),
            created_session=session,
            created_time=time,
            updated_session=session,
            updated_time=time,
            sources=tuple(sources),
            embedding=embedding,  # type: ignore[arg-type]
        )
        return self.insert(item)

    def insert(self, item: MemoryItem) -> MemoryItem:
        """Add an item as it is, under its own id or, when that is empty, the next one; its number is set anew.

        Raises `ValueError` for an id that is taken, an empty text or an embedding that does not fit.
        """
        self._writable()
        item = _composed(item)
        number = self._next_number
        while not item.id and number >= FIRST_LONG and f"m{number}" in self:
            number += 1
        item_id = item.id or f"m{number}"
        if item.id:
            own = own_number(item.id)
            number = number if own is None else max(number, own)
            # An own id beyond all numbers given cannot be there: no look-up, which on disk costs milliseconds.
            if (own is None or own < self._next_number) and item.id in self:
                raise ValueError(f"the id '{item.id}' is taken")
        stored = self._put(replace(item, id=item_id, number=number))
        self._length += 1
        self._next_number = number + 1
        self._changed()
        return stored

    def update(
        self,
        item_id: str,
        *,
        text: str = KEEP,
        embedding: Vector | None = KEEP,
        key: str = KEEP,
        type: str = KEEP,
        tags: Iterable[str] = KEEP,
        session: str = KEEP,
        time: str = KEEP,
        sources: Iterable[str] = KEEP,
    ) -> MemoryItem:
        """Replace what is given of an item; `session` and `time` say when. Returns the new item.

        A new text needs its own embedding (or None) with it. Raises `KeyError` for an unknown id, `ValueError`
        as `insert` does.
        """
        self._writable()
        old = self.get(item_id)
        if old is None:
            raise KeyError(item_id)
        if (
            text is not KEEP
            and nfc(text) != nfc(old.text)
            and embedding is KEEP
            and old.embedding is not None
        ):
            raise ValueError(f"update of '{item_id}': a new text needs a new embedding")
        given: dict[str, Any] = {
            "text": text,
            "embedding": embedding,
            "key": key,
            "type": type,
            "tags": tags if tags is KEEP else tuple(tags),
            "updated_session": session,
            "updated_time": time,
            "sources": sources if sources is KEEP else tuple(sources),
        }
        stored = self._put(
            replace(old, **{name: value for name, value in given.items() if value is not KEEP})
        )
        self._changed()
        return stored

    def delete(self, item_id: str) -> MemoryItem:
        """Remove an item; returns what it was. Raises `KeyError` for an unknown id."""
        self._writable()
        old = self.get(item_id)
        if old is None:
            raise KeyError(item_id)
        self._open.remove(old.id)
        self._length -= 1
        self._changed()
        return old

    def set_meta(self, key: str, value: str) -> None:
        """Keep a note with the bank, in the same transaction as its items."""
        self._writable()
        self._meta = {**self._meta, key: value}
        self._changed(texts=False)

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """Make all changes of the block together, or none of them if it raises. Blocks nest."""
        self._writable()
        before = self._freeze()
        self._depth += 1
        try:
            yield
        except BaseException:
            self._restore(before)
            raise
        else:
            if self._depth == 1:
                self._commit()
        finally:
            self._depth -= 1

    def fork(self) -> LayeredBank:
        """A bank in memory with the same content; changes of either are not seen by the other.

        Nothing is copied: both go on from the same frozen layers.
        """
        child = LayeredBank(self._embedder, self._dim)
        child._restore(self._freeze())
        return child

    def require_embedder(self, name: str, dim: int, where: str = "this memory bank") -> None:
        """Raise `BadInput` when vectors of another embedder than the bank's are about to meet it."""
        if (name, dim) != (self._embedder, self._dim):
            raise BadInput(
                f"{where}: built with embedder '{self._embedder}' (dimension {self._dim}), not '{name}' "
                f"(dimension {dim}); use that embedder, or move the memories: memfactory bank export, then "
                "memfactory bank import --embedder NAME"
            )

    def close(self) -> None:
        """Give back what the bank holds (files, locks); a bank in memory holds nothing."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def _put(self, item: MemoryItem) -> MemoryItem:
        if not item.text.strip():
            raise ValueError("a memory needs a text")
        item = _composed(item)
        if item.embedding is not None:
            item = replace(item, embedding=unit(item.embedding, self._dim))
        return self._open.put(item)

    def _changed(self, *, texts: bool = True) -> None:
        if texts:
            self._texts = TextIndexOnce()
        if self._depth == 0:
            self._commit()

    def _freeze(self) -> BankState:
        """The state now, sealing the open layer."""
        if len(self._open):
            below, above = self._layers[: self._settled], self._layers[self._settled :]
            self._layers = (*below, *compacted((*above, self._open), self._dim))
            self._shadows = Shadows(self._layers)
            self._open = Layer(self._dim)
        return BankState(
            self._base,
            self._layers,
            self._length,
            self._next_number,
            self._meta,
            self._texts,
            self._shadows,
        )

    def _restore(self, state: BankState) -> None:
        self._base, self._layers = state.base, state.layers
        self._shadows = state.shadows or Shadows(state.layers)
        self._length, self._next_number = state.length, state.next_number
        self._meta, self._texts = state.meta, state.texts
        self._open = Layer(self._dim)

    def _writable(self) -> None:
        """Raise when this bank must not be changed."""

    def _commit(self) -> None:
        """Make the changes since the last commit last."""


def _composed(item: MemoryItem) -> MemoryItem:
    """The item with all that is searched or named in one form of Unicode; the id of one that is there stays its key."""
    said: dict[str, Any] = {name: nfc(getattr(item, name)) for name in ("text", "key", "type")}
    tags = tuple(map(nfc, item.tags))
    item_id = item.id if item.number else nfc(item.id)
    if tags == item.tags and item_id == item.id and all(getattr(item, name) == said[name] for name in said):
        return item
    return replace(item, id=item_id, tags=tags, **said)
