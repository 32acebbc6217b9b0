"""Stopping a run by signals, two processes on one folder, and starting a run again."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import time
from collections.abc import Iterator
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import pytest

from tests.integration.launching import Ended, Launch, Strike, fingerprint, launch, two_at_a_time
from tests.integration.projects import write_project


@pytest.fixture(scope="module")
def recipe(tmp_path_factory: pytest.TempPathFactory, policy_folder: Path) -> Path:
    return write_project(tmp_path_factory.mktemp("project"), policy_folder)


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory, recipe: Path) -> Path:
    """The run folder of an uninterrupted run; tests only read it, or start it again."""
    folder = tmp_path_factory.mktemp("finished")
    ended = launch(["train", str(recipe), "-o", str(folder / "run")], folder)
    assert ended.code == 0, ended.err
    return folder / "run"


#: A signal before the first update stops after step 1; one in an evaluation stops at once, with nothing to be lost.
SIGNALS = [
    (Strike(at, name, number=number), steps_done)
    for number in (signal.SIGINT, signal.SIGTERM)
    for at, name, steps_done in (("update", "", 1), ("rollout", "eval-1x", 0))
] + [(Strike("rollout", "eval-2x", nth=3, number=signal.SIGTERM), 3)]  # after training; two are before


@pytest.fixture(scope="module")
def stopped(
    request: pytest.FixtureRequest, recipe: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[dict[Any, Future[dict[str, Any]]]]:
    """By signal, what a run leaves that it stopped and that was started again."""

    def stop_and_start_again(case: tuple[Strike, int], folder: Path) -> dict[str, Any]:
        strike, steps_done = case
        command = ["train", str(recipe), "-o", str(folder / "run")]
        stopped = launch(command, folder, strike)
        assert stopped.code == 128 + strike.number
        assert "Traceback" not in stopped.err
        if strike.at == "update":
            assert f"stopped after step {steps_done}, saved" in stopped.out
        else:
            assert stopped.error_lines[-1].startswith("stopped by SIG") and len(stopped.error_lines) == 1
        assert (folder / "run" / "checkpoints" / f"step-{steps_done}").exists() == (steps_done > 0)
        assert not (folder / "run" / "final").exists()
        again = launch(command, folder)
        assert again.code == 0, again.err
        assert (f"resuming after step {steps_done} of 3" in again.out) == (steps_done > 0)
        return fingerprint(folder / "run")

    yield from two_at_a_time(request, "case", stop_and_start_again, tmp_path_factory)


@pytest.mark.parametrize("case", SIGNALS, ids=lambda case: f"{case[0].number}-{case[0].at}")
def test_a_signal_finishes_the_step_saves_and_resumes_the_same(
    case: tuple[Strike, int], stopped: dict[Any, Future[dict[str, Any]]], finished: Path
) -> None:
    assert stopped[case].result() == fingerprint(finished)


def test_a_second_signal_stops_at_once(recipe: Path, finished: Path, tmp_path: Path) -> None:
    command = ["train", str(recipe), "-o", str(tmp_path / "run"), "trainer.steps=2000"]
    running = Launch(command, tmp_path, None)
    wait_for(lambda: (tmp_path / "run" / "metrics.jsonl").exists(), running)
    for _ in range(2):
        os.kill(running.process.pid or 0, signal.SIGINT)
    ended = running.end()
    assert ended.code == 130
    assert "Traceback" not in ended.err


def wait_for(condition: Any, running: Launch) -> None:
    for _ in range(3000):
        if condition():
            return
        assert running.process.is_alive(), running.err.read_text()
        time.sleep(0.02)
    raise AssertionError("it never came")


def test_a_second_process_on_one_folder_is_refused_and_harms_nothing(recipe: Path, tmp_path: Path) -> None:
    command = ["train", str(recipe), "-o", str(tmp_path / "run"), "trainer.steps=2000"]
    first = Launch(command, tmp_path, None)
    try:
        wait_for(lambda: (tmp_path / "run" / "metrics.jsonl").exists(), first)
        for options in ([], ["--fresh"]):
            second = launch([*command, *options], tmp_path)
            assert second.code == 2
            assert len(second.error_lines) == 1
            assert "another process is using this run folder" in second.err
        lines = (tmp_path / "run" / "metrics.jsonl").read_text().count("\n")
        wait_for(lambda: (tmp_path / "run" / "metrics.jsonl").read_text().count("\n") > lines, first)
    finally:
        first.process.kill()
        first.process.join()


def test_a_finished_run_started_again_only_shows_its_summary(recipe: Path, finished: Path) -> None:
    before = fingerprint(finished)
    stamp = (finished / "final" / "model.safetensors").stat().st_mtime_ns
    metrics = (finished / "metrics.jsonl").read_bytes()
    again = launch(["train", str(recipe), "-o", str(finished)], finished.parent)
    assert again.code == 0
    assert "this run is finished" in again.out
    assert "exact_match on held-out tasks" in again.out
    assert "resuming" not in again.out and "loading" not in again.out
    assert fingerprint(finished) == before
    assert (finished / "metrics.jsonl").read_bytes() == metrics
    assert (finished / "final" / "model.safetensors").stat().st_mtime_ns == stamp


OTHERS = {
    "learner.lr=2e-3": "learner.lr",
    "seed=7": "seed",
    "trainer.steps=4": "trainer.steps",
    "data.train.size=41": "data.train.size",
    "reward.letters.weight=2.0": "reward.letters.weight",
    "~data.eval.2x": "data.eval.2x",
}
SAME = ["trainer.save_every=1", "trainer.keep_last=3", "trainer.log_rollouts=1"]


@pytest.fixture(scope="module")
def changed(
    request: pytest.FixtureRequest, recipe: Path, finished: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[dict[str, Future[tuple[Ended, dict[str, Any]]]]]:
    """By change of the recipe, how a start on a copy of the finished run ends, and what is there then."""

    def start(change: str, folder: Path) -> tuple[Ended, dict[str, Any]]:
        copy = Path(shutil.copytree(finished, folder / "run"))
        ended = launch(["train", str(recipe), "-o", str(copy), change], folder)
        return ended, fingerprint(copy)

    yield from two_at_a_time(request, "change", start, tmp_path_factory)


@pytest.mark.parametrize("change", OTHERS)
def test_another_recipe_on_the_same_folder_is_refused(
    change: str, changed: dict[str, Future[tuple[Ended, dict[str, Any]]]], finished: Path
) -> None:
    ended, left = changed[change].result()
    assert ended.code == 2
    assert len(ended.error_lines) == 1
    assert OTHERS[change] in ended.err and "--fresh" in ended.err
    assert left == fingerprint(finished)


@pytest.mark.parametrize("change", SAME)
def test_what_does_not_change_the_result_may_change(
    change: str, changed: dict[str, Future[tuple[Ended, dict[str, Any]]]]
) -> None:
    ended, _ = changed[change].result()
    assert ended.code == 0 and "this run is finished" in ended.out


FRESH = [
    None,
    Strike("rmtree", "checkpoints/step-1.*.partial"),
    Strike("rmtree", "final.*.partial"),
    Strike("replace", "/recipe.yaml"),
]


@pytest.fixture(scope="module")
def anew(
    request: pytest.FixtureRequest, recipe: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[dict[Any, Future[dict[str, Any]]]]:
    """By strike, what `--fresh` leaves of a folder that held a run with another learning rate."""

    def begin_anew(strike: Strike | None, folder: Path) -> dict[str, Any]:
        command = ["train", str(recipe), "-o", str(folder / "run")]
        assert launch([*command, "learner.lr=5e-3", "trainer.steps=1"], folder).code == 0
        if strike is not None:
            assert launch([*command, "--fresh"], folder, strike).code == -9
        ended = launch([*command, "--fresh"], folder)
        assert ended.code == 0, ended.err
        return fingerprint(folder / "run")

    yield from two_at_a_time(request, "strike", begin_anew, tmp_path_factory)


@pytest.mark.parametrize("strike", FRESH, ids=str)
def test_fresh_starts_over_also_when_it_was_killed(
    strike: Strike | None, anew: dict[Any, Future[dict[str, Any]]], finished: Path
) -> None:
    """Afterwards nothing of the other run is left."""
    assert anew[strike].result() == fingerprint(finished)


def test_keep_last_keeps_the_newest_and_the_run_can_go_on_from_an_older_one(
    recipe: Path, finished: Path, tmp_path: Path
) -> None:
    options = ["trainer.save_every=1", "trainer.keep_last=2"]
    command = ["train", str(recipe), "-o", str(tmp_path / "run"), *options]
    assert launch(command, tmp_path, Strike("replace", "evaluation/after.json")).code == -9
    checkpoints = tmp_path / "run" / "checkpoints"
    assert sorted(path.name for path in checkpoints.iterdir()) == ["step-2", "step-3"]
    (checkpoints / "step-3" / "trainer.json").write_text("{")
    damaged = launch(command, tmp_path)
    assert damaged.code == 0, damaged.err
    told = r"checkpoints/step-3: .*trainer\.json.*; kept as step-3\.damaged, going on from step 2\n"
    assert re.search(told, damaged.out), damaged.out
    assert (
        checkpoints / "step-3.damaged" / "trainer.json"
    ).read_text() == "{"  # kept for whoever wants to look
    shutil.rmtree(checkpoints / "step-3.damaged")
    run, whole = fingerprint(tmp_path / "run"), fingerprint(finished)
    assert run["checkpoints"] == ["step-2", "step-3"]
    assert run["weights"] == whole["weights"]
    assert run["metrics"] == whole["metrics"]


def test_a_folder_that_is_not_a_run_is_left_alone(recipe: Path, tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "thesis.txt").write_text("mine")
    ended = launch(["train", str(recipe), "-o", str(tmp_path / "run")], tmp_path)
    assert ended.code == 2
    assert len(ended.error_lines) == 1
    assert [path.name for path in (tmp_path / "run").iterdir()] == ["thesis.txt"]


def test_a_run_may_follow_an_evaluation_in_the_same_folder(recipe: Path, tmp_path: Path) -> None:
    assert launch(["eval", str(recipe), "-o", str(tmp_path / "run")], tmp_path).code == 0
    ended = launch(["train", str(recipe), "-o", str(tmp_path / "run"), "trainer.steps=1"], tmp_path)
    assert ended.code == 0, ended.err
    assert len(list((tmp_path / "run" / "eval").glob("*.json"))) == 1


def test_summary_and_report_say_what_was_measured(finished: Path) -> None:
    summary = json.loads((finished / "summary.json").read_text())
    evaluations = {
        label: json.loads((finished / "evaluation" / f"{label}.json").read_text())["sets"]
        for label in ("before", "after")
    }
    for label, sets in evaluations.items():
        assert summary[label] == {name: s["scores"]["exact_match"] for name, s in sets.items()}
    assert summary["seed"] == 1 and summary["steps"] == 3 and summary["seconds"] > 0
    assert (finished / "reward.png").read_bytes().startswith(b"\x89PNG")
    assert "3 steps" in (finished / "report.md").read_text()
    log = (finished / "log.txt").read_text()
    assert "step 3/3" in log
