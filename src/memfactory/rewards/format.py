"""Rewards for keeping to a format, whatever is said in it."""

from __future__ import annotations

from dataclasses import dataclass

from memfactory.core.bounds import AtLeastOne
from memfactory.core.registry import register
from memfactory.core.types import Rollout
from memfactory.metrics.boxed import DEFAULT_TAIL, last_boxed


@register("reward", "boxed")
@dataclass(frozen=True)
class Boxed:
    r"""1 if the final reply has a closed \boxed{} near its end, else 0."""

    tail: AtLeastOne = DEFAULT_TAIL

    async def __call__(self, rollout: Rollout) -> float | None:
        r"""1.0 if the last `tail` characters of the reply hold a closed `\boxed{}`, else 0.0."""
        if rollout.error is not None or rollout.outcome is None:
            return 0.0
        return float(last_boxed(rollout.outcome.reply, self.tail) is not None)
