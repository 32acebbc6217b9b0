"""The plugin that the docs show: the page shows the real files, its tests pass, and it trains."""

from __future__ import annotations

import json
import runpy
from pathlib import Path

import pytest

from memfactory.cli.main import run
from tests.docs.pages import ROOT, blocks

EXAMPLE = ROOT / "docs" / "examples" / "notes_memory"
SMALL = (
    "sampler=hf",
    "trainer.steps=1",
    "trainer.tasks_per_step=2",
    "algorithm.group_size=2",
    "evaluation.limit=12",
)


@pytest.mark.parametrize("name", ["components.py", "recipe.yaml", "test_components.py"])
def test_the_page_shows_the_file(name: str) -> None:
    shown = [block.text for block in blocks(ROOT / "docs" / "writing_a_component.md")]
    assert (EXAMPLE / name).read_text(encoding="utf-8") in shown, f"paste {name} into the page again"


def test_the_examples_own_tests_pass() -> None:
    found = runpy.run_path(str(EXAMPLE / "test_components.py"))
    tests = [value for name, value in found.items() if name.startswith("test_")]
    assert len(tests) == 2
    for test in tests:
        test()


def test_it_trains(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "run"
    assert run(["train", str(EXAMPLE / "recipe.yaml"), *SMALL, "--output-dir", str(folder)]) == 0
    (record,) = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    assert record["rollouts"] == 4
    assert record["rollouts/failed"] == 0
    # Module, reward and environment of the plugin, each by what only it can have done.
    assert 0 < record["length/note"] <= 8
    assert "length/update" not in record
    assert 0 <= record["reward/kept"] <= 1
    assert record["reward/kept/unjudged"] == 0
    rollouts = [json.loads(line) for line in (folder / "rollouts" / "step-1.jsonl").read_text().splitlines()]
    for rollout in rollouts:
        first = next(call["prompt"] for call in rollout["calls"] if call["module"] == "note")
        assert all(word in first for word in rollout["golds"][0].split() if word != "and")
    # The resolved recipe is the same run, from anywhere.
    capsys.readouterr()
    assert run(["train", str(folder / "recipe.yaml")]) == 0
    assert "this run is finished" in " ".join(capsys.readouterr().out.split())


def test_a_text_that_the_environment_cannot_use_is_one_line(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    data = tmp_path / "tasks.jsonl"
    data.write_text(json.dumps({"question": "Who?", "text": "Anna.", "answers": ["Anna"]}) + "\n")
    change = ["~data.train", f"data.train={{type: jsonl, path: {data}}}", "--dry-run"]
    code = run(["train", str(EXAMPLE / "recipe.yaml"), *change])
    assert code == 2
    error = capsys.readouterr().err
    assert "early_facts" in error
    assert error.count("\n") == 1
