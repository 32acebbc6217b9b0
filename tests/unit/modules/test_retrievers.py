"""The three ways of searching a bank."""

from __future__ import annotations

import asyncio

import pytest

from memfactory.core.errors import BadInput
from memfactory.data.dialogue import Memory
from memfactory.memory.bank import InMemoryBank, MemoryBank
from memfactory.memory.embedders import HashingEmbedder
from memfactory.memory.item import MemoryItem
from memfactory.modules.bank_memories import memories_of, put_memories
from memfactory.modules.retrievers import BankRetriever, retrieve_per_speaker


@pytest.mark.parametrize("method", ["embedding", "bm25", "hybrid"])
def test_what_shares_words_is_found_first(method: str) -> None:
    retriever = BankRetriever(method, HashingEmbedder(256))  # type: ignore[arg-type]
    texts = ["Ana plays the harp.", "Ben lives in Rome.", "Ben has a goat."]

    async def search() -> list[str]:
        bank = retriever.new_bank()
        assert await retriever.retrieve(bank, "anything", 3) == []
        vectors = await retriever.vectors(texts)
        for text in texts:
            bank.add(text, embedding=vectors[text])
        retriever.check(bank)
        return [item.text for item in await retriever.retrieve(bank, "Who lives in Rome?", 1)]

    assert asyncio.run(search()) == ["Ben lives in Rome."]


def test_a_bank_of_another_embedder_is_refused_unless_only_words_count() -> None:
    bank = InMemoryBank("other", 3)
    BankRetriever("bm25", HashingEmbedder()).check(bank)
    with pytest.raises(BadInput, match="other"):
        BankRetriever("embedding", HashingEmbedder()).check(bank)


def test_an_unknown_method_is_refused() -> None:
    with pytest.raises(BadInput, match="did you mean 'hybrid'"):
        BankRetriever("hybird", HashingEmbedder())  # type: ignore[arg-type]


class Ranked:
    """Finds what a bank holds in the order of adding, and notes how deep it was asked."""

    def __init__(self) -> None:
        self.depths: list[int] = []

    async def retrieve(self, bank: MemoryBank, query: str, k: int) -> list[MemoryItem]:
        self.depths.append(k)
        return list(bank.items())[:k]


@pytest.mark.parametrize(
    ("texts", "k", "wanted", "depths"),
    [
        (["Ana 1", "Ana 2", "Ana 3", "Ben 1", "Ben 2"], 2, [1, 2, 4, 5], [8]),
        (["Ana 1", "ana and BEN", "Ana 3", "Ben 1", "Ben 2"], 2, [1, 2, 4], [8]),
        (["rain", "snow", "wind", "Ana 1"], 2, [1, 2], [8]),  # belongs to both
        (["Anabel", "Ana 1"], 1, [1], [4]),  # a word, not the beginning of one
        (
            [f"Ana {n}" for n in range(9)] + ["Ben"],
            1,
            [1, 10],
            [4, 8, 16],
        ),  # looks deeper until both have theirs
        ([], 3, [], [12]),
    ],
)
def test_of_each_speaker_the_best(texts: list[str], k: int, wanted: list[int], depths: list[int]) -> None:
    bank = InMemoryBank("none", 1)
    for text in texts:
        bank.add(text)
    ranked = Ranked()
    found = asyncio.run(retrieve_per_speaker(ranked, bank, "q", ("Ana", "Ben"), k))  # type: ignore[arg-type]
    assert [item.number for item in found] == wanted
    assert ranked.depths == depths


def test_memories_come_out_of_a_bank_as_they_went_in() -> None:
    retriever = BankRetriever("embedding", HashingEmbedder(32))
    memories = (Memory("a", "s1", "day 1", "k", "t", ("x",), ("D1:1",)), Memory("b"))

    async def through() -> tuple[Memory, ...]:
        bank = retriever.new_bank()
        await put_memories((*memories, Memory("a", "s2")), bank, retriever)
        assert all(item.embedding is not None for item in bank.items())
        return memories_of(bank)

    assert asyncio.run(through()) == memories
