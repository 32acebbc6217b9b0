"""Scoring an agent on held-out tasks: the same rollouts as in training, then metrics on the answers."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass, field
from typing import Any

from memfactory.core.types import Rollout, Task, Verdict
from memfactory.evaluation.judged import JudgeResult, judge_results
from memfactory.metrics.boxed import last_boxed
from memfactory.metrics.qa import exact_match, f1, sub_exact_match
from memfactory.metrics.ruler import string_match_all, string_match_part
from memfactory.rollouts.collect import Collector
from memfactory.rollouts.operation_mix import operation_mix

METRICS = {"exact_match": exact_match, "sub_exact_match": sub_exact_match, "f1": f1}
#: A benchmark's own metric, which a task may name in `meta["metric"]`; scored beside the others.
TASK_METRICS = {"string_match_all": string_match_all, "string_match_part": string_match_part}


@dataclass(frozen=True)
class Prediction:
    """One scored rollout of one task. `boxed` tells whether the reply held a boxed answer.

    `answer` is the boxed text, or the whole reply when there is none.
    """

    task_id: str
    index: int
    question: str
    golds: tuple[str, ...]
    answer: str
    reply: str
    boxed: bool
    scores: Mapping[str, float]
    rewards: Mapping[str, float]
    memories: tuple[str, ...]
    calls: int
    prompt_tokens: int
    completion_tokens: int
    truncated_calls: int
    error: str | None
    verdicts: Mapping[str, Verdict] = field(default_factory=dict)


@dataclass(frozen=True)
class SetResult:
    """Scores of one evaluation set: means over tasks and repeats, 0..1; failed rollouts score 0.

    A metric that tasks name themselves is among them only if all tasks of the set name it. `judges` are those of the
    recipe's rewards, by component.
    """

    name: str
    tasks: int
    repeats: int
    scores: Mapping[str, float]
    boxed: float
    errors: int
    prompt_tokens: int
    completion_tokens: int
    seconds: float
    operations: Mapping[str, float]
    """Shares of the operations on memory banks; empty for agents without a bank."""
    predictions: tuple[Prediction, ...]
    judges: Mapping[str, JudgeResult] = field(default_factory=dict)

    def as_json(self, *, predictions: bool = True) -> dict[str, Any]:
        """A JSON-ready dictionary."""
        value = asdict(self)
        if not predictions:
            del value["predictions"]
        return value


def evaluate_set(
    collector: Collector,
    name: str,
    tasks: Sequence[Task],
    *,
    repeats: int,
    phase: str,
    on_done: Callable[[Rollout], None] | None = None,
) -> SetResult:
    """Run `repeats` rollouts of each task and score them. `phase` enters the sampling seeds."""
    started = time.perf_counter()
    groups = collector.collect(tasks, repeats, phase, on_done)
    predictions = tuple(predict(rollout) for group in groups for rollout in group)
    count = max(len(predictions), 1)
    return SetResult(
        name=name,
        tasks=len(tasks),
        repeats=repeats,
        scores={metric: sum(p.scores[metric] for p in predictions) / count for metric in _shared(tasks)},
        boxed=sum(p.boxed for p in predictions) / count,
        errors=sum(p.error is not None for p in predictions),
        prompt_tokens=sum(p.prompt_tokens for p in predictions),
        completion_tokens=sum(p.completion_tokens for p in predictions),
        seconds=time.perf_counter() - started,
        operations=operation_mix(rollout.outcome for group in groups for rollout in group),
        predictions=predictions,
        judges=judge_results(predictions),
    )


def evaluate_sets(
    collector: Collector,
    sets: Mapping[str, Sequence[Task]],
    *,
    repeats: int,
    watch: Callable[[str, int], AbstractContextManager[Callable[[], None]]],
) -> dict[str, SetResult]:
    """Evaluate one set after the other. `watch(name, rollouts)` gives what to call after each rollout."""
    results = {}
    for name, tasks in sets.items():
        with watch(name, len(tasks) * repeats) as count:
            results[name] = evaluate_set(
                collector,
                name,
                tasks,
                repeats=repeats,
                phase=f"eval-{name}",
                on_done=lambda rollout, count=count: count(),  # type: ignore[misc]
            )
    return results


def predict(rollout: Rollout) -> Prediction:
    """Score one rollout's reply against the task's gold answers."""
    reply = rollout.outcome.reply if rollout.outcome is not None else ""
    boxed = last_boxed(reply)
    answer = reply if boxed is None else boxed
    failed = rollout.error is not None or rollout.outcome is None
    return Prediction(
        task_id=rollout.task.id,
        index=rollout.index,
        question=rollout.task.question,
        golds=rollout.task.answers,
        answer=answer,
        reply=reply,
        boxed=boxed is not None,
        scores={
            name: 0.0 if failed else metric(answer, rollout.task.answers)
            for name, metric in _metrics_of(rollout.task).items()
        },
        rewards=dict(rollout.rewards),
        memories=rollout.outcome.memories if rollout.outcome is not None else (),
        calls=len(rollout.calls),
        prompt_tokens=sum(len(call.prompt_ids) for call in rollout.calls),
        completion_tokens=sum(len(call.completion_ids) for call in rollout.calls),
        truncated_calls=sum(call.finish_reason == "length" for call in rollout.calls),
        error=rollout.error,
        verdicts=dict(rollout.verdicts),
    )


def _metrics_of(task: Task) -> dict[str, Callable[[str, Sequence[str]], float]]:
    """What a reply to the task is scored by; a name in `meta` that is no metric here means nothing."""
    named = task.meta.get("metric")
    own = {named: TASK_METRICS[named]} if isinstance(named, str) and named in TASK_METRICS else {}
    return {**METRICS, **own}


def _shared(tasks: Sequence[Task]) -> list[str]:
    """Names of the metrics that all tasks of a set are scored by."""
    shared = dict.fromkeys((*METRICS, *TASK_METRICS))
    if not len(tasks):
        return list(METRICS)
    for task in tasks:
        own = _metrics_of(task)
        shared = {name: None for name in shared if name in own}
    return list(shared)
