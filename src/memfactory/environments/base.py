"""What an environment is: tasks, plus the rewards that score an outcome."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

from memfactory.core.types import Rollout, Task
from memfactory.rewards.rubric import Rubric


class Environment(Protocol):
    """Where an agent's tasks come from and how its rollouts are scored."""

    train_tasks: Sequence[Task]
    """Tasks to learn from; empty when the recipe has none."""

    eval_tasks: Mapping[str, Sequence[Task]]
    """Held-out tasks, by the name of the evaluation set."""

    rubric: Rubric

    async def score(self, rollout: Rollout) -> dict[str, float]:
        """Named reward components of a finished rollout."""
        ...
