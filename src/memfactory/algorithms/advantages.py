"""From rewards to advantages: how much better a rollout did than the others of its group.

Statistics are taken over rollouts, before rollouts are expanded into calls, so that a task with
many blocks does not weigh more than one with few. Pure functions: no devices, no processes.
"""

from __future__ import annotations

from typing import get_args

import torch
from torch import Tensor

from memfactory.algorithms.objective import AdvantageMethod

GRPO_EPSILON = 1e-4
"""Added to the group's standard deviation by `grpo`, as TRL and the GRPO code of DeepSeekMath's followers do."""

ROUNDING = 1e-12
"""Share of the largest reward below which differences within a group are rounding: a few thousand float64 steps."""


def group_advantages(rewards: Tensor, groups: Tensor, method: AdvantageMethod = "grpo") -> Tensor:
    """Advantage of each rollout within its group.

    Args:
        rewards: `[N]`, one scalar reward per rollout.
        groups: `[N]` integers; rollouts with equal numbers form a group. Any integers, in any order.
        method: with r the reward, and mean and std over the rollout's group:

            - `grpo`: (r − mean) / (std + 1e-4), std unbiased (divided by G − 1, `torch.std`'s default,
              as in TRL). Shao et al. 2024, arXiv 2402.03300, §4.1.2.
            - `dr_grpo`: r − mean. Liu et al. 2025, arXiv 2503.20783, eq. 3; also MemAgent's (2507.02259).
            - `rloo`: r_i − mean of the *other* rewards of the group. Ahmadian et al. 2024, arXiv 2402.14740.
            - `reinforce_pp`: c = r − mean, then c / std(c) with the unbiased std over the whole batch
              and nothing added to it (c has mean zero). REINFORCE++-baseline, Hu et al. 2025, arXiv 2501.03262.

    Returns:
        `[N]`, in the dtype of `rewards` (float32 if that is an integer type). Groups of one rollout and
        groups whose rewards are all equal (but for rounding) get exactly 0; nothing is ever NaN or infinite.

    Raises:
        ValueError: unknown method, shapes that do not match, or a reward that is not finite.
    """
    if method not in get_args(AdvantageMethod):
        raise ValueError(
            f"unknown advantage method '{method}'; known: {', '.join(get_args(AdvantageMethod))}"
        )
    values, index = _checked(rewards, groups)
    dtype = rewards.dtype if rewards.is_floating_point() else torch.float32
    if values.numel() == 0:
        return torch.zeros(0, dtype=dtype, device=rewards.device)

    size = torch.bincount(index).to(values)
    mean = torch.zeros_like(size).index_add_(0, index, values) / size
    flat = _flat(values, index)
    # Rounding in the mean must not turn equal rewards into advantages that a division then blows up.
    centred = torch.where(flat, 0.0, values - mean[index])

    if method == "grpo":
        squares = torch.zeros_like(size).index_add_(0, index, centred**2)
        std = (squares / (size - 1).clamp(min=1)).sqrt()
        result = centred / (std[index] + GRPO_EPSILON)
    elif method == "dr_grpo":
        result = centred
    elif method == "rloo":
        # r_i − (G·mean − r_i)/(G − 1) = (r_i − mean)·G/(G − 1)
        result = centred * (size / (size - 1).clamp(min=1))[index]
    else:
        result = centred if bool(flat.all()) else centred / centred.std()
    return result.to(dtype)


def variance_free_groups(rewards: Tensor, groups: Tensor) -> Tensor:
    """Which rollouts belong to a group whose rewards are all equal: they teach nothing.

    Args:
        rewards: `[N]` scalar rewards.
        groups: `[N]` integers, any, in any order.

    Returns:
        `[N]` booleans; true also for groups of one.

    Raises:
        ValueError: as `group_advantages`.
    """
    return _flat(*_checked(rewards, groups))


def _checked(rewards: Tensor, groups: Tensor) -> tuple[Tensor, Tensor]:
    """Rewards as float64 and group numbers made contiguous, both `[N]`."""
    if rewards.dim() != 1 or groups.shape != rewards.shape:
        raise ValueError(
            f"rewards and groups must both be [N], not {list(rewards.shape)} and {list(groups.shape)}"
        )
    if groups.is_floating_point():
        raise ValueError("groups must be integers")
    values = rewards.detach().double()
    if not bool(torch.isfinite(values).all()):
        raise ValueError("a reward is NaN or infinite")
    index = torch.unique(groups, return_inverse=True)[1] if groups.numel() else groups.long()
    return values, index


def _flat(values: Tensor, index: Tensor) -> Tensor:
    """`[N]` booleans: the largest and the smallest value of my group are equal, but for rounding.

    Totals that are equal on paper may differ in their last bits, by the order of their sums (0.1 + 0.2 and 0.3);
    divided by a spread of that size they would become advantages of full size. What rounding can do is measured
    against the largest value of all groups: in a difference of large parts it does not shrink with the result.
    """
    if values.numel() == 0:
        return torch.zeros(0, dtype=torch.bool, device=values.device)
    count = int(index.max()) + 1
    top = values.new_full((count,), -torch.inf).scatter_reduce_(0, index, values, "amax")
    bottom = values.new_full((count,), torch.inf).scatter_reduce_(0, index, values, "amin")
    return (top - bottom <= ROUNDING * values.abs().max())[index]
