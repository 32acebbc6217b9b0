"""The recipe's reward: named components with weights, each routed to the modules it pays."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from decimal import Decimal
from numbers import Real

from memfactory.core.errors import UserError
from memfactory.core.types import Rollout, Task, Verdict
from memfactory.rewards.base import Reward

LARGEST = 1e12
"""Largest size of a reward: squares and weighted sums of such numbers stay far from overflowing."""


def as_number(value: object, name: str, task: Task) -> float:
    """What a reward gave, as a float: any real number, true or false, or a NumPy or torch value of one element.

    Raises `UserError`, naming reward and task, for anything else, and for what is not finite or above `LARGEST`.
    """
    item = getattr(value, "item", None)
    number = value
    if callable(item):
        with suppress(ValueError, RuntimeError, TypeError):  # more than one element
            number = item()
    if isinstance(number, (Real, Decimal)):
        with suppress(OverflowError):
            found = float(number)
            if abs(found) <= LARGEST:  # which NaN is not
                return found
    shown = " ".join(repr(value).split())[:80]
    raise UserError(
        f"reward '{name}' gave {shown} ({type(value).__name__}) on task '{task.id}'; it must be a number of at most "
        f"{LARGEST:g} in size, or None where it does not apply"
    )


@dataclass(frozen=True)
class RewardComponent:
    """One named reward. `modules` are the modules whose calls it pays; None pays every call."""

    reward: Reward
    weight: float = 1.0
    modules: tuple[str, ...] | None = None

    def pays(self, module: str) -> bool:
        """Whether calls of `module` get this component."""
        return self.modules is None or module in self.modules


@dataclass(frozen=True)
class Rubric:
    """All reward components of a recipe, by name."""

    components: Mapping[str, RewardComponent]

    async def score(self, rollout: Rollout) -> dict[str, float]:
        """The components' values, unweighted; one that does not apply or could not be judged is left out.

        What judges said is noted in `rollout.verdicts`. Raises `UserError`, naming reward and task, for a reward that
        fails or gives no finite number.
        """
        values = {}
        for name, component in self.components.items():
            try:
                value = await component.reward(rollout)
            except UserError:  # it says in its own words what is wrong (a judge's server, for one)
                raise
            except Exception as error:
                said = " ".join(f"{type(error).__name__}: {error}".split())[:200]
                raise UserError(f"reward '{name}' failed on task '{rollout.task.id}': {said}") from error
            if isinstance(value, Verdict):
                rollout.verdicts[name] = value
                value = value.value
            if value is not None:
                values[name] = as_number(value, name, rollout.task)
        return values

    def routed(self, module: str) -> tuple[str, ...]:
        """Names of the components that pay `module`."""
        return tuple(name for name, component in self.components.items() if component.pays(module))

    def pays(self, module: str) -> bool:
        """Whether a component with a weight pays `module`."""
        return any(self.components[name].weight for name in self.routed(module))

    def unjudged(self, rollout: Rollout, names: Iterable[str] | None = None) -> list[str]:
        """Components among `names` (default: all) that weigh something and that a judge gave no value."""
        chosen = self.components if names is None else names
        verdicts = rollout.verdicts
        return [
            name
            for name in chosen
            if self.components[name].weight and name in verdicts and verdicts[name].value is None
        ]

    def total(self, rewards: Mapping[str, float], names: Iterable[str] | None = None) -> float:
        """Weighted sum of the scored components among `names` (default: all)."""
        chosen = self.components if names is None else names
        return sum(self.components[name].weight * rewards[name] for name in chosen if name in rewards)
