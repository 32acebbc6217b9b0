"""Trackers: TensorBoard's files read back by its own reader, the services by stand-ins with their signatures.

The stand-ins take exactly the arguments that wandb 0.31, trackio 0.43 and swanlab 0.10 name and that we use.
"""

from __future__ import annotations

import importlib.util
import math
import sys
from collections.abc import Mapping
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from memfactory.cli.main import run
from memfactory.core.errors import BadInput, ServiceError
from memfactory.recipe.build import build_component
from memfactory.recipe.components import load_components
from memfactory.training.run_folder import RunFolder
from memfactory.training.trackers.base import (
    GuardedTracker,
    NoTracker,
    TrackedRun,
    held_out_scores,
    numbers,
    tracked_run,
)
from memfactory.training.trackers.tensorboard import TensorBoardTracker

load_components()
SERVICES = ("wandb", "trackio", "swanlab")


def tracked(folder: Path, step: int = 0) -> TrackedRun:
    return TrackedRun("abc123", "demo", folder, step, {"seed": 1, "model": {"path": "tiny"}})


# --- TensorBoard, for real -----------------------------------------------------------------------


def scalars(folder: Path) -> dict[str, list[tuple[int, float]]]:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(folder), purge_orphaned_data=True)
    events.Reload()
    return {
        tag: [(event.step, round(event.value, 4)) for event in events.Scalars(tag)]
        for tag in events.Tags()["scalars"]
    }


def test_tensorboard_reads_what_was_logged_and_a_resumed_run_replaces_what_it_makes_again(
    tmp_path: Path,
) -> None:
    first = TensorBoardTracker(folder="tensorboard", flush_seconds=30)
    first.start(tracked(tmp_path))
    first.log({"step": 0, "held_out/1x/exact_match": 0.25})
    for step in (1, 2, 3):
        first.log({"step": step, "reward": step / 10})
    first.finish()
    assert scalars(tmp_path / "tensorboard") == {
        "held_out/1x/exact_match": [(0, 0.25)],
        "reward": [(1, 0.1), (2, 0.2), (3, 0.3)],
    }
    # Killed after step 3, with a checkpoint of step 2.
    again = TensorBoardTracker(folder="tensorboard", flush_seconds=30)
    again.start(tracked(tmp_path, step=2))
    for step in (3, 4):
        again.log({"step": step, "reward": step})
    again.finish()
    assert scalars(tmp_path / "tensorboard")["reward"] == [(1, 0.1), (2, 0.2), (3, 3.0), (4, 4.0)]


# --- the services, by stand-ins ------------------------------------------------------------------


class FakeRun:
    """Notes what it is told; takes what the real run objects take."""

    def __init__(self, notes: list[Any], with_step: bool) -> None:
        self.notes = notes
        self.with_step = with_step

    def log(self, data: dict[str, Any], step: int | None = None) -> None:
        assert (step is not None) == self.with_step
        self.notes.append(("log", step, data))

    def define_metric(self, name: str, step_metric: str | None = None) -> None:
        self.notes.append(("define", name, step_metric))

    def finish(self) -> None:
        self.notes.append("finish")


def fake_service(name: str, monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    notes: list[Any] = []
    module = ModuleType(name)
    module.__spec__ = ModuleSpec(name, None)

    def wandb(
        *, project: str, entity: str | None, id: str, name: str, group: str | None, tags: list[str],
        config: dict[str, Any], dir: str, mode: str, resume: str,
    ) -> FakeRun:  # fmt: skip
        notes.append(
            {"project": project, "id": id, "name": name, "config": config, "dir": dir, "resume": resume}
        )
        return FakeRun(notes, with_step=False)

    def trackio(
        *, project: str, name: str, group: str | None, space_id: str | None, config: dict[str, Any], resume: str,
        embed: bool,
    ) -> FakeRun:  # fmt: skip
        notes.append({"project": project, "name": name, "config": config, "resume": resume})
        return FakeRun(notes, with_step=True)

    def swanlab(
        *, project: str, workspace: str | None, name: str, group: str | None, tags: list[str],
        config: dict[str, Any], log_dir: str, mode: str, id: str | None = None, resume: str | None = None,
    ) -> FakeRun:  # fmt: skip
        notes.append(
            {"project": project, "id": id, "name": name, "config": config, "resume": resume, "mode": mode}
        )
        return FakeRun(notes, with_step=True)

    module.init = {"wandb": wandb, "trackio": trackio, "swanlab": swanlab}[name]  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, name, module)
    return notes


def default_fields(name: str) -> dict[str, Any]:
    from dataclasses import asdict

    from memfactory.core.registry import get

    return {"type": name, **asdict(get("tracker", name).config())}


@pytest.mark.parametrize("name", SERVICES)
def test_a_service_gets_recipe_steps_and_scores_under_one_id(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    notes = fake_service(name, monkeypatch)
    for start in range(2):  # a run that is resumed opens the same run again
        tracker = build_component("tracker", default_fields(name))
        tracker.start(tracked(tmp_path, step=start))
        tracker.log({"step": start + 1, "reward": 0.5})
        tracker.finish()
    opened = [note for note in notes if isinstance(note, dict)]
    assert opened[0] == opened[1]
    assert opened[0]["project"] == "memfactory"
    assert opened[0]["config"] == {"seed": 1, "model": {"path": "tiny"}}
    assert opened[0]["resume"] == "allow"
    assert opened[0]["name"] == ("demo-abc123" if name == "trackio" else "demo")
    assert opened[0].get("id", "abc123") == "abc123"
    logged = [note for note in notes if isinstance(note, tuple) and note[0] == "log"]
    if name == "wandb":
        assert logged == [("log", None, {"step": step, "reward": 0.5}) for step in (1, 2)]
        assert ("define", "*", "step") in notes  # wandb's own step may not go back, ours does on a resume
    else:
        assert logged == [("log", step, {"reward": 0.5}) for step in (1, 2)]
    assert notes.count("finish") == 2


def test_swanlab_has_no_id_where_it_cannot_resume(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    notes = fake_service("swanlab", monkeypatch)
    build_component("tracker", {**default_fields("swanlab"), "mode": "local"}).start(tracked(tmp_path))
    assert (notes[0]["id"], notes[0]["resume"], notes[0]["mode"]) == (None, None, "local")


# --- what is not there, and what fails -----------------------------------------------------------


@pytest.mark.parametrize("name", ["tensorboard", *SERVICES])
def test_a_missing_package_is_told_with_the_extra_to_install(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda package: None)
    with pytest.raises(BadInput, match=rf"pip install 'memfactory\[{name}\]'"):
        build_component("tracker", default_fields(name))


def test_extras_of_trackers_exist() -> None:
    import tomllib

    project = tomllib.loads((Path(__file__).parents[3] / "pyproject.toml").read_text(encoding="utf-8"))
    extras = project["project"]["optional-dependencies"]
    for name in ("tensorboard", *SERVICES):
        assert any(requirement.startswith(name) for requirement in extras[name])


def test_training_does_not_begin_without_the_package(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    real = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name, *more: None if name == "wandb" else real(name, *more)
    )
    monkeypatch.setattr(
        "memfactory.commands.train.open_policy", lambda recipe: pytest.fail("a model is loaded")
    )
    folder = tmp_path / "run"
    assert run(["train", "memagent", "tracker=wandb", "--output-dir", str(folder)]) == 2
    error = capsys.readouterr().err
    assert "pip install 'memfactory[wandb]'" in error
    assert error.count("\n") == 1
    assert not folder.exists()


class Failing(NoTracker):
    """Raises at the calls that it is told to."""

    def __init__(self, fails: Mapping[int, Exception]) -> None:
        self.fails = fails
        self.seen: list[int] = []

    def log(self, record: Mapping[str, float]) -> None:
        self.seen.append(int(record["step"]))
        if (error := self.fails.get(int(record["step"]))) is not None:
            raise error

    def finish(self) -> None:
        raise OSError("gone")


def test_a_tracker_that_fails_is_warned_of_once_and_training_goes_on(tmp_path: Path) -> None:
    said: list[str] = []
    failing = Failing({2: ConnectionError("no\nroute"), 4: RuntimeError()})
    guard = GuardedTracker(failing, "wandb", said.append)
    guard.start(tracked(tmp_path))
    for step in range(1, 7):
        guard.log({"step": step, "reward": 1.0})
    guard.finish()
    assert failing.seen == [1, 2, 3, 4, 5, 6]  # one failure is no reason to give up
    assert len(said) == 1
    assert "tracker 'wandb' failed at step 2 (ConnectionError: no route)" in said[0]
    assert "training goes on" in said[0]


def test_a_tracker_that_fails_three_times_in_a_row_is_left_alone(tmp_path: Path) -> None:
    failing = Failing({step: OSError() for step in range(3, 100)})
    guard = GuardedTracker(failing, "wandb", lambda line: None)
    guard.start(tracked(tmp_path))
    for step in range(1, 20):
        guard.log({"step": step})
    assert failing.seen == [1, 2, 3, 4, 5]


def test_a_tracker_that_cannot_start_stops_before_training(tmp_path: Path) -> None:
    class Closed(NoTracker):
        def start(self, run: TrackedRun) -> None:
            raise PermissionError("no API key")

    guard = GuardedTracker(Closed(), "wandb", lambda line: None)
    with pytest.raises(ServiceError, match=r"PermissionError: no API key.*tracker=none"):
        guard.start(tracked(tmp_path))
    guard.log({"step": 1})  # neither does anything now
    guard.finish()


def test_the_id_of_a_run_stays_until_it_is_begun_afresh(tmp_path: Path) -> None:
    run = RunFolder(tmp_path)
    first = tracked_run(tmp_path, 0, {}, run.written.replace_json)
    assert tracked_run(tmp_path, 5, {}).id == first.id
    assert first.name == tmp_path.name
    run.clear()
    assert tracked_run(tmp_path, 0, {}).id != first.id
    (tmp_path / "tracker.json").write_text("[]")
    with pytest.raises(BadInput, match=r"tracker\.json: not readable"):
        tracked_run(tmp_path, 0, {})


def test_records_are_numbers_only() -> None:
    assert numbers({"step": 1, "a": None, "b": math.nan, "c": "x", "d": True, "e": 0.5}) == {
        "step": 1,
        "e": 0.5,
    }
    scores = {"sets": {"1x": {"scores": {"exact_match": 0.5, "f1": 0.75}}, "odd": 3}}
    assert held_out_scores(7, scores) == {
        "step": 7,
        "held_out/1x/exact_match": 0.5,
        "held_out/1x/f1": 0.75,
    }
