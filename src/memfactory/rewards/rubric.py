"""The recipe's reward: named components with weights, each routed to the modules it pays."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from memfactory.core.types import Rollout, Verdict
from memfactory.rewards.base import Reward


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

        What judges said is noted in `rollout.verdicts`.
        """
        values = {}
        for name, component in self.components.items():
            value = await component.reward(rollout)
            if isinstance(value, Verdict):
                rollout.verdicts[name] = value
                value = value.value
            if value is not None:
                values[name] = float(value)
        return values

    def routed(self, module: str) -> tuple[str, ...]:
        """Names of the components that pay `module`."""
        return tuple(name for name, component in self.components.items() if component.pays(module))

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
