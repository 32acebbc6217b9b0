"""What is lost when weights of 32 bits are written, or handed to a sampler, in 16."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

#: Elements that are looked at in double precision at once.
_CHUNK = 2**22


@dataclass(frozen=True)
class Rounding:
    """How the change of the weights since the run began comes through in a narrower type.

    With d the change that was learned and r the one that is left, round(now) - round(before), over all trained
    weights: `lost` is |r - d| / |d| (0: nothing; 1: as much as was learned), `correlation` the cosine between r and d
    (0 if nothing is left). `learned` is |d|.
    """

    dtype: str
    learned: float
    lost: float
    correlation: float


def rounding(changes: Iterable[tuple[Tensor, Tensor]], dtype: torch.dtype) -> Rounding | None:
    """Measure it over pairs of (weight before, weight now) in float32; sums are in float64.

    None if no pair came, or no weight has changed.
    """
    learned = left = error = along = 0.0
    for before, now in _parts(changes):
        change = now.double() - before.double()
        rounded = now.to(dtype).double() - before.to(dtype).double()
        learned += float(change.square().sum())
        left += float(rounded.square().sum())
        error += float((rounded - change).square().sum())
        along += float((rounded * change).sum())
    if learned == 0.0:
        return None
    return Rounding(
        dtype=str(dtype).removeprefix("torch."),
        learned=math.sqrt(learned),
        lost=math.sqrt(error / learned),
        correlation=along / math.sqrt(learned * left) if left else 0.0,
    )


def _parts(changes: Iterable[tuple[Tensor, Tensor]]) -> Iterator[tuple[Tensor, Tensor]]:
    for before, now in changes:
        yield from zip(
            before.detach().reshape(-1).split(_CHUNK), now.detach().reshape(-1).split(_CHUNK), strict=True
        )
