"""Advantages against numbers worked out by hand, and the cases where a division could go wrong."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from memfactory.algorithms.advantages import group_advantages, variance_free_groups

METHODS = ["grpo", "dr_grpo", "rloo", "reinforce_pp"]
# Two groups, interleaved, with numbers that are neither contiguous nor sorted: {1, 0, 0} and {1, 1, 0, 2}.
REWARDS = torch.tensor([1.0, 1.0, 0.0, 1.0, 0.0, 0.0, 2.0])
GROUPS = torch.tensor([7, -3, 7, -3, -3, 7, -3])


def test_grpo_divides_by_the_unbiased_std_plus_epsilon():
    first = math.sqrt((4 / 9 + 1 / 9 + 1 / 9) / 2)
    second = math.sqrt((0 + 0 + 1 + 1) / 3)
    expected = [
        (2 / 3) / (first + 1e-4),
        0.0,
        (-1 / 3) / (first + 1e-4),
        0.0,
        -1 / (second + 1e-4),
        (-1 / 3) / (first + 1e-4),
        1 / (second + 1e-4),
    ]
    torch.testing.assert_close(group_advantages(REWARDS, GROUPS, "grpo"), torch.tensor(expected))


def test_dr_grpo_only_subtracts_the_mean():
    expected = torch.tensor([2 / 3, 0, -1 / 3, 0, -1, -1 / 3, 1])
    torch.testing.assert_close(group_advantages(REWARDS, GROUPS, "dr_grpo"), expected)


def test_rloo_subtracts_the_mean_of_the_others():
    expected = torch.tensor([1.0, 1 - 1, -0.5, 1 - 1, -4 / 3, -0.5, 2 - 2 / 3])
    torch.testing.assert_close(group_advantages(REWARDS, GROUPS, "rloo"), expected)


def test_reinforce_pp_divides_by_the_std_of_the_whole_batch():
    centred = torch.tensor([2 / 3, 0, -1 / 3, 0, -1, -1 / 3, 1])
    std = math.sqrt((4 / 9 + 1 / 9 + 1 + 1 / 9 + 1) / 6)
    torch.testing.assert_close(group_advantages(REWARDS, GROUPS, "reinforce_pp"), centred / std)


@pytest.mark.parametrize("method", METHODS)
def test_degenerate_groups_get_exactly_zero(method):
    assert group_advantages(torch.zeros(0), torch.zeros(0, dtype=torch.long), method).shape == (0,)
    assert group_advantages(torch.tensor([3.0]), torch.tensor([5]), method).tolist() == [0.0]
    equal = torch.full((7,), 0.1)
    assert group_advantages(equal, torch.zeros(7, dtype=torch.long), method).abs().max() == 0
    mixed = group_advantages(
        torch.tensor([0.1, 0.1, 0.1, 1.0, 0.0, 9.0]), torch.tensor([0, 0, 0, 1, 1, 2]), method
    )
    assert mixed[:3].tolist() == [0, 0, 0] and mixed[5] == 0 and mixed[3] > 0 > mixed[4]


@pytest.mark.parametrize("method", METHODS)
def test_integer_rewards_and_dtypes(method):
    result = group_advantages(torch.tensor([1, 0]), torch.tensor([0, 0]), method)
    assert result.dtype == torch.float32 and result[0] == -result[1] != 0
    assert (
        group_advantages(torch.tensor([1.0, 0.0]).double(), torch.tensor([0, 0]), method).dtype
        == torch.float64
    )


@given(
    st.lists(st.tuples(st.floats(-5, 5, width=32), st.integers(-3, 3)), min_size=1, max_size=20),
    st.sampled_from(METHODS),
    st.randoms(),
)
def test_finite_centred_and_indifferent_to_order(pairs, method, random):
    rewards = torch.tensor([reward for reward, _ in pairs])
    groups = torch.tensor([group for _, group in pairs])
    result = group_advantages(rewards, groups, method)
    assert torch.isfinite(result).all()
    for group in groups.unique():
        assert abs(result[groups == group].double().mean()) < 1e-3 * (1 + result.abs().max())
    order = list(range(len(pairs)))
    random.shuffle(order)
    torch.testing.assert_close(group_advantages(rewards[order], groups[order], method), result[order])


def test_variance_free_groups():
    rewards, groups = torch.tensor([0.1, 1.0, 0.1, 0.0, 2.0]), torch.tensor([4, 9, 4, 9, 1])
    assert variance_free_groups(rewards, groups).tolist() == [True, False, True, False, True]


@pytest.mark.parametrize(
    ("rewards", "groups", "method"),
    [
        (torch.tensor([1.0, math.nan]), torch.tensor([0, 0]), "grpo"),
        (torch.tensor([1.0, 2.0]), torch.tensor([0]), "grpo"),
        (torch.tensor([1.0, 2.0]), torch.tensor([0.0, 0.0]), "grpo"),
        (torch.tensor([1.0, 2.0]), torch.tensor([0, 0]), "ppo"),
    ],
)
def test_bad_arguments_are_refused(rewards, groups, method):
    with pytest.raises(ValueError):
        group_advantages(rewards, groups, method)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize(
    "rewards",
    [
        [0.1 + 0.2, 0.3, 0.3, 0.1 + 0.2],
        [0.0, (0.1 + 0.2) - 0.3, 0.0, 1.0],  # what is left of parts that cancel
        [0.7 * 1e6, 7 * (0.1 * 1e6) * (1 + 1e-15), 5.0, 6.0],
    ],
)
def test_totals_that_differ_by_rounding_alone_are_equal(method, rewards):
    assert rewards[0] != rewards[1]
    totals = torch.tensor([*rewards, 0.0], dtype=torch.float64)
    groups = torch.tensor([0, 0, 1, 1, 2])
    advantages = group_advantages(totals, groups, method)
    assert advantages[:2].tolist() == [0.0, 0.0]
    assert variance_free_groups(totals, groups)[:2].all()
    assert bool(advantages[2:4].any()) == (abs(rewards[2] - rewards[3]) > 1e-9)
