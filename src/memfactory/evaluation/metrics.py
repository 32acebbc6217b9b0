"""The metrics that an evaluation can have as columns: names, headings, and how each scores one answer.

A metric is a function of the answer and its task to a score in [0, 1], or to None where it does not apply: such an
answer is left out of the mean and counted. What needs a model to judge is a reward (`memfactory.rewards`), and the
rewards of a recipe are columns as well.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

from memfactory.core.types import Task
from memfactory.metrics import babilong, locomo, longmemeval, qa, ruler
from memfactory.metrics.bertscore import bert_score

MetricName = Literal[
    "exact_match",
    "sub_exact_match",
    "f1",
    "bleu1",
    "rouge_l",
    "meteor",
    "bertscore",
    "locomo",
    "babilong",
    "longmemeval",
    "ruler",
    "string_match_all",
    "string_match_part",
]
DEFAULT_METRICS: tuple[MetricName, ...] = ("exact_match", "sub_exact_match", "f1")


#: Scores the answers of a set, each against its gold answers.
BatchMetric = Callable[[Sequence[str], Sequence[Sequence[str]]], list[float]]


@dataclass(frozen=True)
class Metric:
    """What a column is called, and how an answer to a task is scored; None for one that scores all answers at once."""

    label: str
    score: Callable[[str, Task], float | None] | None


def _of_golds(metric: Callable[[str, Sequence[str]], float]) -> Callable[[str, Task], float | None]:
    return lambda answer, task: metric(answer, task.answers)


def _locomo(answer: str, task: Task) -> float | None:
    """LoCoMo's score by category; None for a task of another benchmark."""
    category = task.meta.get("category")
    if category not in locomo.CATEGORIES or not task.answers:
        return None
    return locomo.score(answer, task.answers[0], int(category))


def _babilong(answer: str, task: Task) -> float | None:
    """BABILong's score; None for a task that does not say which words its answers can be."""
    labels = task.meta.get("labels")
    if not isinstance(labels, list | tuple) or not labels or not all(isinstance(one, str) for one in labels):
        return None
    return babilong.score(answer, task.answers, task.question, labels)


def _longmemeval(answer: str, task: Task) -> float | None:
    """LongMemEval's accuracy by rule; None for another benchmark's task, and for one whose gold answer is a rubric."""
    if "abstention" not in task.meta or task.meta.get("question_type") == "single-session-preference":
        return None
    return longmemeval.rule_accuracy(answer, task.answers, abstention=bool(task.meta["abstention"]))


def _ruler(answer: str, task: Task) -> float | None:
    """RULER's score: which of its two is meant, the task says; None for another benchmark's task."""
    own = task.meta.get("metric")
    return _RULER[own](answer, task.answers) if isinstance(own, str) and own in _RULER else None


_RULER = {"string_match_all": ruler.string_match_all, "string_match_part": ruler.string_match_part}
METRICS: dict[str, Metric] = {
    "exact_match": Metric("EM", _of_golds(qa.exact_match)),
    "sub_exact_match": Metric("sub-EM", _of_golds(qa.sub_exact_match)),
    "f1": Metric("F1", _of_golds(qa.f1)),
    "bleu1": Metric("BLEU-1", _of_golds(qa.bleu1)),
    "rouge_l": Metric("ROUGE-L", _of_golds(qa.rouge_l)),
    "meteor": Metric("METEOR", _of_golds(qa.meteor)),
    "bertscore": Metric("BERTScore", None),
    "locomo": Metric("LoCoMo", _locomo),
    "babilong": Metric("BABILong", _babilong),
    "longmemeval": Metric("LongMemEval", _longmemeval),
    "ruler": Metric("RULER", _ruler),
    "string_match_all": Metric("all", _of_golds(ruler.string_match_all)),
    "string_match_part": Metric("any", _of_golds(ruler.string_match_part)),
}


#: Metrics that score the answers of a whole set at once, with the gold answers of each: those that need a model.
BATCHED: dict[str, BatchMetric] = {"bertscore": bert_score}


def metrics_for(task: Task, chosen: Iterable[str] | None) -> list[str]:
    """The chosen metrics; if none were chosen, the usual ones and the one that the task names (`meta["metric"]`)."""
    if chosen is not None:
        return list(chosen)
    own = task.meta.get("metric")
    return list(
        dict.fromkeys([*DEFAULT_METRICS, *([own] if isinstance(own, str) and own in METRICS else [])])
    )


def label(metric: str) -> str:
    """A metric's heading in a table."""
    return METRICS[metric].label if metric in METRICS else metric
