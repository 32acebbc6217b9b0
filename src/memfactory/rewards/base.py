"""What a reward is: a named component of how well a rollout did."""

from __future__ import annotations

from typing import Protocol

from memfactory.core.types import Rollout, Verdict


class Reward(Protocol):
    """Scores one finished rollout; weight and routing to modules live in the recipe, not here."""

    async def __call__(self, rollout: Rollout) -> float | Verdict | None:
        """The component's value, or None where it does not apply (then it counts as nothing in the total).

        A value that is no finite number, like an error, stops the command: see `rubric.as_number`.

        A judge returns a `Verdict`; one without a value leaves the rollout unjudged, which is more than a missing
        component: nothing can be learned from its total.
        """
        ...
