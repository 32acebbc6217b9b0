"""Rows made beside the update: which weights make which step's, and what a resumed run has of them."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from memfactory.algorithms.objective import Objective
from memfactory.core.errors import BadInput, ServiceError
from memfactory.core.types import Row
from memfactory.training.ahead import Background, Batch, load_batch, save_batch
from memfactory.training.run_folder import RunFolder
from memfactory.training.trainer import Schedule, Trainer
from tests.unit.fakes import FakeLearner


class VersionedSource:
    """Its rows carry the version of the weights that the sampler had while they were made."""

    def __init__(self) -> None:
        self.version = -1
        self.made: dict[int, int] = {}
        self.evaluated: dict[str, int] = {}
        self.fail_at: int | None = None
        self.pause = 0.0
        self.collecting = threading.Event()

    def rows(self, step: int, position: int) -> Batch:
        self.collecting.set()
        version = self.version
        time.sleep(self.pause)
        if step == self.fail_at:
            raise ServiceError("no server is left")
        assert self.version == version, "weights changed under running rollouts"
        self.made[step] = version
        row = Row((1,), (2,), (-0.1,), float(version), step)
        return Batch([row], position + 2, {"reward": float(step)}, [{"step": step}])

    def sync(self, learner: Any, version: int) -> Mapping[str, float]:
        assert learner.updates == version, "the sampler gets the learner's weights as they are now"
        self.version = version
        return {}

    def rest(self) -> None:
        raise AssertionError("rollouts run during the update")

    def evaluate(self, label: str, learner: Any) -> dict[str, Any]:
        assert self.version == learner.updates
        self.evaluated[label] = self.version
        return {"sets": {}}

    def close(self) -> None: ...


class RecordingLearner(FakeLearner):
    """Notes the rows of each update; an update takes `pause` seconds."""

    def __init__(self, pause: float = 0.0) -> None:
        super().__init__([])
        self.pause = pause
        self.rows: list[Row] = []

    def update(self, rows: Any, objective: Any, planned: int | None = None) -> dict[str, float]:
        self.rows += rows
        time.sleep(self.pause)
        return super().update(rows, objective)


class Quiet:
    def start(self, step: int, steps: int) -> None: ...
    def step(self, record: Mapping[str, Any], seconds: float) -> None: ...
    def say(self, line: str) -> None: ...


def trainer(folder: Path, source: VersionedSource, learner: RecordingLearner, **schedule: Any) -> Trainer:
    plan = Schedule(**{"steps": 5, "eval_before": False, "eval_after": False, "max_staleness": 1, **schedule})
    return Trainer(source, learner, Objective(), plan, RunFolder(folder), Quiet())


@pytest.mark.parametrize(("collect", "update"), [(0.02, 0.0), (0.0, 0.02)])
def test_step_k_plus_1_always_comes_from_the_weights_after_step_k_minus_1(
    tmp_path: Path, collect: float, update: float
) -> None:
    source, learner = VersionedSource(), RecordingLearner(update)
    source.pause = collect
    assert trainer(tmp_path, source, learner, eval_every=2, eval_before=True, eval_after=True).train() == 0
    assert source.made == {0: 0, 1: 0, 2: 1, 3: 2, 4: 3}
    assert [(row.rollout_id, row.advantage) for row in learner.rows] == [
        (0, 0.0),
        (1, 0.0),
        (2, 1.0),
        (3, 2.0),
        (4, 3.0),
    ]
    # Evaluations are of the learner's weights, not of those that make the rollouts.
    assert source.evaluated == {"before": 0, "step-2": 2, "step-4": 4, "after": 5}
    records = RunFolder(tmp_path).metrics()
    assert [record["reward"] for record in records] == [0.0, 1.0, 2.0, 3.0, 4.0]
    assert [json.loads((tmp_path / f"rollouts/step-{n}.jsonl").read_text())["step"] for n in (1, 5)] == [0, 4]


def test_a_resumed_run_learns_from_the_same_rows(tmp_path: Path) -> None:
    whole, killed, again = RecordingLearner(), RecordingLearner(), RecordingLearner()
    assert trainer(tmp_path / "whole", VersionedSource(), whole).train() == 0
    source = VersionedSource()
    source.fail_at = 4
    broken = trainer(tmp_path / "killed", source, killed, save_every=2)
    with pytest.raises(ServiceError, match="no server is left"):
        broken.train()  # in step 4 (of 5), whose rows are lost with those of step 5
    broken.run.release()
    resumed = VersionedSource()
    run = trainer(tmp_path / "killed", resumed, again, save_every=2)
    assert run.train() == 0
    assert resumed.made == {3: 2, 4: 3}  # step 2's rows were in the checkpoint
    assert killed.rows[:2] + again.rows == whole.rows
    assert run.state.position == 10


def test_rollouts_and_update_run_at_the_same_time(tmp_path: Path) -> None:
    source, learner = VersionedSource(), RecordingLearner(0.5)
    source.pause = 0.5
    trainer(tmp_path, source, learner, steps=4).train()
    records = RunFolder(tmp_path).metrics()[1:-1]  # the first waits for its own rollouts, the last makes none
    for record in records:
        longest = max(record["seconds/collect"], record["seconds/update"])
        assert record["seconds/step"] < 0.8 * (record["seconds/collect"] + record["seconds/update"])
        assert record["seconds/step"] >= longest - 0.01
        assert record["seconds/wait"] >= 0


def test_what_a_background_call_raises_comes_out_once_it_is_asked_for() -> None:
    def fail() -> Batch:
        raise ServiceError("gone")

    with pytest.raises(ServiceError, match="gone"):
        Background(fail).result()


def test_a_batch_comes_back_exactly_and_a_broken_file_is_named(tmp_path: Path) -> None:
    rows = [Row((1, 2), (3,), (-0.1234567890123456,), 1 / 3, 7, "updater"), Row((4,), (), (), -2.5, 8)]
    batch = Batch(rows, 12, {"reward": 0.1 + 0.2}, [{"reply": "é\ud800"}])
    save_batch(tmp_path / "ahead.json", batch)
    assert load_batch(tmp_path / "ahead.json") == batch
    for broken in (
        "{",
        "[]",
        '{"format": 1}',
        '{"format": 9}',
        '{"format": 1, "position": 1, "rows": [{"a": 1}]}',
    ):
        (tmp_path / "broken.json").write_text(broken)
        with pytest.raises(BadInput, match=r"broken\.json"):
            load_batch(tmp_path / "broken.json")
    with pytest.raises(BadInput, match=r"missing\.json"):
        load_batch(tmp_path / "missing.json")
