"""From rows to tensors: which rows make a step, which share a micro-batch, and how they are padded.

Rows are padded on the right. Under causal attention a real token never sees what stands to its right,
so no attention mask is needed and the fast kernels apply.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor

from memfactory.core.types import Row

MAX_PADDING = 0.08
"""A micro-batch is closed before more than this share of its tokens would be padding."""


@dataclass(frozen=True)
class Batch:
    """Rows as tensors, all on one device.

    - `input_ids`: `[calls, width]` prompt and completion without its last token (which predicts nothing),
      padded on the right.
    - `positions`: `[n]` indices into `calls × width`, flattened: where each completion token is predicted.
    - `targets`: `[n]` the completion tokens, row after row.
    - `mask`: `[calls, tokens]` true at completion tokens; `[n]` values belong at its true places, in order.
    - `behaviour_logp`: `[calls, tokens]` nats, 0 where masked; None when any row has none.
    - `advantages`: `[calls]`.
    """

    input_ids: Tensor
    positions: Tensor
    targets: Tensor
    mask: Tensor
    behaviour_logp: Tensor | None
    advantages: Tensor


def forward_length(row: Row) -> int:
    """Tokens of this row that go through the model: all but the last one, which predicts nothing."""
    return len(row.prompt_ids) + len(row.completion_ids) - 1


def pack_micro_batches(
    lengths: Sequence[int], budget: int, max_padding: float = MAX_PADDING
) -> list[list[int]]:
    """Group rows of similar length so that each group, padded, holds at most `budget` tokens.

    Rows are taken from the longest to the shortest (ties by index), and a group is closed when the next row
    would exceed the budget or bring the group's share of padding above `max_padding`. So the padding of
    the whole is at most `max_padding` too. The longest group comes first: out of memory shows at once.

    Args:
        lengths: tokens of each row.
        budget: most tokens (rows × longest row) in a group; a row longer than this stands alone.
        max_padding: share of a group's tokens, 0 to 1.

    Returns:
        Lists of indices into `lengths`; each index occurs exactly once.

    Raises:
        ValueError: a budget below 1.
    """
    if budget < 1:
        raise ValueError(f"the token budget must be at least 1, not {budget}")
    groups: list[list[int]] = []
    real = width = 0
    for index in sorted(range(len(lengths)), key=lambda i: (-lengths[i], i)):
        size = len(groups[-1]) + 1 if groups else 1
        padded = size * width
        fits = padded <= budget and padded - real - lengths[index] <= max_padding * padded
        if not groups or not fits:
            groups.append([])
            real, width = 0, lengths[index]
        groups[-1].append(index)
        real += lengths[index]
    return groups


def padding_share(lengths: Sequence[int], groups: Sequence[Sequence[int]]) -> float:
    """Share of padding among all tokens of the padded groups, 0 to 1."""
    padded = sum(len(group) * max(lengths[i] for i in group) for group in groups if group)
    return 1 - sum(lengths[i] for group in groups for i in group) / padded if padded else 0.0


def split_minibatches(rollout_ids: Sequence[int], count: int) -> list[list[int]]:
    """Cut rows into at most `count` minibatches, never dividing a rollout.

    Rollouts keep their order of first appearance, so the rollouts of a task stay together, and are dealt in
    contiguous runs whose sizes differ by at most one rollout. Nothing is drawn at random.

    Args:
        rollout_ids: the rollout of each row.
        count: minibatches wanted, at least 1; fewer come out if there are fewer rollouts.

    Returns:
        Lists of row indices, in order; none is empty.
    """
    members: dict[int, list[int]] = {}
    for index, rollout in enumerate(rollout_ids):
        members.setdefault(rollout, []).append(index)
    rollouts = list(members.values())
    count = max(1, min(count, len(rollouts)))
    bounds = [part * len(rollouts) // count for part in range(count + 1)]
    parts = [
        [index for rollout in rollouts[start:end] for index in rollout] for start, end in pairwise(bounds)
    ]
    return [part for part in parts if part]


def collate(rows: Sequence[Row], device: torch.device | str = "cpu", pad_id: int = 0) -> Batch:
    """Turn rows into one right-padded `Batch` on a device.

    Raises:
        ValueError: a row without prompt or completion, or whose behaviour log-probs do not match its completion.
    """
    for row in rows:
        if not row.prompt_ids or not row.completion_ids:
            raise ValueError("a row needs at least one prompt token and one completion token")
        if row.behaviour_logprobs and len(row.behaviour_logprobs) != len(row.completion_ids):
            raise ValueError(
                f"{len(row.completion_ids)} tokens but {len(row.behaviour_logprobs)} behaviour log-probs"
            )
    width = max(forward_length(row) for row in rows)
    tokens = max(len(row.completion_ids) for row in rows)
    input_ids = torch.full((len(rows), width), pad_id, dtype=torch.long)
    mask = torch.zeros(len(rows), tokens, dtype=torch.bool)
    positions, targets = [], []
    for place, row in enumerate(rows):
        ids = torch.tensor(row.prompt_ids + row.completion_ids)
        first = len(row.prompt_ids)
        input_ids[place, : len(ids) - 1] = ids[:-1]
        mask[place, : len(ids) - first] = True
        positions.append(torch.arange(first - 1, len(ids) - 1) + place * width)
        targets.append(ids[first:])
    behaviour = None
    if all(row.behaviour_logprobs for row in rows):
        behaviour = pad_values([torch.tensor(row.behaviour_logprobs) for row in rows], tokens).to(device)
    return Batch(
        input_ids=input_ids.to(device),
        positions=torch.cat(positions).to(device),
        targets=torch.cat(targets).to(device),
        mask=mask.to(device),
        behaviour_logp=behaviour,
        advantages=torch.tensor([row.advantage for row in rows], dtype=torch.float32, device=device),
    )


def pad_values(values: Sequence[Tensor], width: int) -> Tensor:
    """Stack `[length]` vectors into `[len(values), width]`, zeros on the right."""
    stacked = torch.zeros(len(values), width)
    for place, value in enumerate(values):
        stacked[place, : len(value)] = value
    return stacked
