"""Rows from reinforcement learning: tasks → rollouts → rewards → advantages → rows."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from memfactory.agents.components import ComponentLearner
from memfactory.algorithms.objective import AdvantageMethod
from memfactory.core.errors import ServiceError
from memfactory.core.ranks import ALONE, Ranks
from memfactory.core.types import Rollout, Task
from memfactory.data.sampling import TaskOrder
from memfactory.environments.base import Environment
from memfactory.evaluation.runner import SetResult
from memfactory.learners.base import Learner
from memfactory.learners.none import NoLearner
from memfactory.rollouts.collect import Collector
from memfactory.samplers.base import Sampler, let_sleep
from memfactory.samplers.sync import sync_and_check
from memfactory.training.credit import Credit, assign_credit
from memfactory.training.rollout_metrics import rollout_metrics, rollout_record
from memfactory.training.trainer import Batch

#: Characters of a prompt that are kept of the second and later rollouts of a recorded group.
_LONGEST_PROMPT_OF_COPIES = 2000


@dataclass(frozen=True)
class GroupSettings:
    """How many rollouts a step takes and how they are compared.

    With `dynamic_sampling`, groups of further tasks are added for those whose rewards do not differ, at most
    `max_refills` times a step; the latter make no rows but stay in the step's figures. At least `log_rollouts`
    rollouts a step are kept as readable text, in whole groups. `temperature` is that of the rollouts.
    """

    tasks_per_step: int
    group_size: int
    advantages: AdvantageMethod = "grpo"
    drop_zero_variance: bool = True
    dynamic_sampling: bool = False
    max_refills: int = 3
    log_rollouts: int = 4
    parity_threshold: float = 0.05
    temperature: float = 1.0


class RolloutSource:
    """Makes the rows of each step by running the agent on tasks of the environment."""

    def __init__(
        self,
        settings: GroupSettings,
        environment: Environment,
        collector: Collector,
        sampler: Sampler,
        order: TaskOrder,
        parity_prompts: Sequence[Sequence[int]],
        evaluate: Callable[[str], Mapping[str, SetResult]],
        ranks: Ranks = ALONE,
        components: Mapping[str, ComponentLearner] | None = None,
    ) -> None:
        """`components` are parts of the agent that learn by themselves, from the rollouts of each step."""
        self.settings = settings
        self.environment = environment
        self.collector = collector
        self.sampler = sampler
        self.order = order
        self.parity_prompts = parity_prompts
        self.evaluate_sets = evaluate
        self.ranks = ranks
        self.components = dict(components or {})
        self._syncs = 0

    def rows(self, step: int, position: int) -> Batch:
        """Collect groups for the tasks at `position`, give credit, make rows.

        Raises the agents' or the judge's error when not a single rollout of the step could be finished and judged.
        """
        wanted = self.settings.tasks_per_step
        groups, position = self._groups(step, position, wanted, refill=0)
        credit = self._credit(groups)
        for refill in range(1, self.settings.max_refills + 1):
            missing = wanted - (len(groups) - sum(credit.flat))
            if not self.settings.dynamic_sampling or missing <= 0:
                break
            fresh, position = self._groups(step, position, missing, refill)
            groups += fresh
            credit = self._credit(groups)
        if credit.failed_rollouts == len(credit.rollouts):
            first = credit.rollouts[0].error
            raise ServiceError(
                f"all {len(credit.rollouts)} rollouts of step {step + 1} failed; first: {first}"
            )
        if credit.failed_rollouts + credit.unjudged_rollouts == len(credit.rollouts):
            raise ServiceError(self._unjudged(credit.rollouts, step))
        metrics = rollout_metrics(credit, self.environment.rubric)
        for component in self.components.values():
            metrics |= component.update(credit.rollouts)
        return Batch(
            rows=credit.rows,
            position=position,
            metrics=metrics,
            records=self._records(groups, credit),
        )

    def sync(self, learner: Learner, version: int) -> Mapping[str, float]:
        """Load the learner's weights into the sampler; raise `ParityError` when they disagree after."""
        if isinstance(learner, NoLearner):
            return {}
        self._syncs += 1
        return sync_and_check(
            self.sampler,
            learner,
            self.parity_prompts,
            self.settings.parity_threshold,
            version,
            ranks=self.ranks,
            temperature=self.settings.temperature,
            turn=version,
            first=self._syncs == 1,
        )

    def rest(self) -> None:
        """Let the sampler sleep, if it can and its recipe wants it."""
        let_sleep(self.sampler)

    def evaluate(self, label: str, learner: Learner) -> dict[str, Any]:
        """Scores of all held-out sets, with predictions.

        Raises the agents' error when not a single rollout of a set could be finished: zeros for a service
        that was down would be kept as the policy's scores.
        """
        results = self.evaluate_sets(label)
        for name, result in results.items():
            if result.predictions and result.errors == len(result.predictions):
                first = result.predictions[0].error
                raise ServiceError(
                    f"all {result.errors} rollouts of evaluation set '{name}' failed; first: {first}"
                )
        return {"sets": {name: result.as_json() for name, result in results.items()}}

    def close(self) -> None:
        """Free the sampler's engine."""
        self.sampler.close()

    def _groups(self, step: int, position: int, count: int, refill: int) -> tuple[list[list[Rollout]], int]:
        tasks: list[Task] = [
            self.environment.train_tasks[self.order.at(position + offset)] for offset in range(count)
        ]
        phase = f"train-{step}" if refill == 0 else f"train-{step}-refill-{refill}"
        return self.collector.collect(tasks, self.settings.group_size, phase), position + count

    def _credit(self, groups: Sequence[Sequence[Rollout]]) -> Credit:
        return assign_credit(
            groups,
            self.environment.rubric,
            self.settings.advantages,
            drop_zero_variance=self.settings.drop_zero_variance,
        )

    def _records(self, groups: Sequence[Sequence[Rollout]], credit: Credit) -> list[dict[str, Any]]:
        """The first groups of the step, whole, so that the rollouts of a task can be held side by side.

        All but the first rollout of a group have long prompts cut: they read the same text as the first.
        """
        records: list[dict[str, Any]] = []
        for number, group in enumerate(groups):
            if len(records) >= self.settings.log_rollouts:
                break
            for rollout in group:
                total = self._total(rollout)
                records.append(
                    rollout_record(
                        rollout,
                        credit.advantages[len(records)],
                        total,
                        group=number,
                        longest_prompt=None if rollout is group[0] else _LONGEST_PROMPT_OF_COPIES,
                    )
                )
        return records

    def _unjudged(self, rollouts: Sequence[Rollout], step: int) -> str:
        rubric = self.environment.rubric
        failed = [r.verdicts[name] for r in rollouts if r.error is None for name in rubric.unjudged(r)]
        return (
            f"no rollout of step {step + 1} could be judged by {failed[0].judge} "
            f"({len(failed)} tried); first: {failed[0].said}; the same command goes on from the last checkpoint"
        )

    def _total(self, rollout: Rollout) -> float | None:
        """The weighted reward; None where a judge failed, because a part of the sum is not known."""
        rubric = self.environment.rubric
        return None if rubric.unjudged(rollout) else rubric.total(rollout.rewards)
