"""Checks and look-ups that turn a learner's plain settings into torch objects."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import get_args

import torch

from memfactory.core.errors import BadInput, UserError, did_you_mean
from memfactory.learners.optimizer import Schedule


def check_settings(
    *, lr: float, betas: Sequence[float], schedule: str, total_steps: int | None, micro_batch_tokens: int
) -> None:
    """Refuse settings that cannot work. Raises `BadInput` naming the key."""
    if not lr >= 0:
        raise BadInput(f"learner.lr must not be negative, not {lr}")
    if len(betas) != 2 or not all(0 <= beta < 1 for beta in betas):
        raise BadInput(f"learner.betas must be two numbers in [0, 1), not {list(betas)}")
    if schedule not in get_args(Schedule):
        raise BadInput(f"learner.schedule: unknown '{schedule}'{did_you_mean(schedule, get_args(Schedule))}")
    if schedule != "constant" and total_steps is None:
        raise BadInput(f"learner.schedule '{schedule}' needs the total number of steps")
    if micro_batch_tokens < 1:
        raise BadInput(f"learner.micro_batch_tokens must be at least 1, not {micro_batch_tokens}")


def pick_device(name: str, local_rank: int | None = None) -> torch.device:
    """The device called `name`; `auto` is a GPU if there is one (that of the rank, if there are several ranks).

    Raises `BadInput` if it is not here.
    """
    if name == "auto":
        if not torch.cuda.is_available():
            return torch.device("cpu")
        return torch.device("cuda") if local_rank is None else torch.device("cuda", local_rank)
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise BadInput(f"learner.device: unknown device '{name}'") from error
    if device.type == "cuda" and not torch.cuda.is_available():
        raise BadInput(f"learner.device is '{name}' but no CUDA device is available")
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise BadInput(
            f"learner.device is '{name}' but there are {torch.cuda.device_count()} CUDA devices, from 0"
        )
    return device


def compute_dtype(name: str) -> torch.dtype:
    """`float32` or `bfloat16` as a torch dtype. Raises `BadInput` for others."""
    known = {"float32": torch.float32, "bfloat16": torch.bfloat16}
    if name not in known:
        raise BadInput(
            f"learner.dtype: unknown '{name}'{did_you_mean(name, known)}; known: float32, bfloat16"
        )
    return known[name]


@contextmanager
def memory_advice() -> Iterator[None]:
    """Turn running out of memory into a `UserError` that names the keys to lower."""
    try:
        yield
    except RuntimeError as error:
        if not isinstance(error, torch.OutOfMemoryError) and "DefaultCPUAllocator" not in str(error):
            raise
        raise UserError(
            "out of memory in the update: lower learner.micro_batch_tokens, set learner.gradient_checkpointing or "
            f"train adapters with learner.lora_rank ({str(error).splitlines()[0]})"
        ) from error
