"""From the predictions of a set to its figures: means with intervals, pass@k, groups."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from memfactory.core.types import Outcome
from memfactory.evaluation.cost import Cost
from memfactory.evaluation.judged import JudgeResult, judge_results
from memfactory.evaluation.predictions import Prediction
from memfactory.metrics.statistics import bootstrap_interval, pass_at_k
from memfactory.rollouts.operation_mix import operation_mix


@dataclass(frozen=True)
class Score:
    """avg@k of one column over `tasks` tasks: a task's repeats are averaged first, the mean is over tasks.

    `low` and `high` bound the 95 % bootstrap interval, resampled by task. Where nothing could be scored all three
    are None. `unscored` predictions had no value and are left out. `pass_at_k` holds pass@1, 2, 4, ... and pass@k
    over the tasks of which all k repeats were scored; a try passes with a score of 1.
    """

    mean: float | None
    low: float | None
    high: float | None
    tasks: int
    unscored: int
    pass_at_k: Mapping[int, float]

    def as_json(self) -> dict[str, Any]:
        """A JSON-ready dictionary."""
        return {**asdict(self), "pass_at_k": {str(k): value for k, value in self.pass_at_k.items()}}


@dataclass(frozen=True)
class SetResult:
    """Scores of one evaluation set, 0..1; a rollout of a task that the agent cannot do scores 0.

    A metric that tasks name themselves is among `metrics` only if all tasks of the set name it. `rewards` are the
    recipe's reward components. `groups` are the metrics by `meta["group"]` (a question type, for instance), if the
    tasks have several. `operations` are shares of the operations on memory banks, empty for agents without one.
    `judges` are those of the recipe's rewards, by component.
    `length` is the length of the texts in tokens, if all tasks name the same.
    """

    name: str
    tasks: int
    repeats: int
    metrics: Mapping[str, Score]
    rewards: Mapping[str, Score]
    boxed: float
    errors: int
    cost: Cost
    groups: Mapping[str, Mapping[str, Score]]
    length: int | None
    operations: Mapping[str, float]
    judges: Mapping[str, JudgeResult]
    predictions: tuple[Prediction, ...]

    @property
    def changes(self) -> tuple[str, ...]:
        """What servers were asked otherwise than the recipe says, because they refused it, one line each."""
        return tuple(dict.fromkeys(line for p in self.predictions for line in p.finished.changes))

    @property
    def scores(self) -> dict[str, float]:
        """Only the means; a metric that scored nothing is 0.0."""
        return {name: score.mean or 0.0 for name, score in self.metrics.items()}

    def as_json(self) -> dict[str, Any]:
        """A JSON-ready dictionary."""
        return {
            "set": self.name,
            "length": self.length,
            "tasks": self.tasks,
            "repeats": self.repeats,
            "scores": self.scores,
            "metrics": _as_json(self.metrics),
            "rewards": _as_json(self.rewards),
            "boxed": self.boxed,
            "failed": self.errors,
            "operations": dict(self.operations),
            "judges": {name: asdict(judge) for name, judge in self.judges.items()},
            "cost": asdict(self.cost),
            "changes": list(self.changes),
            "groups": {"group": {name: _as_json(scores) for name, scores in self.groups.items()}}
            if self.groups
            else {},
            "predictions": [prediction.as_json() for prediction in self.predictions],
        }


def summarise_set(
    name: str, predictions: Sequence[Prediction], *, repeats: int, metrics: Iterable[str], cost: Cost
) -> SetResult:
    """The figures of a set. `metrics` are columns in any case, others if every prediction has them."""
    columns = list(dict.fromkeys([*metrics, *_shared(predictions)]))
    by_group: dict[str, list[Prediction]] = defaultdict(list)
    for prediction in predictions:
        by_group[str(prediction.meta.get("group", ""))].append(prediction)
    lengths = {prediction.meta.get("length") for prediction in predictions}
    length = lengths.pop() if len(lengths) == 1 else None
    judges = judge_results(predictions, _rules(predictions))
    rewards = [*dict.fromkeys(name for p in predictions for name in (*p.finished.rewards, *p.verdicts))]
    return SetResult(
        name=name,
        tasks=len({prediction.task_id for prediction in predictions}),
        repeats=repeats,
        metrics=_scores(predictions, columns, repeats, lambda p: p.scores),
        rewards=_scores(predictions, rewards, repeats, lambda p: _rewards(p, rewards, judges)),
        boxed=sum(prediction.boxed for prediction in predictions) / max(len(predictions), 1),
        errors=sum(prediction.error is not None for prediction in predictions),
        cost=cost,
        groups={
            group: _scores(inside, columns, repeats, lambda p: p.scores)
            for group, inside in sorted(by_group.items())
        }
        if len(by_group) > 1
        else {},
        length=length if isinstance(length, int) and not isinstance(length, bool) else None,
        operations=operation_mix(
            Outcome("", info={"operations": p.finished.operations}) for p in predictions
        ),
        judges=judges,
        predictions=tuple(predictions),
    )


def score_of(values: Iterable[tuple[str, float | None]], *, repeats: int) -> Score:
    """The figures of one column from (task id, value) of every prediction; None is a value that is missing."""
    by_task: dict[str, list[float]] = defaultdict(list)
    unscored = 0
    for task_id, value in values:
        if value is None:
            unscored += 1
        else:
            by_task[task_id].append(value)
    if not by_task:
        return Score(None, None, None, 0, unscored, {})
    interval = bootstrap_interval([sum(tries) / len(tries) for tries in by_task.values()])
    whole = [tries for tries in by_task.values() if len(tries) == repeats]
    ks = sorted({1 << power for power in range(repeats.bit_length())} | {repeats})
    return Score(
        mean=interval.mean,
        low=interval.low,
        high=interval.high,
        tasks=interval.tasks,
        unscored=unscored,
        pass_at_k={k: pass_at_k(whole, k) for k in ks if whole and k <= repeats},
    )


def _scores(
    predictions: Sequence[Prediction],
    columns: Iterable[str],
    repeats: int,
    values: Callable[[Prediction], Mapping[str, float]],
) -> dict[str, Score]:
    return {
        column: score_of(((p.task_id, values(p).get(column)) for p in predictions), repeats=repeats)
        for column in columns
    }


def _rewards(
    prediction: Prediction, names: Iterable[str], judges: Mapping[str, JudgeResult]
) -> Mapping[str, float]:
    """Its rewards; a failed rollout has 0 of each, as of the metrics, but for a judge that judged nothing at all."""
    if prediction.error is None:
        return prediction.finished.rewards
    return {name: 0.0 for name in names if name not in judges or judges[name].judged}


def _rules(predictions: Sequence[Prediction]) -> list[str]:
    """The metric that judges are compared with: exact match, or else the first that every prediction has."""
    shared = _shared(predictions)
    return ["exact_match"] if "exact_match" in shared else shared[:1]


def _shared(predictions: Sequence[Prediction]) -> list[str]:
    """Metrics that every prediction was scored by."""
    if not predictions:
        return []
    return [name for name in predictions[0].scores if all(name in p.scores for p in predictions)]


def _as_json(scores: Mapping[str, Score]) -> dict[str, Any]:
    return {name: score.as_json() for name, score in scores.items()}
