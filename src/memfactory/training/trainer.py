"""The training loop: rows in, optimizer step, weights out, and a run folder that survives any kill."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from memfactory.agents.components import ComponentLearner, load_components, save_components
from memfactory.algorithms.objective import Objective
from memfactory.core.errors import BadInput
from memfactory.core.files import new_folder, write_json
from memfactory.core.ranks import ALONE, Ranks
from memfactory.core.types import Row
from memfactory.learners.base import Learner
from memfactory.training.interrupt import StopRequest
from memfactory.training.run_folder import RunFolder
from memfactory.training.trackers.base import held_out_scores

STATE_FORMAT = 1


@dataclass
class TrainState:
    """What a checkpoint remembers besides the learner. `step` counts finished steps."""

    step: int = 0
    position: int = 0
    """How many tasks (or traces) were taken from the data so far."""
    seconds: float = 0.0
    """Wall-clock seconds spent on this run, over all its starts."""


@dataclass(frozen=True)
class Batch:
    """The rows of one step, the next data position, figures, and readable rollouts to keep."""

    rows: Sequence[Row]
    position: int
    metrics: Mapping[str, float]
    records: Sequence[Mapping[str, Any]] = ()


class RowSource(Protocol):
    """Where rows come from: rollouts of the policy (RL), or traces (supervised)."""

    def rows(self, step: int, position: int) -> Batch:
        """Make the rows of training step `step` (0-based) from data starting at `position`."""
        ...

    def sync(self, learner: Learner, version: int) -> Mapping[str, float]:
        """Hand the learner's weights to whoever samples, and check that both agree."""
        ...

    def evaluate(self, label: str, learner: Learner) -> dict[str, Any]:
        """Scores on the held-out sets now: set name → value, plus what else is worth keeping."""
        ...

    def close(self) -> None:
        """Free what it holds (engines); nothing is asked of it afterwards."""
        ...


@dataclass(frozen=True)
class Schedule:
    """How long to train and how often to save and evaluate (0: never in between)."""

    steps: int
    save_every: int = 10
    keep_last: int = 2
    eval_every: int = 0
    eval_before: bool = True
    eval_after: bool = True


class View(Protocol):
    """Whoever watches the run."""

    def start(self, step: int, steps: int) -> None: ...
    def step(self, record: Mapping[str, Any], seconds: float) -> None: ...
    def say(self, line: str) -> None: ...


@dataclass
class Trainer:
    """Runs the loop on a learner and a source of rows. Built anew for each process.

    Under several ranks all of them run the same loop; rank 0 alone decides by what is on the disk, and writes.
    """

    source: RowSource
    learner: Learner
    objective: Objective
    schedule: Schedule
    run: RunFolder
    view: View
    track: Callable[[Mapping[str, Any]], None] = lambda record: None
    components: Mapping[str, ComponentLearner] = field(default_factory=dict)
    """Parts of the agent that learn by themselves; the source lets them, the trainer saves them."""
    state: TrainState = field(default_factory=TrainState)
    started: float = field(default_factory=time.monotonic)
    """When the program's work on this run began, by time.monotonic()."""
    ranks: Ranks = ALONE

    def train(self) -> int:
        """Train to the end, or to the first signal. Returns the exit code (0, 130 or 143)."""
        self._resume()
        before = self.state.seconds

        def elapsed() -> float:
            return before + time.monotonic() - self.started

        with StopRequest() as stop:
            self.source.sync(self.learner, self.state.step)
            if self.schedule.eval_before:
                self._evaluate_once("before", 0)
            self.view.start(self.state.step, self.schedule.steps)
            while self.state.step < self.schedule.steps and not self._stopping(stop):
                record = self.step()
                self.state.seconds = elapsed()
                self._after_step(record, last=self._stopping(stop))
            if self._stopping(stop):
                self.state.seconds = elapsed()
                self._save()
                self.view.say(f"stopped after step {self.state.step}, saved; run the same command to go on")
                return stop.exit_code
            if self.schedule.eval_after:
                self._evaluate_once("after", self.schedule.steps)
            self.state.seconds = elapsed()
        self._finish()
        return 0

    def step(self) -> dict[str, Any]:
        """One step: rows, update, weights back to the sampler. Returns the metrics record."""
        clock = time.perf_counter
        start = clock()
        batch = self.source.rows(self.state.step, self.state.position)
        collected = clock()
        update = self.learner.update(batch.rows, self.objective) if batch.rows else {}
        updated = clock()
        # Also without an update: it empties the sampler's caches, which a resumed run does not have.
        sync = self.source.sync(self.learner, self.state.step + 1)
        synced = clock()
        self.state.step += 1
        self.state.position = batch.position
        if batch.records and self.ranks.first:
            self.run.write_rollouts(self.state.step, batch.records)
        record = {
            "step": self.state.step,
            **batch.metrics,
            **update,
            **sync,
            "rows": len(batch.rows),
            "seconds/collect": collected - start,
            "seconds/update": updated - collected,
            "seconds/sync": synced - updated,
            "seconds/step": synced - start,
        }
        completion = batch.metrics.get("tokens/completion", 0.0)
        record["tokens_per_second/collect"] = completion / max(collected - start, 1e-9)
        record["tokens_per_second/update"] = update.get("tokens", 0.0) / max(updated - collected, 1e-9)
        return {key: _finite(value) for key, value in record.items()}

    def _after_step(self, record: dict[str, Any], last: bool) -> None:
        if self.ranks.first:
            self.run.log_metrics(record)
        self.track(record)
        self.view.step(record, self.state.seconds)
        every = self.schedule.eval_every
        if every and self.state.step % every == 0 and self.state.step < self.schedule.steps:
            self._evaluate_once(f"step-{self.state.step}", self.state.step)
        due = self.schedule.save_every and self.state.step % self.schedule.save_every == 0
        if due or last or self.state.step == self.schedule.steps:
            self._save()

    def _evaluate_once(self, label: str, version: int) -> None:
        """Evaluate and write evaluation/<label>.json, unless a killed process already did.

        The sampler is synchronised again afterwards, so that what the evaluation left in its caches
        cannot change the next rollouts: a resumed run has no such caches. The scores are written only
        after that, because it also proves that the engine did not fail under the evaluation.
        """
        path = self.run.path / "evaluation" / f"{label}.json"
        if not self.ranks.broadcast(path.exists()):
            scores = self.source.evaluate(label, self.learner)
            self.source.sync(self.learner, version)
            if self.ranks.first:
                write_json(path, {"step": self.state.step, **scores})
            self.track(held_out_scores(self.state.step, scores))

    def _save(self) -> None:
        newest = self.ranks.broadcast(self.run.checkpoints()[-1:])
        if newest and newest[0][0] == self.state.step:
            return
        with self._written(lambda: self.run.new_checkpoint(self.state.step)) as folder:
            self.learner.save_state(folder / "learner")
            self.learner.save_policy(folder / "policy")
            if self.ranks.first:
                save_components(self.components, folder / "components")
                write_json(folder / "trainer.json", {"format": STATE_FORMAT, **vars(self.state)})
        if self.ranks.first:
            self.run.keep_last(self.schedule.keep_last)
        self.ranks.barrier()  # nobody goes on, or away, before the checkpoint is on the disk

    def _written(self, folder: Callable[[], AbstractContextManager[Path]]) -> AbstractContextManager[Path]:
        """The folder that rank 0 fills; the other ranks only take part in gathering what goes in."""
        return folder() if self.ranks.first else nullcontext(self.run.path)

    def _stopping(self, stop: StopRequest) -> bool:
        """Whether a signal has reached any rank: all of them must stop after the same step."""
        stop.signal_number = max(self.ranks.gather(stop.signal_number or 0)) or None
        return stop.signal_number is not None

    def _resume(self) -> None:
        """Go on from the newest checkpoint, forgetting what came after it; start anew without one."""
        checkpoints = self.ranks.broadcast(self.run.checkpoints())
        if checkpoints:
            _, folder = checkpoints[-1]
            self.state = _read_state(folder / "trainer.json")
            self.learner.load_state(folder / "learner")
            load_components(self.components, folder / "components")
            if self.ranks.first:
                self.run.keep_last(self.schedule.keep_last)  # a kill may have come between saving and this
            self.view.say(f"resuming after step {self.state.step} of {self.schedule.steps}")
        if self.ranks.first:
            self._forget_later_steps()

    def _forget_later_steps(self) -> None:
        self.run.rewind(self.state.step)
        for path in (self.run.path / "evaluation").glob("step-*.json"):
            if int(path.stem.removeprefix("step-")) > self.state.step:
                path.unlink()

    def _finish(self) -> None:
        """Write the trained policy to final/, as an ordinary model folder."""
        if not self.ranks.broadcast(self.run.final_path.exists()):
            with self._written(lambda: new_folder(self.run.final_path)) as folder:
                self.learner.save_policy(folder)
                if self.ranks.first:
                    save_components(self.components, folder / "components")


def _read_state(path: Path) -> TrainState:
    try:
        value = json.loads(path.read_text())
        if value.pop("format") != STATE_FORMAT:
            raise BadInput(f"{path}: written by another version of MemFactory; use --fresh or that version")
        return TrainState(**value)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise BadInput(
            f"{path}: not a readable checkpoint ({error}); delete its folder to use an older one"
        ) from error


def _finite(value: Any) -> Any:
    return None if isinstance(value, float) and not math.isfinite(value) else value
