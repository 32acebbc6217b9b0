"""The training loop: rows in, optimizer step, weights out, and a run folder that survives any kill."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from memfactory.agents.components import ComponentLearner, load_components, save_components
from memfactory.algorithms.objective import Objective
from memfactory.core.errors import UserError
from memfactory.core.ranks import ALONE, Ranks
from memfactory.core.types import Row
from memfactory.learners.base import Learner
from memfactory.training.ahead import Background, Collected, load_batch, save_batch, timed
from memfactory.training.ahead import Batch as Batch  # sources of rows look for it here
from memfactory.training.interrupt import StopRequest
from memfactory.training.run_folder import RunFolder
from memfactory.training.stalls import Stalls
from memfactory.training.state import TrainState, read_state, write_state
from memfactory.training.trackers.base import held_out_scores

_AHEAD = "ahead.json"


class RowSource(Protocol):
    """Where rows come from: rollouts of the policy (RL), or traces (supervised)."""

    def rows(self, step: int, position: int) -> Batch:
        """Make the rows of training step `step` (0-based) from data starting at `position`."""
        ...

    def sync(self, learner: Learner, version: int) -> Mapping[str, float]:
        """Hand the learner's weights to whoever samples, and check that both agree."""
        ...

    def rest(self) -> None:
        """No rollouts until the next sync: whoever samples may give its memory to the update."""
        ...

    def evaluate(self, label: str, learner: Learner) -> dict[str, Any]:
        """Scores on the held-out sets now: set name → value, plus what else is worth keeping."""
        ...

    def close(self) -> None:
        """Free what it holds (engines); nothing is asked of it afterwards."""
        ...


@dataclass(frozen=True)
class Schedule:
    """How long to train and how often to save and evaluate (0: never in between).

    With `max_staleness` 1 the rows of the next step are made while the learner works on this one (see `ahead`).
    """

    steps: int
    save_every: int = 10
    keep_last: int = 2
    eval_every: int = 0
    eval_before: bool = True
    eval_after: bool = True
    max_staleness: int = 0


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
    ahead: Batch | None = None
    """The rows of the next step, if they are made ahead and there already."""
    _probe: Row | None = None
    _stalls: Stalls = field(default_factory=Stalls)
    _stop: StopRequest = field(default_factory=StopRequest)
    _saved: int | None = None
    """The step of the newest checkpoint."""

    def train(self) -> int:
        """Train to the end, or to the first signal. Returns the exit code (0, 130 or 143)."""
        self._resume()
        before = self.state.seconds

        def elapsed() -> float:
            return before + time.monotonic() - self.started

        with StopRequest() as stop:
            self._stop = stop
            with stop.at_once():  # nothing was done yet that could be lost
                self.source.sync(self.learner, self.state.step)
            if self.schedule.eval_before:
                self._evaluate_once("before", 0)
            self._evaluate_due()  # a stop may have come between the checkpoint and its evaluation
            self._stalls = Stalls(self.run.metrics() if self.ranks.first else ())
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
        return self._step_ahead() if self.schedule.max_staleness else self._step_in_turn()

    def _step_in_turn(self) -> dict[str, Any]:
        clock = time.perf_counter
        start = clock()
        collected = timed(lambda: self.source.rows(self.state.step, self.state.position))
        batch = collected.batch
        before = clock()
        self.source.rest()
        update = self._update(batch)
        updated = clock()
        # Also without an update: it empties the sampler's caches, which a resumed run does not have.
        sync = self.source.sync(self.learner, self.state.step + 1)
        synced = clock()
        seconds = {"update": updated - before, "sync": synced - updated, "step": synced - start}
        return self._step_done(batch, collected, update, sync, seconds)

    def _step_ahead(self) -> dict[str, Any]:
        """A step whose rows are there (but for the first): the next step's are made beside the update."""
        clock = time.perf_counter
        step = self.state.step
        start = clock()
        # The very first batch has nothing to run beside.
        batch = self.ahead if self.ahead is not None else self.source.rows(step, self.state.position)
        begun = clock()
        # Step k+1 draws from the weights before update k: the learner's as they are now, and nobody changes them yet.
        sync = self.source.sync(self.learner, step)
        synced = clock()
        following = batch.position
        background = None
        if step + 1 < self.schedule.steps:
            background = Background(lambda: self.source.rows(step + 1, following))
        update = self._update(batch)
        updated = clock()
        collected = background.result() if background is not None else None
        end = clock()
        self.ahead = collected.batch if collected is not None else None
        seconds = {
            "update": updated - synced,
            "sync": synced - begun,
            "wait": end - updated,
            "step": end - start,
        }
        return self._step_done(batch, collected, update, sync, seconds)

    def _update(self, batch: Batch) -> Mapping[str, float]:
        """Learn from the batch. The learning rate follows the plan, in which steps without rows have their place."""
        if not batch.rows:
            return {}
        update = self.learner.update(batch.rows, self.objective, self.state.step * self.objective.steps)
        if update.get("steps"):
            self._probe = min(batch.rows, key=lambda row: len(row.prompt_ids))
        return update

    def _step_done(
        self,
        batch: Batch,
        collected: Collected | None,
        update: Mapping[str, float],
        sync: Mapping[str, float],
        seconds: Mapping[str, float],
    ) -> dict[str, Any]:
        """Count the step, write its rollouts; its record tells of the rollouts that were `collected` meanwhile."""
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
            **({"seconds/collect": collected.seconds} if collected is not None else {}),
            **{f"seconds/{name}": value for name, value in seconds.items()},
        }
        if collected is not None:
            completion = collected.batch.metrics.get("tokens/completion", 0.0)
            record["tokens_per_second/collect"] = completion / max(collected.seconds, 1e-9)
        record["tokens_per_second/update"] = update.get("tokens", 0.0) / max(seconds["update"], 1e-9)
        return {key: _finite(value) for key, value in record.items()}

    def _after_step(self, record: dict[str, Any], last: bool) -> None:
        if self.ranks.first:
            self.run.log_metrics(record)
        self.track(record)
        self.view.step(record, self.state.seconds)
        warning = self._stalls.note(record)
        if warning is not None:
            self.view.say(f"warning: step {self.state.step}: {warning}")
        due = self.schedule.save_every and self.state.step % self.schedule.save_every == 0
        if due or last or self._evaluates() or self.state.step == self.schedule.steps:
            self._save()
        if not last:
            self._evaluate_due()

    def _evaluates(self) -> bool:
        """Whether the held-out sets are evaluated after this step."""
        every, step = self.schedule.eval_every, self.state.step
        return bool(every) and 0 < step < self.schedule.steps and step % every == 0

    def _evaluate_due(self) -> None:
        """Evaluate after this step, if that is due; the checkpoint is there already, so a stop loses nothing."""
        if self._evaluates():
            self._evaluate_once(f"step-{self.state.step}", self.state.step)

    def _evaluate_once(self, label: str, version: int) -> None:
        """Evaluate and write evaluation/<label>.json, unless a killed process already did.

        The sampler is synchronised again afterwards, so that what the evaluation left in its caches
        cannot change the next rollouts: a resumed run has no such caches. The scores are written only
        after that, because it also proves that the engine did not fail under the evaluation.
        """
        path = self.run.evaluation_path / f"{label}.json"
        if not self.ranks.broadcast(path.exists()):
            if self.schedule.max_staleness:
                self.source.sync(
                    self.learner, version
                )  # the sampler still has the weights before the last update
            with self._stop.at_once():
                scores = self.source.evaluate(label, self.learner)
            self.source.sync(self.learner, version)
            if self.ranks.first:
                self.run.written.replace_json(path, {"step": self.state.step, **scores})
            self.track(held_out_scores(self.state.step, scores))

    def _save(self) -> None:
        if self._saved == self.state.step:
            return
        self._require_numbers()
        with self._written(lambda: self.run.new_checkpoint(self.state.step)) as folder:
            self.learner.save_state(folder / "learner")
            self.learner.save_policy(folder / "policy")
            if self.ranks.first:
                save_components(self.components, folder / "components")
                write_state(folder, self.state)
                if self.ahead is not None:
                    save_batch(folder / _AHEAD, self.ahead)
        self._saved = self.state.step
        if self.ranks.first:
            self.run.checkpoints.keep_last(self.schedule.keep_last, self.view.say)
        self.ranks.barrier()  # nobody goes on, or away, before the checkpoint is on the disk

    def _require_numbers(self) -> None:
        """Refuse to save weights that score one of the last rows as no number: the checkpoint before is good."""
        if self._probe is None:
            return
        (scores,) = self.learner.logprobs([self._probe], self.objective.temperature)
        if not all(math.isfinite(score) for score in scores):
            raise UserError(
                f"step {self.state.step}: the new weights give no numbers any more, so they are not saved; lower "
                "learner.lr, and go on from the last checkpoint"
            )

    def _written(self, folder: Callable[[], AbstractContextManager[Path]]) -> AbstractContextManager[Path]:
        """The folder that rank 0 fills; the other ranks only take part in gathering what goes in."""
        return folder() if self.ranks.first else nullcontext(self.run.path)

    def _stopping(self, stop: StopRequest) -> bool:
        """Whether a signal has reached any rank: all of them must stop after the same step."""
        stop.signal_number = max(self.ranks.gather(stop.signal_number or 0)) or None
        return stop.signal_number is not None

    def _resume(self) -> None:
        """Go on from the newest whole checkpoint, forgetting what came after it; start anew without one."""
        found = self.run.checkpoints.newest_whole(self.view.say) if self.ranks.first else None
        newest = self.ranks.broadcast(found)
        if newest is not None:
            self._saved, folder = newest
            self.state, _ = read_state(folder)
            self.learner.load_state(folder / "learner")
            load_components(self.components, folder / "components")
            if self.schedule.max_staleness and self.state.step < self.schedule.steps:
                self.ahead = load_batch(folder / _AHEAD)
            if self.ranks.first:
                # A kill may have come between saving and this.
                self.run.checkpoints.keep_last(self.schedule.keep_last, self.view.say)
            self.view.say(f"resuming after step {self.state.step} of {self.schedule.steps}")
        if self.ranks.first:
            self.run.rewind(self.state.step)

    def _finish(self) -> None:
        """Write the trained policy to final/, as an ordinary model folder."""
        if not self.ranks.broadcast(self.ranks.first and self.run.final_is_whole()):
            with self._written(self.run.new_final) as folder:
                self.learner.save_policy(folder)
                if self.ranks.first:
                    save_components(self.components, folder / "components")


def _finite(value: Any) -> Any:
    return None if isinstance(value, float) and not math.isfinite(value) else value
