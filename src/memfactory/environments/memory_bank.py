"""Questions about long dialogues, answered from a memory bank: the reply is compared with the gold answers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from memfactory.core.errors import BadInput
from memfactory.core.registry import register
from memfactory.core.types import Rollout, Task
from memfactory.data.dialogue import Dialogue
from memfactory.rewards.rubric import Rubric


@dataclass(frozen=True)
class MemoryBankConfig:
    """No settings: tasks come from `data`, scores from `reward`."""


@register("environment", "memory_bank", config=MemoryBankConfig, source="Memory-R1, arXiv 2508.19828")
class MemoryBankEnvironment:
    """Questions about dialogues of many sessions, scored by the recipe's rewards."""

    def __init__(
        self, rubric: Rubric, train_tasks: Sequence[Task], eval_tasks: Mapping[str, Sequence[Task]]
    ) -> None:
        """Raises `BadInput` for tasks that are not about a dialogue."""
        for name, tasks in {"data.train": train_tasks, **_named(eval_tasks)}.items():
            if len(tasks) and not isinstance(tasks[0].evidence, Dialogue):
                raise BadInput(
                    f"{name}: environment 'memory_bank' needs tasks about dialogues (data=dialogues, locomo); "
                    f"'{tasks[0].id}' has a {type(tasks[0].evidence).__name__}"
                )
        self.rubric = rubric
        self.train_tasks = train_tasks
        self.eval_tasks = eval_tasks

    async def score(self, rollout: Rollout) -> dict[str, float]:
        """Every component of the rubric."""
        return await self.rubric.score(rollout)


def _named(sets: Mapping[str, Sequence[Task]]) -> dict[str, Sequence[Task]]:
    return {f"data.eval.{name}": tasks for name, tasks in sets.items()}
