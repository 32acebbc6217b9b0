"""The optimizer and its learning rate, as every learner uses them."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Literal, TypeVar

import torch

T = TypeVar("T")

Schedule = Literal["constant", "linear", "cosine"]


def learning_rate(
    step: int,
    *,
    lr: float,
    warmup_steps: int,
    schedule: Schedule,
    min_lr_ratio: float,
    total_steps: int | None,
) -> float:
    """Learning rate of optimizer step number `step` (from 0) of the plan.

    Rises linearly over `warmup_steps` (the first step already gets lr / warmup_steps), then stays (`constant`) or
    falls to `min_lr_ratio`·lr at `total_steps`, in a line or half a cosine. Stays there afterwards.

    Raises:
        ValueError: a falling schedule without `total_steps`, or an unknown schedule.
    """
    if step < warmup_steps:
        return lr * (step + 1) / warmup_steps
    if schedule == "constant":
        return lr
    if total_steps is None:
        raise ValueError(f"schedule '{schedule}' needs the total number of steps")
    progress = min(1.0, (step - warmup_steps) / max(1, total_steps - warmup_steps))
    if schedule == "linear":
        left = 1 - progress
    elif schedule == "cosine":
        left = 0.5 * (1 + math.cos(math.pi * progress))
    else:
        raise ValueError(f"unknown schedule '{schedule}'; known: constant, linear, cosine")
    return lr * (min_lr_ratio + (1 - min_lr_ratio) * left)


def make_adamw(
    parameters: Iterable[torch.nn.Parameter], *, lr: float, betas: Sequence[float], weight_decay: float
) -> torch.optim.AdamW:
    """AdamW (Loshchilov and Hutter, arXiv 1711.05101); matrices decay, vectors (norms, biases) do not."""
    parameters = list(parameters)
    matrices, vectors = decay_order(range(len(parameters)), [p.dim() for p in parameters])
    groups = [
        {"params": [parameters[i] for i in matrices], "weight_decay": weight_decay},
        {"params": [parameters[i] for i in vectors], "weight_decay": 0.0},
    ]
    groups = [group for group in groups if group["params"]]
    return torch.optim.AdamW(groups, lr=lr, betas=(betas[0], betas[1]), fused=True)


def decay_order(items: Sequence[T], dimensions: Sequence[int]) -> tuple[list[T], list[T]]:
    """The items of matrices and those of vectors: the optimizer numbers the first, then the second."""
    pairs = list(zip(items, dimensions, strict=True))
    return [item for item, dims in pairs if dims >= 2], [item for item, dims in pairs if dims < 2]
