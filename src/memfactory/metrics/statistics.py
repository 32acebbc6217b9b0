"""What several scores say together: avg@k, pass@k, bootstrap intervals, paired differences.

The unit of resampling is the task: repeats of one task are not independent, so they are averaged first.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import comb

from memfactory.core.errors import BadInput


@dataclass(frozen=True)
class Interval:
    """A mean and the bounds of its confidence interval, over `tasks` tasks."""

    mean: float
    low: float
    high: float
    tasks: int


@dataclass(frozen=True)
class PairedDifference:
    """Mean difference over the same tasks, with its interval; `shown` is false where that includes 0."""

    difference: float
    low: float
    high: float
    tasks: int

    @property
    def shown(self) -> bool:
        """Whether the data show a difference at all."""
        return self.low > 0 or self.high < 0


def avg_at_k(scores: Sequence[Sequence[float]]) -> float:
    """avg@k: mean over tasks of the mean over a task's k scores. Raises `ValueError` if any is empty."""
    return _mean([_mean(task) for task in scores])


def pass_at_k(scores: Sequence[Sequence[float]], k: int, threshold: float = 1.0) -> float:
    """pass@k: mean over tasks of the chance that k of its n tries, drawn without return, hold a success.

    A try succeeds when its score is at least `threshold`. The unbiased estimate 1 - C(n - c, k) / C(n, k)
    of Chen et al. 2021 (arXiv 2107.03374), n tries with c successes. Raises `ValueError` if k < 1 or a task
    has fewer than k tries.
    """
    return _mean([_pass_at_k(len(task), sum(score >= threshold for score in task), k) for task in scores])


def bootstrap_interval(
    values: Sequence[float], *, confidence: float = 0.95, resamples: int = 10_000, seed: int = 0
) -> Interval:
    """Mean of one value a task, with its percentile bootstrap interval; a function of values and seed.

    Raises `ValueError` on no values or a confidence outside (0, 1).
    """
    import numpy

    if not 0 < confidence < 1:
        raise ValueError(f"confidence must lie between 0 and 1, not {confidence}")
    mean = _mean(values)
    data = numpy.asarray(values, dtype=numpy.float64)
    rng = numpy.random.default_rng(seed)
    means = numpy.empty(resamples)
    rows = max(1, 2_000_000 // len(data))  # a few MB at a time
    for start in range(0, resamples, rows):
        stop = min(start + rows, resamples)
        means[start:stop] = data[rng.integers(0, len(data), size=(stop - start, len(data)))].mean(axis=1)
    tail = (1 - confidence) / 2
    low, high = numpy.quantile(means, [tail, 1 - tail])
    return Interval(mean, float(low), float(high), len(data))


def paired_difference(
    before: Mapping[str, float],
    after: Mapping[str, float],
    *,
    confidence: float = 0.95,
    resamples: int = 10_000,
    seed: int = 0,
) -> PairedDifference:
    """Difference after - before of two runs over the tasks that both have, which are resampled in pairs.

    The mappings go from task id to that task's (mean) score. Raises `BadInput` when they share no task.
    """
    shared = sorted(before.keys() & after.keys())
    if not shared:
        raise BadInput("the two runs have no task in common: nothing can be compared")
    deltas = [after[task] - before[task] for task in shared]
    found = bootstrap_interval(deltas, confidence=confidence, resamples=resamples, seed=seed)
    return PairedDifference(found.mean, found.low, found.high, found.tasks)


def _mean(values: Sequence[float]) -> float:
    if not values:
        raise ValueError("no scores to average")
    return sum(values) / len(values)


def _pass_at_k(tries: int, successes: int, k: int) -> float:
    if not 1 <= k <= tries:
        raise ValueError(f"pass@{k} needs at least {max(k, 1)} tries a task, one has {tries}")
    return 1 - comb(tries - successes, k) / comb(tries, k)
