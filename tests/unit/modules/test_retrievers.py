"""The three ways of searching a bank."""

from __future__ import annotations

import asyncio

import pytest

from memfactory.core.errors import BadInput
from memfactory.memory.bank import InMemoryBank
from memfactory.memory.embedders import HashingEmbedder
from memfactory.modules.retrievers import BankRetriever


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
