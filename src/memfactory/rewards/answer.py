"""Rewards that compare the final answer with the gold answers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import ClassVar

from memfactory.core.bounds import AtLeastOne
from memfactory.core.registry import register
from memfactory.core.replies import part
from memfactory.core.types import Rollout
from memfactory.metrics import locomo, qa
from memfactory.metrics.boxed import DEFAULT_TAIL, last_boxed

Metric = Callable[[str, Sequence[str]], float]


@dataclass(frozen=True)
class AnswerReward:
    r"""A metric of the final answer in [0, 1]; 0.0 if there is none, None for a task without gold answers.

    With `boxed` the answer is what stands in the last `\boxed{}` of the reply's last `tail` characters, and
    a reply without one scores 0.0; otherwise the whole reply is the answer.
    """

    boxed: bool = True
    tail: AtLeastOne = DEFAULT_TAIL

    metric: ClassVar[Metric]

    def answer_of(self, reply: str) -> str | None:
        """What of a reply is compared: never what was thought before it."""
        return last_boxed(reply, self.tail) if self.boxed else part(reply).answer

    async def __call__(self, rollout: Rollout) -> float | None:
        """The metric's value; replies never make it raise."""
        if rollout.error is not None or rollout.outcome is None:
            return 0.0
        if not rollout.task.answers:
            return None
        answer = self.answer_of(rollout.outcome.reply)
        return 0.0 if answer is None else type(self).metric(answer, rollout.task.answers)


@register("reward", "exact_match", source="MemAgent, arXiv 2507.02259")
@dataclass(frozen=True)
class ExactMatch(AnswerReward):
    """1 if the answer equals a gold answer after SQuAD normalisation, else 0."""

    metric: ClassVar[Metric] = staticmethod(qa.exact_match)


@register("reward", "sub_exact_match", source="MemAgent, arXiv 2507.02259")
@dataclass(frozen=True)
class SubExactMatch(AnswerReward):
    """1 if a normalised gold answer is a substring of the normalised answer, else 0."""

    metric: ClassVar[Metric] = staticmethod(qa.sub_exact_match)


@register("reward", "f1", source="SQuAD, arXiv 1606.05250")
@dataclass(frozen=True)
class F1(AnswerReward):
    """Word F1 of the answer with the best gold answer, after SQuAD normalisation."""

    metric: ClassVar[Metric] = staticmethod(qa.f1)


@register("reward", "locomo", source="LoCoMo, arXiv 2402.17753")
@dataclass(frozen=True)
class Locomo(AnswerReward):
    """LoCoMo's own score: F1 over word stems, by the category of the question; None for other tasks."""

    async def __call__(self, rollout: Rollout) -> float | None:
        """The score in [0, 1] against the first gold answer; replies never make it raise."""
        category = rollout.task.meta.get("category")
        if category not in locomo.CATEGORIES or not rollout.task.answers:
            return None
        if rollout.error is not None or rollout.outcome is None:
            return 0.0
        answer = self.answer_of(rollout.outcome.reply)
        return 0.0 if answer is None else locomo.score(answer, rollout.task.answers[0], category)
