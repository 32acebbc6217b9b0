"""Retrieval scores of a ranking against a set of relevant ids, for LongMemEval (arXiv 2410.10813)."""

from __future__ import annotations

from collections.abc import Collection, Hashable, Sequence
from math import log2


def recall_at_k(ranked_ids: Sequence[Hashable], relevant_ids: Collection[Hashable], k: int) -> float:
    """Share of the relevant ids among the first k ranked ones; 0.0 if nothing is relevant.

    Raises `ValueError` if k < 1.
    """
    relevant = set(relevant_ids)
    top = _top(ranked_ids, k)
    return len(relevant.intersection(top)) / len(relevant) if relevant else 0.0


def ndcg_at_k(ranked_ids: Sequence[Hashable], relevant_ids: Collection[Hashable], k: int) -> float:
    """Normalised discounted cumulative gain with binary relevance: gain 1 / log2(1 + rank), rank from 1.

    Divided by the gain of the best ranking of min(k, number of relevant ids). An id that is ranked twice
    counts at its first rank only. 0.0 if nothing is relevant. Raises `ValueError` if k < 1.
    """
    relevant = set(relevant_ids)
    seen: set[Hashable] = set()
    gain = 0.0
    for rank, item in enumerate(_top(ranked_ids, k), start=1):
        if item in relevant and item not in seen:
            gain += 1 / log2(1 + rank)
            seen.add(item)
    best = sum(1 / log2(1 + rank) for rank in range(1, min(k, len(relevant)) + 1))
    return gain / best if best else 0.0


def _top(ranked_ids: Sequence[Hashable], k: int) -> Sequence[Hashable]:
    if k < 1:
        raise ValueError(f"k must be at least 1, not {k}")
    return ranked_ids[:k]
