"""What a reward is: a named component of how well a rollout did."""

from __future__ import annotations

from typing import Protocol

from memfactory.core.types import Rollout


class Reward(Protocol):
    """Scores one finished rollout; weight and routing to modules live in the recipe, not here."""

    async def __call__(self, rollout: Rollout) -> float | None:
        """The component's value, or None when it could not be judged (then left out of the mean)."""
        ...
