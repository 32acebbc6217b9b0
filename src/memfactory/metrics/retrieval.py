"""Retrieval scores of a ranking against a set of relevant ids, for LongMemEval (arXiv 2410.10813)."""

from __future__ import annotations

from collections.abc import Callable, Collection, Hashable, Iterable, Mapping, Sequence
from math import log2

from memfactory.core.texts import nfc


def recall_at_k(ranked_ids: Sequence[Hashable], relevant_ids: Collection[Hashable], k: int) -> float:
    """Share of the relevant ids among the first k ranked ones; 0.0 if nothing is relevant.

    Raises `ValueError` if k < 1.
    """
    relevant = set(map(_same, relevant_ids))
    top = _top(ranked_ids, k)
    return len(relevant.intersection(top)) / len(relevant) if relevant else 0.0


def recall_any_at_k(ranked_ids: Sequence[Hashable], relevant_ids: Collection[Hashable], k: int) -> float:
    """1.0 if any relevant id is among the first k ranked ones, else 0.0. Raises `ValueError` if k < 1."""
    return float(bool(set(map(_same, relevant_ids)).intersection(_top(ranked_ids, k))))


def recall_all_at_k(ranked_ids: Sequence[Hashable], relevant_ids: Collection[Hashable], k: int) -> float:
    """1.0 if every relevant id is among the first k ranked ones, else 0.0; 0.0 if nothing is relevant.

    What LongMemEval's tables call Recall@k. Raises `ValueError` if k < 1.
    """
    relevant = set(map(_same, relevant_ids))
    return float(bool(relevant) and relevant.issubset(_top(ranked_ids, k)))


def ndcg_at_k(ranked_ids: Sequence[Hashable], relevant_ids: Collection[Hashable], k: int) -> float:
    """Normalised discounted cumulative gain with binary relevance: gain 1 / log2(1 + rank), rank from 1.

    Divided by the gain of the best ranking of min(k, number of relevant ids). An id that is ranked twice
    counts at its first rank only. 0.0 if nothing is relevant. Raises `ValueError` if k < 1.
    """
    relevant = set(map(_same, relevant_ids))
    seen: set[Hashable] = set()
    gain = 0.0
    for rank, item in enumerate(_top(ranked_ids, k), start=1):
        if item in relevant and item not in seen:
            gain += 1 / log2(1 + rank)
            seen.add(item)
    best = sum(1 / log2(1 + rank) for rank in range(1, min(k, len(relevant)) + 1))
    return gain / best if best else 0.0


def session_ranking(
    ranked_turns: Iterable[Hashable], session_of: Mapping[Hashable, Hashable]
) -> list[Hashable]:
    """Sessions in the order of their first ranked turn, each once: turns ranked, sessions scored.

    As in LongMemEval's scripts, k then counts sessions, not turns. Turns without a session are passed over.
    """
    sessions = {_same(turn): session for turn, session in session_of.items()}
    return list(dict.fromkeys(sessions[turn] for turn in map(_same, ranked_turns) if turn in sessions))


def scores_at(
    ranked_ids: Sequence[Hashable], relevant_ids: Collection[Hashable], ks: Sequence[int], level: str
) -> dict[str, float]:
    """Recall, recall of all, and NDCG at every k, by names like `turn_recall@5`; `level` is turn or session."""
    found = {}
    for k in ks:
        for name, metric in _AT_K.items():
            found[f"{level}_{name}@{k}"] = metric(ranked_ids, relevant_ids, k)
    return found


_AT_K: Mapping[str, Callable[[Sequence[Hashable], Collection[Hashable], int], float]] = {
    "recall": recall_at_k,
    "recall_all": recall_all_at_k,
    "ndcg": ndcg_at_k,
}


def _top(ranked_ids: Sequence[Hashable], k: int) -> Sequence[Hashable]:
    if k < 1:
        raise ValueError(f"k must be at least 1, not {k}")
    return [_same(one) for one in ranked_ids[:k]]


def _same(one: Hashable) -> Hashable:
    """An id as it is compared: a text in Unicode's composed form, in which banks keep it."""
    return nfc(one) if isinstance(one, str) else one
