"""What a person sees while a run trains: a progress bar on a terminal, plain lines elsewhere."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime
from types import TracebackType
from typing import Any

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from memfactory.core.texts import plain

_SECONDS_BETWEEN_LINES = 15.0
_UPDATE_SPEED = ("tokens_per_second/update", "update tok/s", ",.0f")
_RL_FIGURES = (
    ("reward", "reward", ".3f"),
    ("tokens_per_second/collect", "rollout tok/s", ",.0f"),
    _UPDATE_SPEED,
)
_SFT_FIGURES = (("loss", "loss", ".3f"), _UPDATE_SPEED)


class TrainingView:
    """Shows step, reward (or loss), tokens per second and time left."""

    def __init__(self, console: Console) -> None:
        self.console = console
        self._bar: Progress | None = None
        self._task: TaskID | None = None
        self._steps = 0
        self._last_line = 0.0
        self._log: Callable[[str], None] | None = None
        self._said_before: list[str] = []

    def __enter__(self) -> TrainingView:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._close()

    def start(self, step: int, steps: int) -> None:
        """Begin showing progress of `steps` steps, of which `step` are done."""
        self._steps = steps
        if self.console.is_terminal and step < steps:
            self._bar = Progress(
                TextColumn("training"),
                BarColumn(bar_width=30),
                MofNCompleteColumn(),
                TextColumn("{task.fields[figures]}"),
                TimeElapsedColumn(),
                TextColumn("left"),
                TimeRemainingColumn(),
                console=self.console,
            )
            self._bar.start()
            self._task = self._bar.add_task("training", total=steps, completed=step, figures="")

    def step(self, record: Mapping[str, Any], seconds: float) -> None:
        """Show a finished step. `seconds` is the time spent on the run so far."""
        figures = _figures(record)
        if self._bar is not None and self._task is not None:
            self._bar.update(self._task, completed=record["step"], figures=figures)
        now = time.monotonic()
        if self._bar is None and (
            now - self._last_line > _SECONDS_BETWEEN_LINES or record["step"] == self._steps
        ):
            self._last_line = now
            self.say(f"step {record['step']}/{self._steps}  {figures}  {seconds:.0f} s")
        if record["step"] == self._steps:
            self._close()

    def say(self, line: str) -> None:
        """Print one line above the bar, and note it in the log."""
        self.console.print(line, highlight=False, markup=False, soft_wrap=True)
        self._note(plain(line))

    def log_to(self, append: Callable[[str], None]) -> None:
        """From now on hand on lines, with their time, for a log file; those first that were said before."""
        self._log = append
        for line in self._said_before:
            self._note(line)
        self._said_before.clear()

    @contextmanager
    def counting(self, what: str, total: int) -> Iterator[Callable[..., None]]:
        """While `total` things are done, show how many are; yields what to call with each and what is known of it."""
        if not self.console.is_terminal:
            self.say(what)
            yield lambda *done: None
            return
        columns = (TextColumn(what), BarColumn(bar_width=30), MofNCompleteColumn(), TimeRemainingColumn())
        with Progress(*columns, console=self.console, transient=True) as bar:
            task = bar.add_task(what, total=total)
            yield lambda *done: bar.advance(task)
        self._note(what)

    def _note(self, line: str) -> None:
        if self._log is None:
            self._said_before.append(line)
        else:
            self._log(f"{datetime.now().isoformat(timespec='seconds')} {line}\n")

    def _close(self) -> None:
        if self._bar is not None:
            self._bar.stop()
            self._bar = None


def _figures(record: Mapping[str, Any]) -> str:
    shown = _RL_FIGURES if "reward" in record else _SFT_FIGURES
    return "  ".join(
        f"{label} {record[key]:{form}}" for key, label, form in shown if record.get(key) is not None
    )
