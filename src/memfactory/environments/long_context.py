"""Questions about long texts: the agent's reply is compared with the gold answers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from memfactory.core.registry import register
from memfactory.core.types import Rollout, Task
from memfactory.rewards.rubric import Rubric


@dataclass(frozen=True)
class LongContextConfig:
    """No settings: tasks come from `data`, scores from `reward`."""


@register("environment", "long_context", config=LongContextConfig, source="MemAgent, arXiv 2507.02259")
class LongContext:
    """Questions about long texts, scored by the recipe's rewards."""

    def __init__(
        self, rubric: Rubric, train_tasks: Sequence[Task], eval_tasks: Mapping[str, Sequence[Task]]
    ) -> None:
        self.rubric = rubric
        self.train_tasks = train_tasks
        self.eval_tasks = eval_tasks

    async def score(self, rollout: Rollout) -> dict[str, float]:
        """Every component of the rubric."""
        return await self.rubric.score(rollout)
