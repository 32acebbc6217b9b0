"""The fourth paradigm that the docs add: the page shows the real files, tests pass, it trains, every turn is paid."""

from __future__ import annotations

import asyncio
import json
import runpy
from pathlib import Path

import pytest

from memfactory.cli.main import run
from memfactory.core.types import Call, Outcome, Rollout, Task
from memfactory.recipe.build import build_rubric
from memfactory.recipe.components import load_components
from memfactory.recipe.load import load_recipe
from memfactory.training.credit import assign_credit
from tests.docs.pages import ROOT, blocks

EXAMPLE = ROOT / "docs" / "examples" / "mem1"
PAGE = ROOT / "docs" / "add_a_paradigm.md"
OWN = sorted(
    path for path in EXAMPLE.rglob("*") if path.suffix in (".py", ".yaml") and path.name != "test_mem1.py"
)


@pytest.mark.parametrize("path", [*OWN, EXAMPLE / "test_mem1.py"], ids=lambda path: path.name)
def test_the_page_shows_the_file(path: Path) -> None:
    shown = [block.text for block in blocks(PAGE)]
    assert path.read_text(encoding="utf-8") in shown, f"paste {path.relative_to(EXAMPLE)} into the page again"


def test_the_paradigm_is_as_small_as_the_page_says() -> None:
    assert sum(len(path.read_text(encoding="utf-8").splitlines()) for path in OWN) < 250


def test_the_examples_own_tests_pass() -> None:
    tests = [
        value
        for name, value in runpy.run_path(str(EXAMPLE / "test_mem1.py")).items()
        if name.startswith("test_")
    ]
    assert len(tests) == 6
    for test in tests:
        test()


def test_warm_start_then_recipe(tmp_path: Path) -> None:
    """A step of each: what the one leaves is what the other begins with."""
    warm, folder = tmp_path / "warm", tmp_path / "run"
    few = (
        "trainer.steps=2",
        "learner.warmup_steps=0",
        "data.eval.heldout.size=4",
        "trainer.tasks_per_step=4",
    )
    assert run(["train", str(EXAMPLE / "warm_start.yaml"), *few, "--output-dir", str(warm)]) == 0
    small = ("sampler=hf", "trainer.steps=1", "trainer.tasks_per_step=2", "algorithm.group_size=2")
    changes = (f"model.path={warm / 'final'}", "evaluation.limit=2", *small)
    assert run(["train", str(EXAMPLE / "recipe.yaml"), *changes, "--output-dir", str(folder)]) == 0
    (record,) = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    assert record["rollouts"] == 4
    assert record["rollouts/failed"] == 0
    assert 0 < record["length/step/max"] <= 32
    assert 0 <= record["reward/layout"] <= 1
    assert record["reward/answer/unjudged"] == 0
    rollouts = [json.loads(line) for line in (folder / "rollouts" / "step-1.jsonl").read_text().splitlines()]
    for rollout in rollouts:
        assert 1 <= len(rollout["calls"]) == rollout["info"]["turns"] <= 4
        assert {call["module"] for call in rollout["calls"]} == {"step"}


def test_every_turn_is_paid_for_the_answer() -> None:
    """One rollout searched twice and was right, the other answered at once and was wrong."""
    load_components([EXAMPLE / "agent.py"])
    rubric = build_rubric(load_recipe(str(EXAMPLE / "recipe.yaml"), ["model.path=tiny"]))
    call = Call("step", "policy", (1,), (2, 3), (-0.1, -0.2), "", "stop", 0, True)
    task = Task("t", "Who?", "text", ("Ben",))
    group = []
    for index, (turns, reply) in enumerate(((3, "Ben"), (1, "Anna"))):
        info = {"turns": turns, "format": {"step": 1.0}}
        rollout = Rollout(task, index, [call] * turns, Outcome(reply, (), info))
        group.append(rollout)
    for rollout in group:
        rollout.rewards = asyncio.run(rubric.score(rollout))
    assert [rollout.rewards for rollout in group] == [
        {"answer": 1.0, "layout": 1.0},
        {"answer": 0.0, "layout": 1.0},
    ]
    credit = assign_credit([group], rubric, "dr_grpo")
    # Totals 1.1 and 0.1, mean 0.6: three rows of +0.5 and one of -0.5.
    assert [row.advantage for row in credit.rows] == pytest.approx([0.5, 0.5, 0.5, -0.5])
    assert [row.rollout_id for row in credit.rows] == [0, 0, 0, 1]
