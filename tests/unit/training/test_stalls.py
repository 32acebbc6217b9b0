"""Runs that cannot learn: what is said, when, and how often."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from memfactory.training.run_folder import RunFolder
from memfactory.training.stalls import Stalls, cause, nothing_learned, warnings
from memfactory.training.summary import summarise, write_summary

GOOD = {
    "rows": 8,
    "grad_norm": 0.3,
    "groups/flat": 0.25,
    "calls": 16,
    "calls/trainable": 12,
    "calls/unpaid": 0,
    "calls/truncated": 0.25,
    "reward": 0.5,
}
FLAT = {**GOOD, "rows": 0, "groups/flat": 1.0, "reward": 0.0}
del FLAT["grad_norm"]


@pytest.mark.parametrize(
    ("record", "said"),
    [
        (FLAT, "all groups are flat: every rollout of a task got the same reward (0 on average)"),
        ({**FLAT, "calls/truncated": 1.0}, "16 of 16 replies were cut at their token limit"),
        ({**FLAT, "calls/truncated": 0.75}, "12 of 16 replies were cut"),
        ({**FLAT, "calls/trainable": 0}, "no call is trainable"),
        ({**FLAT, "calls": 0, "calls/trainable": 0}, "the agent made no call"),
        ({**FLAT, "calls/unpaid": 12, "length/note": 3.0, "length/note/max": 4.0}, "(called: note)"),
        ({**FLAT, "reward": None}, "all groups are flat"),
        ({**FLAT, "groups/flat": 0.5}, "no row came out"),
        ({**GOOD, "grad_norm": 0.0}, "the gradient is zero although there are rows"),
        ({**GOOD, "grad_norm": 0.0, "clip_fraction": 1.0}, "every token was clipped"),
        ({**GOOD, "calls/truncated": 1.0}, "every reply of the step was cut"),
    ],
)
def test_the_likely_cause_is_named(record: dict[str, Any], said: str) -> None:
    found = cause(record)
    assert found is not None
    assert said in found[1]


@pytest.mark.parametrize(
    "record",
    [
        GOOD,
        {"rows": 4, "loss": 0.5},  # a learner that tells no norm
        {"rows": 0, "reranker/grad_norm": 0.1},  # a part of the agent learns by itself
        {"reward": 0.5},  # a record of an older run
        {**GOOD, "grad_norm": None},  # it was no number, which is said elsewhere
    ],
)
def test_a_step_that_learns_is_left_alone(record: dict[str, Any]) -> None:
    assert cause(record) is None


def test_it_is_said_after_three_steps_and_then_after_every_ten() -> None:
    stalls = Stalls()
    said = [number for number in range(1, 32) if stalls.note(FLAT)]
    assert said == [3, 10, 20, 30]
    assert stalls.note(GOOD) is None
    assert [number for number in range(1, 6) if stalls.note(FLAT)] == [3]
    assert stalls.note({**FLAT, "calls/trainable": 0}) is not None  # another cause
    resumed = Stalls([FLAT, FLAT])
    assert "the last 3 steps" in str(resumed.note(FLAT))


def test_a_run_that_learned_in_most_steps_has_no_warning() -> None:
    assert warnings([FLAT, GOOD, FLAT, FLAT, GOOD] * 4) == []
    assert not nothing_learned([FLAT, GOOD])
    assert not nothing_learned([])


def test_a_run_that_never_learned_says_that_the_weights_are_unchanged(tmp_path: Path) -> None:
    run = RunFolder(tmp_path)
    for step in (1, 2):
        run.log_metrics({"step": step, **FLAT})
    summary = summarise(run, metric="exact_match", seconds=1.0, seed=0)
    assert summary["unchanged"] is True
    console = Console(record=True, width=300)
    write_summary(run, summary, console)
    for text in (console.export_text(), (tmp_path / "report.md").read_text()):
        assert "the weights are unchanged: no step had anything to learn from" in text
        assert "2 of 2 steps: all groups are flat" in text
    assert json.loads((tmp_path / "summary.json").read_text())["unchanged"] is True
