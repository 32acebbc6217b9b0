"""Packing, splitting and padding of rows."""

import random

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from memfactory.algorithms.rows import (
    collate,
    pack_micro_batches,
    pack_sequences,
    pad_values,
    padding_share,
    split_minibatches,
)
from memfactory.core.types import Row


def row(prompt, completion, logprobs=None, advantage=1.0, rollout=0):
    logprobs = tuple(-0.5 for _ in completion) if logprobs is None else logprobs
    return Row(tuple(prompt), tuple(completion), logprobs, advantage, rollout)


@given(st.lists(st.integers(1, 500), max_size=60), st.integers(1, 2000))
def test_every_row_is_packed_once_within_the_budget(lengths, budget):
    groups = pack_micro_batches(lengths, budget)
    assert sorted(index for group in groups for index in group) == list(range(len(lengths)))
    for group in groups:
        assert len(group) == 1 or len(group) * max(lengths[i] for i in group) <= budget
    assert padding_share(lengths, groups) <= 0.08 + 1e-9


def test_padding_below_ten_percent_and_few_groups_on_ragged_memory_calls():
    draw = random.Random(0)
    lengths = []
    for _ in range(
        96
    ):  # 1 to 6 block calls of about 190 tokens, the last block cut short, and an answer call
        lengths += [draw.randint(170, 230) for _ in range(draw.randint(0, 5))]
        lengths += [draw.randint(60, 230), draw.randint(55, 90)]
    groups = pack_micro_batches(lengths, 8192)
    assert padding_share(lengths, groups) < 0.1
    assert len(groups) <= sum(lengths) / 8192 * 1.7


def test_packing_by_hand():
    assert pack_micro_batches([3, 10, 9, 10, 3], 20) == [[1, 3], [2], [0, 4]]
    assert pack_micro_batches([100, 2], 10) == [[0], [1]]
    assert pack_micro_batches([], 10) == []
    with pytest.raises(ValueError):
        pack_micro_batches([1], 0)


@given(st.lists(st.integers(1, 500), max_size=60), st.integers(1, 2000))
def test_every_row_is_in_one_sequence_within_the_budget(lengths, budget):
    groups = pack_sequences(lengths, budget)
    assert sorted(index for group in groups for index in group) == list(range(len(lengths)))
    loads = [sum(lengths[i] for i in group) for group in groups]
    assert all(len(group) == 1 or load <= budget for group, load in zip(groups, loads, strict=True))
    # First fit: what stands first in a later group fitted into none before.
    for number, group in enumerate(groups):
        for before in groups[:number]:
            longer = sum(lengths[i] for i in before if lengths[i] >= lengths[group[0]])
            assert longer + lengths[group[0]] > budget


def test_sequences_by_hand():
    assert pack_sequences([3, 10, 9, 10, 3], 20) == [[1, 3], [2, 0, 4]]
    assert pack_sequences([100, 2, 8], 10) == [[0], [2, 1]]
    assert pack_sequences([], 10) == []
    with pytest.raises(ValueError):
        pack_sequences([1], 0)


def test_minibatches_keep_rollouts_whole_and_in_order():
    rollouts = [4, 4, 1, 1, 1, 9, 4, 2]
    assert split_minibatches(rollouts, 2) == [[0, 1, 6, 2, 3, 4], [5, 7]]
    assert split_minibatches(rollouts, 1) == [[0, 1, 6, 2, 3, 4, 5, 7]]
    assert split_minibatches(rollouts, 9) == [[0, 1, 6], [2, 3, 4], [5], [7]]
    assert split_minibatches([], 3) == []


def test_collate_by_hand():
    batch = collate([row([1, 2], [3, 4, 5], (-0.1, -0.2, -0.3)), row([6], [7], (-0.4,), -2.0)], pad_id=0)
    assert batch.input_ids.tolist() == [[1, 2, 3, 4], [6, 0, 0, 0]]
    assert batch.positions.tolist() == [1, 2, 3, 4]
    assert batch.targets.tolist() == [3, 4, 5, 7]
    assert batch.mask.tolist() == [[True, True, True], [True, False, False]]
    torch.testing.assert_close(batch.behaviour_logp, torch.tensor([[-0.1, -0.2, -0.3], [-0.4, 0, 0]]))
    assert batch.advantages.tolist() == [1.0, -2.0]
    assert collate([row([1], [2], ())]).behaviour_logp is None


def test_collate_packed_by_hand():
    rows = [row([1, 2], [3, 4, 5], (-0.1, -0.2, -0.3)), row([6], [7], (-0.4,), -2.0), row([8, 9], [1])]
    batch = collate(rows, packed=True)
    assert batch.input_ids.tolist() == [[1, 2, 3, 4, 6, 8, 9]]
    assert batch.position_ids.tolist() == [[0, 1, 2, 3, 0, 0, 1]]
    assert batch.positions.tolist() == [1, 2, 3, 4, 6]
    padded = collate(rows)
    assert padded.position_ids is None
    for name in ("targets", "mask", "behaviour_logp", "advantages"):
        assert torch.equal(getattr(batch, name), getattr(padded, name)), name


def test_collate_refuses_what_cannot_be_scored():
    for bad in (row([], [1]), row([1], []), row([1], [2, 3], (-0.1,))):
        with pytest.raises(ValueError):
            collate([bad])


def test_pad_values():
    assert pad_values([torch.tensor([1.0]), torch.tensor([2.0, 3.0])], 3).tolist() == [[1, 0, 0], [2, 3, 0]]
