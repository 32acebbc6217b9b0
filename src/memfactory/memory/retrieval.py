"""Finding memories: by embedding, by words (BM25), or by both."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, get_args

from memfactory.core.errors import BadInput, did_you_mean
from memfactory.memory.bank import MemoryBank
from memfactory.memory.batching import Embedder
from memfactory.memory.item import Hit, Vector, best_hits

Method = Literal["embedding", "bm25", "hybrid"]
METHODS: tuple[str, ...] = get_args(Method)
#: The constant of reciprocal rank fusion (Cormack, Clarke and Büttcher, SIGIR 2009).
RRF = 60


async def retrieve(
    bank: MemoryBank, embedder: Embedder, query: str, k: int, method: str = "embedding"
) -> list[Hit]:
    """The `k` memories that fit a query best, best first; `method` is embedding, bm25 or hybrid.

    Raises `BadInput` for an unknown method, or an embedder that is not the bank's.
    """
    check_method(method)
    if method == "bm25":
        return bank.search_text(query, k)
    bank.require_embedder(embedder.name, embedder.dim)
    vector = (await embedder.embed([query], query=True))[0]
    return bank.search_vector(vector, k) if method == "embedding" else hybrid(bank, query, vector, k)


def hybrid(bank: MemoryBank, query: str, vector: Vector, k: int, *, depth: int | None = None) -> list[Hit]:
    """The `k` best of the reciprocal rank fusion of both searches, each taken `depth` deep (at least 50)."""
    depth = max(k, 50) if depth is None else depth
    return fuse([bank.search_vector(vector, depth), bank.search_text(query, depth)], k)


def fuse(rankings: Sequence[Sequence[Hit]], k: int, *, constant: int = RRF) -> list[Hit]:
    """Reciprocal rank fusion: a hit's score is the sum of 1 / (constant + rank) over the rankings, ranks from 1."""
    scores: dict[str, float] = {}
    items = {}
    for ranking in rankings:
        for rank, hit in enumerate(ranking, start=1):
            scores[hit.item.id] = scores.get(hit.item.id, 0.0) + 1.0 / (constant + rank)
            items[hit.item.id] = hit.item
    return best_hits([Hit(items[item_id], score) for item_id, score in scores.items()], k)


def check_method(method: str) -> None:
    """Raise `BadInput` for an unknown way of retrieving."""
    if method not in METHODS:
        hint = did_you_mean(method, METHODS) or f"; known: {', '.join(METHODS)}"
        raise BadInput(f"unknown retrieval method '{method}'{hint}")
