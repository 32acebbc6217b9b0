"""Rows are dealt so that ranks have about the same number of tokens, and all run as many micro-batches."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from memfactory.algorithms.objective import Objective
from memfactory.algorithms.rows import forward_length
from memfactory.core.types import Row
from memfactory.learners.balance import deal, share_minibatch
from memfactory.learners.microbatches import Tally, micro_batches, score_rows

LENGTHS = st.lists(st.integers(1, 500), max_size=40)


def row(prompt: int, completion: int, rollout: int = 0) -> Row:
    return Row((5,) * prompt, (6,) * completion, (-1.0,) * completion, 1.0, rollout)


def test_longest_first_to_whoever_has_least() -> None:
    # 9 → rank 0; 7 → rank 1; 6 → rank 1 (13); 5 → rank 0 (14); 2 → rank 1 (15); 1 → rank 0 (15)
    assert deal([1, 9, 2, 7, 5, 6], 2) == [[0, 1, 4], [2, 3, 5]]
    assert deal([3, 3], 3) == [[0], [1], []]
    assert deal([4, 1, 8], 1) == [[0, 1, 2]]


@given(LENGTHS, st.integers(1, 6))
def test_every_row_once_and_no_rank_far_above_the_mean(lengths: list[int], ranks: int) -> None:
    dealt = deal(lengths, ranks)
    assert sorted(i for part in dealt for i in part) == list(range(len(lengths)))
    loads = [sum(lengths[i] for i in part) for part in dealt]
    assert max(loads) <= sum(lengths) / ranks + max(lengths, default=0)


@given(st.lists(st.tuples(st.integers(1, 60), st.integers(1, 9)), min_size=1, max_size=20), st.integers(1, 4))
def test_ranks_together_are_the_minibatch(sizes: list[tuple[int, int]], ranks: int) -> None:
    rows = [row(prompt, completion, number % 3) for number, (prompt, completion) in enumerate(sizes)]
    chosen = list(range(0, len(rows), 2))
    objective = Objective(denominator="rollout")
    shares = [share_minibatch(rows, chosen, objective, 64, rank, ranks) for rank in range(ranks)]
    assert sorted(i for share in shares for i in share.rows) == chosen
    assert len({share.steps for share in shares}) == 1
    counts, weights = [], torch.zeros(len(rows), dtype=torch.float64)
    for share in shares:
        micros = list(
            micro_batches(
                [rows[i] for i in share.rows], share.weights, 64, torch.device("cpu"), steps=share.steps
            )
        )
        counts.append(len(micros))
        assert sum(micro.real_tokens for micro in micros) == sum(forward_length(rows[i]) for i in share.rows)
        assert all(float(micro.weights.sum()) == 0 for micro in micros if not micro.real_tokens)
        weights[share.rows] = share.weights
    assert counts == [shares[0].steps] * ranks  # else ranks of a sharded model would wait for ever
    alone = share_minibatch(rows, chosen, objective, 64, 0, 1)
    assert torch.equal(weights[chosen], alone.weights)


def test_figures_of_all_ranks_are_added_up() -> None:
    parts = [
        Tally({"tokens": 3.0, "entropy": 6.0}, [0.5], [2.0], real_tokens=10, padded_tokens=12),
        Tally({}, [0.5], [2.0], real_tokens=0, padded_tokens=1),  # a rank that had only empty micro-batches
        Tally({"tokens": 1.0, "entropy": 0.0}, [0.5], [2.0], real_tokens=4, padded_tokens=4),
    ]
    metrics = Tally.of_all(parts).metrics()
    assert metrics["entropy"] == pytest.approx(1.5)
    assert (metrics["loss"], metrics["grad_norm"], metrics["steps"]) == (0.5, 2.0, 1.0)
    assert (metrics["tokens"], metrics["completion_tokens"]) == (14.0, 4.0)
    assert metrics["padding_share"] == pytest.approx(1 - 14 / 17)


def test_scoring_runs_as_many_passes_as_all_agree_on() -> None:
    passes = []

    def scorer(batch, temperature):  # type: ignore[no-untyped-def]
        passes.append(batch.input_ids.shape)
        return torch.full(batch.mask.shape, -2.0), torch.zeros(int(batch.mask.sum()))

    rows = [row(3, 2), row(30, 1), Row((4,), (), (), 0.0, 0)]
    scores = score_rows(scorer, rows, 32, torch.device("cpu"), lambda steps: steps + 2)
    assert [s.tolist() for s in scores] == [[-2.0, -2.0], [-2.0], []]
    assert len(passes) == 4 and passes[2:] == [(1, 1), (1, 1)]
