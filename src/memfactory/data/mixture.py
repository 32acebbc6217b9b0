"""Several sources of data as one: each item is drawn from one of them, by share."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from memfactory.core.bounds import AtLeastOne, NotNegative, Seed
from memfactory.core.errors import BadInput
from memfactory.core.registry import register
from memfactory.data.tasks import LazySequence


@dataclass(frozen=True)
class MixtureConfig:
    """`parts` are named sources; `shares` says how much of each (any scale; 0 and left out: nothing),
    without any all are the same.

    `size` items in all; without it as many as the parts have together.
    """

    parts: dict[str, dict[str, Any]] = field(
        default_factory=dict, metadata={"component": "data", "each": True}
    )
    shares: dict[str, NotNegative] = field(default_factory=dict)
    size: AtLeastOne | None = None
    seed: Seed = 0


@register("data", "mixture", config=MixtureConfig)
def mixture(
    parts: Mapping[str, Sequence[Any]],
    shares: Mapping[str, float] | None = None,
    size: int | None = None,
    seed: int = 0,
) -> Sequence[Any]:
    """Items of several sources, mixed by share; a source is gone through again when it ends.

    Item `i` is a function of (seed, i). Raises `BadInput` for shares that name no part, are negative or all 0.
    """
    shares = shares or dict.fromkeys(parts, 1.0)
    if not parts:
        raise BadInput("data 'mixture': parts names no source")
    for name, share in shares.items():
        if name not in parts:
            raise BadInput(f"data 'mixture': shares names '{name}', parts has {', '.join(parts)}")
        if share < 0:
            raise BadInput(f"data 'mixture': shares.{name} must not be negative")
    if not sum(shares.values()):
        raise BadInput("data 'mixture': shares are all 0")
    names = list(shares)
    weights = [shares[name] for name in names]

    def make(index: int) -> Any:
        name = random.Random(f"mixture|{seed}|{index}").choices(names, weights)[0]
        # Which item of the part: spread by the index, so that no item need be counted before it is drawn.
        return parts[name][index % len(parts[name])]

    return LazySequence(sum(map(len, parts.values())) if size is None else size, make)
