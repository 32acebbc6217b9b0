"""Scoring an agent on held-out tasks: the same rollouts as in training, then metrics on the answers."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field

from memfactory.core.errors import ServiceError
from memfactory.core.types import Rollout, Task, summed
from memfactory.evaluation.cost import Cost, PeakMemory
from memfactory.evaluation.journal import Journal, Key, Line
from memfactory.evaluation.metrics import BATCHED, DEFAULT_METRICS, BatchMetric
from memfactory.evaluation.predictions import (
    Prediction,
    digest,
    finish,
    predict,
    score,
    score_together,
    whole_digest,
)
from memfactory.evaluation.scores import SetResult, summarise_set
from memfactory.rollouts.collect import Collector

__all__ = ["Prediction", "SetResult", "Settings", "evaluate_set", "evaluate_sets", "predict"]

#: Told of every prediction, and whether it was just made (else it was in the journal).
OnPrediction = Callable[[Prediction, bool], None]


@dataclass(frozen=True)
class Settings:
    """`repeats` rollouts of each task; the first `log_rollouts` of a set keep their calls.

    They are scored by `metrics`; None is the usual ones and the one that tasks name themselves. `batched` are the
    metrics that score a set's answers all at once, when the last rollout is done.
    """

    repeats: int = 1
    metrics: tuple[str, ...] | None = None
    log_rollouts: int = 0
    batched: Mapping[str, BatchMetric] = field(default_factory=lambda: dict(BATCHED))


def evaluate_set(
    collector: Collector,
    name: str,
    tasks: Sequence[Task],
    *,
    repeats: int = 1,
    phase: str,
    settings: Settings | None = None,
    journal: Journal | None = None,
    on_prediction: OnPrediction | None = None,
) -> SetResult:
    """Run `repeats` rollouts of each task and score them. `phase` enters the sampling seeds.

    Rollouts that are in the journal are not made again; finished ones are added to it. `settings` win over
    `repeats`. Raises `ServiceError`, saying how many are left, when a service lost a rollout: no score is made of
    what is there, and what was finished stays in the journal.
    """
    settings = settings or Settings(repeats=repeats)
    run = _SetRun(name, settings, journal, on_prediction)
    with PeakMemory() as memory:
        run.memory = memory
        collector.work_off(run.jobs(tasks), phase, run.done)
    if run.lost is not None:
        missing = len(tasks) * settings.repeats - len(run.predictions)
        raise ServiceError(
            f"{run.lost} ({missing} of {len(tasks) * settings.repeats} rollouts of set '{name}' are not finished, "
            f"so there is no score)"
        )
    return run.result()


def evaluate_sets(
    collector: Collector,
    sets: Mapping[str, Sequence[Task]],
    *,
    settings: Settings,
    watch: Callable[[str, int], AbstractContextManager[OnPrediction]],
    journal: Journal | None = None,
) -> dict[str, SetResult]:
    """Evaluate one set after the other. `watch(name, rollouts)` gives what to call after each rollout."""
    results = {}
    for name, tasks in sets.items():
        with watch(name, len(tasks) * settings.repeats) as on_prediction:
            results[name] = evaluate_set(
                collector,
                name,
                tasks,
                phase=f"eval-{name}",
                settings=settings,
                journal=journal,
                on_prediction=on_prediction,
            )
    return results


class _SetRun:
    """One pass over a set: which rollouts are still to be made, and what came of all of them."""

    def __init__(
        self, name: str, settings: Settings, journal: Journal | None, on_prediction: OnPrediction | None
    ) -> None:
        self.name = name
        self.settings = settings
        self.journal = journal
        self.on_prediction = on_prediction
        self.memory: PeakMemory | None = None
        self.predictions: dict[tuple[int, int], Prediction] = {}
        self.lost: str | None = None
        self._started = time.perf_counter()
        self._places: dict[tuple[str, int], tuple[int, str, Key]] = {}
        self._session = f"{time.time():.6f}" if journal is None else journal.session
        self._lines: list[Line] = []

    def jobs(self, tasks: Sequence[Task]) -> Iterator[tuple[Task, int]]:
        """The rollouts that are not in the journal, in order; tasks are read when their turn comes."""
        for number in range(len(tasks)):
            task = tasks[number]
            task_digest = digest(task)
            whole = whole_digest(task, task_digest)
            for index in range(self.settings.repeats):
                key = Key(self.name, task.id, whole, index)
                line = self.journal and self.journal.get(key)
                if line:
                    self._lines.append(line)
                    prediction = score(task, index, line.finished, self.settings.metrics, task_digest)
                    self._keep(number, prediction, made=False)
                else:
                    self._places[task.id, index] = (number, task_digest, key)
                    yield task, index

    def done(self, rollout: Rollout) -> None:
        """Keep a finished rollout, note one that a service lost."""
        if rollout.lost:
            self.lost = self.lost or rollout.error
            return
        task, index = rollout.task, rollout.index
        number, task_digest, key = self._places.pop((task.id, index))
        trace = number * self.settings.repeats + index < self.settings.log_rollouts
        finished = finish(rollout, trace=trace)
        assert self.memory is not None
        clock = round(time.perf_counter() - self._started, 3)
        line = Line(finished, self._session, clock, self.memory.bytes, self.memory.gpu_bytes)
        self._lines.append(line)
        # What a judge failed on is made again by the next start, so that the judge is asked again.
        if self.journal is not None and finished.judged:
            self.journal.add(key, line)
        self._keep(number, score(task, index, finished, self.settings.metrics, task_digest), made=True)

    def result(self) -> SetResult:
        """The set's figures, predictions in the order of the tasks."""
        metrics = self.settings.metrics or DEFAULT_METRICS
        predictions = [prediction for _, prediction in sorted(self.predictions.items())]
        return summarise_set(
            self.name,
            score_together(predictions, metrics, self.settings.batched),
            repeats=self.settings.repeats,
            metrics=metrics,
            cost=self._cost(),
        )

    def _keep(self, number: int, prediction: Prediction, *, made: bool) -> None:
        self.predictions[number, prediction.index] = prediction
        if self.on_prediction is not None:
            self.on_prediction(prediction, made)

    def _cost(self) -> Cost:
        """Of all that the lines say, so that it is the same whether they were made now or earlier."""
        clocks: dict[str, float] = {}
        for line in self._lines:
            clocks[line.session] = max(clocks.get(line.session, 0.0), line.clock)
        verdicts = [verdict for line in self._lines for verdict in line.finished.verdicts.values()]
        asked = [verdict.usage for verdict in verdicts if verdict.usage is not None]
        gpu = [line.peak_gpu_memory for line in self._lines if line.peak_gpu_memory is not None]
        return Cost(
            calls=sum(line.finished.calls for line in self._lines),
            prompt_tokens=summed(line.finished.prompt_tokens for line in self._lines),
            completion_tokens=summed(line.finished.completion_tokens for line in self._lines),
            seconds=round(sum(clocks.values()), 3),
            peak_memory_bytes=max((line.peak_memory for line in self._lines), default=0),
            peak_gpu_memory_bytes=max(gpu, default=None),
            judge_calls=len(asked),
            judge_prompt_tokens=summed(usage.prompt_tokens for usage in asked),
            judge_completion_tokens=summed(usage.completion_tokens for usage in asked),
        )
