"""Retrieval by embedding, words and both."""

from __future__ import annotations

import pytest

from memfactory.core.errors import BadInput
from memfactory.memory.bank import InMemoryBank
from memfactory.memory.embedders import HashingEmbedder
from memfactory.memory.item import Hit, MemoryItem
from memfactory.memory.retrieval import fuse, hybrid, retrieve


def test_reciprocal_rank_fusion_by_hand() -> None:
    a, b, c = (MemoryItem(f"m{n}", "t", number=n) for n in (1, 2, 3))
    fused = fuse([[Hit(a, 9), Hit(b, 5)], [Hit(b, 0.3), Hit(c, 0.2)]], 5)
    assert [(hit.item.id, hit.score) for hit in fused] == [
        ("m2", 1 / 62 + 1 / 61),
        ("m1", 1 / 61),
        ("m3", 1 / 62),
    ]
    assert [hit.item.id for hit in fuse([[Hit(c, 1)], [Hit(a, 1)]], 1)] == ["m1"]  # a tie: the older one


async def test_each_method_finds_what_fits() -> None:
    embedder = HashingEmbedder(512)
    bank = InMemoryBank(embedder.name, embedder.dim)
    texts = ["Ana has a red bicycle", "Ben cooks soup", "the weather was fine", "Ana sold the bicycle"]
    for text, vector in zip(texts, await embedder.embed(texts), strict=True):
        bank.add(text, embedding=vector)
    for method in ("embedding", "bm25", "hybrid"):
        hits = await retrieve(bank, embedder, "red bicycle of Ana", 2, method)
        assert [hit.item.id for hit in hits] == ["m1", "m4"], method
    with pytest.raises(BadInput, match="unknown retrieval method 'bm52'; did you mean 'bm25'"):
        await retrieve(bank, embedder, "x", 2, "bm52")
    with pytest.raises(BadInput, match="built with embedder"):
        await retrieve(bank, HashingEmbedder(32), "x", 2)


def test_hybrid_when_words_find_nothing() -> None:
    bank = InMemoryBank("e", 2)
    bank.add("one", embedding=[1, 0])
    bank.add("two", embedding=[0, 1])
    assert [hit.item.id for hit in hybrid(bank, "three", [0.1, 1], 2)] == ["m2", "m1"]
