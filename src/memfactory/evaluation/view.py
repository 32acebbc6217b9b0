"""What a person sees while an evaluation runs: a bar on a terminal, plain lines elsewhere, with the running score."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
)

from memfactory.evaluation.metrics import label
from memfactory.evaluation.predictions import Prediction
from memfactory.evaluation.runner import OnPrediction

_SECONDS_BETWEEN_LINES = 15.0


class RunningScore:
    """The mean of one metric over the predictions so far."""

    def __init__(self, metric: str) -> None:
        self.metric = metric
        self.done = 0
        self.made = 0
        self._scored = 0
        self._sum = 0.0

    def add(self, prediction: Prediction, made: bool) -> None:
        """Take one more prediction into the mean; `made`: it is not one of an earlier start."""
        self.done += 1
        self.made += made
        if self.metric in prediction.scores:
            self._scored += 1
            self._sum += prediction.scores[self.metric]

    def __str__(self) -> str:
        value = f"{100 * self._sum / self._scored:.1f}" if self._scored else "–"
        return f"{label(self.metric)} {value}"


def seconds_left(elapsed: float, done: int, total: int, at_once: int) -> float:
    """How long the rest takes, when `done` of `total` rollouts were made in the `elapsed` seconds since the start.

    The others of the `at_once` under way count as half done. Where all began together they end soon after each other:
    by the first one alone the rest would seem to take many times as long as it does.
    """
    worked = done + min(at_once - 1, total - done) / 2
    return elapsed / worked * (total - worked)


class EvalView:
    """Shows how many rollouts of a set are done, the running score, and the time left."""

    def __init__(self, console: Console) -> None:
        self.console = console

    @contextmanager
    def watching(self, what: str, total: int, metric: str, at_once: int) -> Iterator[OnPrediction]:
        """While `total` rollouts are made, `at_once` of them at a time, show where it stands.

        Yields what to call with each prediction.
        """
        running = RunningScore(metric)
        if not self.console.is_terminal:
            yield self._lines(what, total, running, at_once)
            return
        bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=30),
            MofNCompleteColumn(),
            TextColumn("{task.fields[score]}"),
            TimeElapsedColumn(),
            TextColumn("{task.fields[left]}"),
            console=self.console,
            transient=True,
        )
        started = time.monotonic()
        with bar:
            shown = bar.add_task(what, total=total, score="", left="")

            def on_prediction(prediction: Prediction, made: bool) -> None:
                running.add(prediction, made)
                left = self._left(started, running, total, at_once) if made else ""
                bar.update(shown, completed=running.done, score=str(running), left=left)

            yield on_prediction

    def _lines(self, what: str, total: int, running: RunningScore, at_once: int) -> OnPrediction:
        started = last = time.monotonic()
        self._say(f"{what}: {total} rollouts")

        def on_prediction(prediction: Prediction, made: bool) -> None:
            nonlocal last
            running.add(prediction, made)
            now = time.monotonic()
            if made and now - last > _SECONDS_BETWEEN_LINES and running.done < total:
                last = now
                left = self._left(started, running, total, at_once, now)
                self._say(f"{what}: {running.done}/{total}  {running}  {left}")

        return on_prediction

    @staticmethod
    def _left(
        started: float, running: RunningScore, total: int, at_once: int, now: float | None = None
    ) -> str:
        """What was there already took no time, so it tells nothing about the rest."""
        elapsed = (time.monotonic() if now is None else now) - started
        to_make = total - (running.done - running.made)
        return f"about {seconds_left(elapsed, running.made, to_make, at_once):,.0f} s left"

    def _say(self, line: str) -> None:
        self.console.print(line, highlight=False, markup=False, soft_wrap=True)
