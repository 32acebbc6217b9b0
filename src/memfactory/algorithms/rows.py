"""From rows to tensors: which rows make a step, which share a micro-batch, and how they are padded.

Rows are padded on the right. Under causal attention a real token never sees what stands to its right,
so no attention mask is needed and the fast kernels apply. Or they are packed: one after the other in a single
sequence, with positions that begin again at each row, by which transformers keeps rows apart.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise

import torch
from torch import Tensor

from memfactory.core.types import Row

MAX_PADDING = 0.08
"""A micro-batch is closed before more than this share of its tokens would be padding."""


@dataclass(frozen=True)
class Batch:
    """Rows as tensors, all on one device.

    - `input_ids`: `[calls, width]` prompt and completion without its last token (which predicts nothing),
      padded on the right; packed: `[1, width]`, one row after the other.
    - `positions`: `[n]` indices into `input_ids`, flattened: where each completion token is predicted.
    - `targets`: `[n]` the completion tokens, row after row.
    - `mask`: `[calls, tokens]` true at completion tokens; `[n]` values belong at its true places, in order.
    - `behaviour_logp`: `[calls, tokens]` nats, 0 where masked; None when any row has none.
    - `advantages`: `[calls]`.
    - `position_ids`: `[1, width]` if packed: each token's place in its own row; None if padded.
    """

    input_ids: Tensor
    positions: Tensor
    targets: Tensor
    mask: Tensor
    behaviour_logp: Tensor | None
    advantages: Tensor
    position_ids: Tensor | None = None


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


def pack_sequences(lengths: Sequence[int], budget: int) -> list[list[int]]:
    """Group rows so that each group, one row after the other, holds at most `budget` tokens.

    First fit, from the longest row to the shortest (ties by index): at most 11/9 of the fewest groups possible, and
    one (Dósa 2007). The longest row is in the first group: out of memory shows at once.

    Returns:
        Lists of indices into `lengths`; each index occurs exactly once. A row longer than `budget` stands alone.

    Raises:
        ValueError: a budget below 1.
    """
    if budget < 1:
        raise ValueError(f"the token budget must be at least 1, not {budget}")
    groups: list[list[int]] = []
    left: list[int] = []
    for index in sorted(range(len(lengths)), key=lambda i: (-lengths[i], i)):
        place = next((n for n, room in enumerate(left) if room >= lengths[index]), None)
        if place is None:
            groups.append([index])
            left.append(budget - lengths[index])
        else:
            groups[place].append(index)
            left[place] -= lengths[index]
    return groups


def micro_groups(lengths: Sequence[int], budget: int, packed: bool) -> list[list[int]]:
    """The rows of each micro-batch: `pack_sequences` if rows are packed, else `pack_micro_batches`."""
    return pack_sequences(lengths, budget) if packed else pack_micro_batches(lengths, budget)


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


def collate(
    rows: Sequence[Row], device: torch.device | str = "cpu", pad_id: int = 0, packed: bool = False
) -> Batch:
    """Turn rows into one `Batch` on a device, right-padded or `packed`.

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
    lengths = [forward_length(row) for row in rows]
    width = sum(lengths) if packed else max(lengths)
    starts = accumulate(lengths, initial=0) if packed else range(0, len(rows) * width, width)
    tokens = max(len(row.completion_ids) for row in rows)
    input_ids = torch.full((1 if packed else len(rows), width), pad_id, dtype=torch.long)
    flat = input_ids.view(-1)
    mask = torch.zeros(len(rows), tokens, dtype=torch.bool)
    positions, targets = [], []
    for place, (row, start) in enumerate(zip(rows, starts, strict=False)):  # one start more if packed
        ids = torch.tensor(row.prompt_ids + row.completion_ids)
        first = len(row.prompt_ids)
        flat[start : start + len(ids) - 1] = ids[:-1]
        mask[place, : len(ids) - first] = True
        positions.append(torch.arange(first - 1, len(ids) - 1) + start)
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
        position_ids=torch.cat([torch.arange(n) for n in lengths]).unsqueeze(0).to(device)
        if packed
        else None,
    )


def pad_values(values: Sequence[Tensor], width: int) -> Tensor:
    """Stack `[length]` vectors into `[len(values), width]`, zeros on the right."""
    stacked = torch.zeros(len(values), width)
    for place, value in enumerate(values):
        stacked[place, : len(value)] = value
    return stacked
