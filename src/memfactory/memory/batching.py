"""Embedding for many rollouts at once: requests of the same moment become one batch, and no text is encoded twice."""

from __future__ import annotations

import asyncio
import threading
from abc import ABC, abstractmethod
from collections import OrderedDict
from collections.abc import Sequence
from typing import Protocol

import numpy

from memfactory.core.texts import nfc
from memfactory.memory.cache import DiskCache, text_key


class Embedder(Protocol):
    """Turns texts into vectors. `name` says which vectors these are: a bank refuses those of another."""

    @property
    def name(self) -> str: ...
    @property
    def dim(self) -> int: ...

    async def embed(self, texts: Sequence[str], *, query: bool = False) -> numpy.ndarray:
        """Unit vectors of texts, float32, one a row. `query` for a question that memories are sought with."""

    def embed_now(self, texts: Sequence[str], *, query: bool = False) -> numpy.ndarray:
        """The same, outside of an event loop."""


class BatchingEmbedder(ABC):
    """An embedder that caches, and encodes what many coroutines ask for in the same turns of the loop together.

    A subclass says how a list of distinct texts is encoded. Batches are in a fixed order (by length, then
    text), so the same set of requests gives the same vectors; in another company a text's vector may differ by
    rounding (about 1e-7 an element), until it is in the cache, where the first one stays.
    """

    def __init__(
        self, *, cache_size: int = 100_000, cache_path: str | None = None, batch_size: int = 64
    ) -> None:
        self.batch_size = batch_size
        self._cache_size = cache_size
        self._cache_path = cache_path
        self._memory: OrderedDict[str, numpy.ndarray] = OrderedDict()
        self._disk: DiskCache | None = None
        self._encoding = threading.Lock()  # one batch at a time
        self._remembering = threading.Lock()  # of `_memory`, for a moment only
        self._loop: asyncio.AbstractEventLoop | None = None
        self._wanted: dict[str, asyncio.Future[numpy.ndarray]] = {}
        self._worker: asyncio.Task[None] | None = None

    @property
    @abstractmethod
    def name(self) -> str: ...

    @property
    @abstractmethod
    def dim(self) -> int: ...

    @abstractmethod
    def _encode(self, texts: Sequence[str]) -> numpy.ndarray:
        """Vectors of distinct texts, one a row, not necessarily of length 1. Called by one thread at a time."""

    def _prefixed(self, text: str, query: bool) -> str:
        """What is encoded for a text; some models want another prefix for queries."""
        return text

    async def embed(self, texts: Sequence[str], *, query: bool = False) -> numpy.ndarray:
        """Unit vectors of texts, float32, one a row."""
        loop = asyncio.get_running_loop()
        if self._loop is not loop:  # another asyncio.run: futures of the last one are gone with it
            self._loop, self._wanted, self._worker = loop, {}, None
        whole = [self._prefixed(nfc(text), query) for text in texts]
        known = self._known(whole)
        waiting: dict[str, asyncio.Future[numpy.ndarray]] = {}
        for text in whole:
            if text not in known:
                if text not in self._wanted:
                    self._wanted[text] = loop.create_future()
                waiting[text] = self._wanted[text]
        if waiting:
            if self._worker is None or self._worker.done():
                self._worker = loop.create_task(self._work())
            # Shielded: others may wait for the same text when this caller is cancelled.
            vectors = await asyncio.gather(*(asyncio.shield(future) for future in waiting.values()))
            known |= dict(zip(waiting, vectors, strict=True))
        return self._stacked(whole, known)

    def embed_now(self, texts: Sequence[str], *, query: bool = False) -> numpy.ndarray:
        """The same outside of an event loop."""
        whole = [self._prefixed(nfc(text), query) for text in texts]
        known = self._known(whole)
        missing = [text for text in dict.fromkeys(whole) if text not in known]
        return self._stacked(whole, known | self._encode_all(missing))

    async def _work(self) -> None:
        """Encode what is wanted, batch after batch, until nothing is."""
        while True:
            for _ in range(3):  # let every coroutine that is ready come to its own request first
                await asyncio.sleep(0)
            if not self._wanted:
                return
            batch, self._wanted = self._wanted, {}
            try:
                vectors = await asyncio.to_thread(self._encode_all, list(batch))
            except BaseException as error:
                for future in batch.values():
                    if not future.done():
                        future.set_exception(error) if isinstance(error, Exception) else future.cancel()
                    if not future.cancelled():
                        future.exception()  # seen: nobody may be waiting any more
                if not isinstance(error, Exception):
                    raise
                continue
            for text, future in batch.items():
                if not future.done():
                    future.set_result(vectors[text])

    def _encode_all(self, texts: Sequence[str]) -> dict[str, numpy.ndarray]:
        """Vectors of distinct texts that are not in memory: from the disk cache, else encoded and kept."""
        if not texts:
            return {}
        with self._encoding:
            disk = self._open_disk()
            found = disk.read(texts) if disk is not None else {}
            missing = sorted(
                (text for text in texts if text not in found), key=lambda text: (len(text), text)
            )
            fresh: dict[str, numpy.ndarray] = {}
            for start in range(0, len(missing), self.batch_size):
                part = missing[start : start + self.batch_size]
                rows = numpy.asarray(self._encode(part), numpy.float64)
                rows = rows / numpy.linalg.norm(rows, axis=1, keepdims=True)
                fresh |= dict(zip(part, rows.astype(numpy.float32), strict=True))
            if disk is not None and fresh:
                disk.write(fresh)
            found |= fresh
            self._keep(found)
            return found

    def _known(self, texts: Sequence[str]) -> dict[str, numpy.ndarray]:
        with self._remembering:
            found = {}
            for text in texts:
                key = text_key(text)
                vector = self._memory.get(key)
                if vector is not None:
                    self._memory.move_to_end(key)
                    found[text] = vector
            return found

    def _keep(self, vectors: dict[str, numpy.ndarray]) -> None:
        with self._remembering:
            for text, vector in vectors.items():
                vector.flags.writeable = False
                self._memory[text_key(text)] = vector
            while len(self._memory) > self._cache_size:
                self._memory.popitem(last=False)

    def _open_disk(self) -> DiskCache | None:
        if self._disk is None and self._cache_path is not None:
            self._disk = DiskCache(self._cache_path, self.name, self.dim)
        return self._disk

    def _stacked(self, texts: Sequence[str], vectors: dict[str, numpy.ndarray]) -> numpy.ndarray:
        if not texts:
            return numpy.empty((0, self.dim), numpy.float32)
        return numpy.stack([vectors[text] for text in texts])
