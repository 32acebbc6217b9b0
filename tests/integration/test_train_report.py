"""One real run, killed and resumed: its tracker has every step once, its report every recorded group."""

from __future__ import annotations

import base64
import gzip
import json
import re
from pathlib import Path

import pytest

from tests.integration.launching import Strike, launch
from tests.integration.projects import write_project


@pytest.fixture(scope="module")
def run_folder(tmp_path_factory: pytest.TempPathFactory, policy_folder: Path) -> Path:
    """Killed after step 3, with a checkpoint of step 2; then run to the end."""
    folder = tmp_path_factory.mktemp("tracked")
    recipe = write_project(folder / "project", policy_folder)
    command = [
        "train",
        str(recipe),
        "tracker=tensorboard",
        "trainer.log_rollouts=3",
        "-o",
        str(folder / "run"),
    ]
    assert launch(command, folder, Strike("metrics", "step-3", after=True)).code == -9
    again = launch(command, folder)
    assert again.code == 0, again.err
    return folder / "run"


def test_tensorboard_has_each_step_once_and_the_held_out_scores(run_folder: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(run_folder / "tensorboard"))
    events.Reload()
    lines = [json.loads(line) for line in (run_folder / "metrics.jsonl").read_text().splitlines()]
    for key in ("reward", "reward/letters", "loss"):
        logged = [(event.step, event.value) for event in events.Scalars(key)]
        assert logged == [(line["step"], pytest.approx(line[key], rel=1e-6)) for line in lines]
    assert [line["step"] for line in lines] == [1, 2, 3]
    after = json.loads((run_folder / "evaluation" / "after.json").read_text())["sets"]["2x"]["scores"]["f1"]
    assert [(event.step, event.value) for event in events.Scalars("held_out/2x/f1")][-1] == (
        3,
        pytest.approx(after),
    )
    assert {event.step for event in events.Scalars("held_out/1x/exact_match")} == {0, 3}


def test_the_report_holds_whole_groups_with_the_memory_of_each_call(run_folder: Path) -> None:
    ended = launch(["report", str(run_folder)], run_folder)
    assert ended.code == 0, ended.err
    html = (run_folder / "report.html").read_text(encoding="utf-8")
    coded = re.search(r'id="data">([^<]*)<', html)
    assert coded
    rollouts = json.loads(gzip.decompress(base64.b64decode(coded[1])))["rollouts"]
    training = [rollout for rollout in rollouts if rollout["source"] == "training"]
    assert [(r["step"], r["group"][-1], r["index"]) for r in training] == [
        (step, group, index) for step in (1, 2, 3) for group in "01" for index in (0, 1)
    ]  # three rollouts were asked for: two groups of two
    for rollout in training:
        *reads, answer = rollout["calls"]
        assert [call["memory"] for call in reads] == [call["reply"] for call in reads]
        assert "memory" not in answer
        assert all(call["advantage"] == reads[0]["advantage"] for call in rollout["calls"])
    assert sum(r["advantage"] for r in (rollout["calls"][0] for rollout in training[:2])) == pytest.approx(
        0, abs=1e-6
    )
    assert {rollout["source"] for rollout in rollouts} == {"training", "before", "after"}
