"""Retrievers: which memories of a bank an agent looks at."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

from memfactory.core.registry import component_field, register
from memfactory.core.texts import nfc
from memfactory.memory.bank import InMemoryBank, MemoryBank
from memfactory.memory.batching import Embedder
from memfactory.memory.item import MemoryItem, Vector
from memfactory.memory.retrieval import Method, check_method, retrieve

_WORDS_ONLY = "none"


class Retriever(Protocol):
    """Finds memories, and knows what a memory needs so that it will be found."""

    def new_bank(self) -> MemoryBank:
        """An empty bank in memory that this retriever can search."""
        ...

    def check(self, bank: MemoryBank) -> None:
        """Raise `BadInput` for a bank that it cannot search."""
        ...

    async def vectors(self, texts: Sequence[str]) -> dict[str, Vector | None]:
        """The embeddings under which texts are to be kept."""
        ...

    async def query_vector(self, query: str) -> Vector | None:
        """The embedding that a query is sought by; None by words alone."""
        ...

    async def retrieve(self, bank: MemoryBank, query: str, k: int) -> list[MemoryItem]:
        """The `k` memories that fit the query best, best first."""
        ...


@dataclass(frozen=True)
class BankRetrieverConfig:
    """`method` is embedding, bm25 (words alone: no embedder is loaded) or hybrid (the fusion of both rankings)."""

    method: Literal["embedding", "bm25", "hybrid"] = "embedding"
    embedder: dict = component_field("embedder", "sentence_transformers")


@register("module", "bank", config=BankRetrieverConfig)
class BankRetriever:
    """Searches the memory bank by embedding, by words, or by both."""

    def __init__(self, method: Method, embedder: Embedder) -> None:
        check_method(method)
        self.method = method
        self.embedder = embedder

    def new_bank(self) -> MemoryBank:
        """An empty bank of the embedder's vectors; by words alone, of none."""
        if self.method == "bm25":
            return InMemoryBank(_WORDS_ONLY, 1)
        return InMemoryBank(self.embedder.name, self.embedder.dim)

    def check(self, bank: MemoryBank) -> None:
        """By words alone any bank will do; else its vectors must be the embedder's."""
        if self.method != "bm25":
            bank.require_embedder(self.embedder.name, self.embedder.dim)

    async def vectors(self, texts: Sequence[str]) -> dict[str, Vector | None]:
        """One embedding a text; None by words alone."""
        if self.method == "bm25":
            return dict.fromkeys(texts)
        return dict(zip(texts, await self.embedder.embed(texts), strict=True))

    async def query_vector(self, query: str) -> Vector | None:
        """The embedder's vector of a query; None by words alone."""
        return None if self.method == "bm25" else (await self.embedder.embed([query], query=True))[0]

    async def retrieve(self, bank: MemoryBank, query: str, k: int) -> list[MemoryItem]:
        """The best `k` by the method."""
        if not len(bank):
            return []
        return [hit.item for hit in await retrieve(bank, self.embedder, query, k, self.method)]


async def retrieve_per_speaker(
    retriever: Retriever, bank: MemoryBank, query: str, speakers: Sequence[str], k: int
) -> list[MemoryItem]:
    """The memories that fit the query best, at most `k` for each speaker, best first.

    The bank is one, so a memory belongs to the speakers that its text, title or tags name, and to all of them
    if it names none. Memory-R1 (arXiv 2508.19828) keeps a bank for each of two speakers, and takes 30 of each.
    """
    depth = 2 * k * len(speakers)
    while True:
        ranked = await retriever.retrieve(bank, query, depth)
        chosen, full = _of_speakers(ranked, speakers, k)
        if full or len(ranked) < depth or depth >= len(bank):
            return chosen
        depth *= 2


def _of_speakers(
    ranked: Sequence[MemoryItem], speakers: Sequence[str], k: int
) -> tuple[list[MemoryItem], bool]:
    """The ranked memories of which a speaker has not had `k` before, and whether every speaker has `k`."""
    names = {name: re.compile(rf"\b{re.escape(nfc(name))}\b", re.IGNORECASE) for name in speakers}
    had: Counter[str] = Counter()
    chosen = []
    for item in ranked:
        said = nfc(" ".join((item.text, item.key, *item.tags)))
        owners = [name for name, pattern in names.items() if pattern.search(said)] or list(names)
        if any(had[name] < k for name in owners):
            chosen.append(item)
            had.update(owners)
    return chosen, all(had[name] >= k for name in names)
