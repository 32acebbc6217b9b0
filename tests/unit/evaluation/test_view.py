"""What is said of the time left must hold for rollouts one after the other, and for all at once."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from memfactory.evaluation import view
from memfactory.evaluation.predictions import predict
from tests.unit.fakes import rollout


def test_one_after_the_other_the_rest_takes_as_long_for_each() -> None:
    assert view.seconds_left(10.0, 1, 16, at_once=1) == pytest.approx(150)
    assert view.seconds_left(150.0, 15, 16, at_once=1) == pytest.approx(10)


def test_those_under_way_are_half_done() -> None:
    assert view.seconds_left(40.0, 1, 16, at_once=64) == pytest.approx(40 / 8.5 * 7.5), "all 16 began at once"
    assert view.seconds_left(40.0, 2, 16, at_once=4) == pytest.approx(40 / 3.5 * 12.5), (
        "three beside the one that ended"
    )


def test_lines_show_the_running_score_and_the_time_left(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter([0.0, 40.0])
    monkeypatch.setattr(view.time, "monotonic", lambda: next(clock))
    out = io.StringIO()
    with view.EvalView(Console(file=out)).watching("s", 16, "exact_match", at_once=64) as on_prediction:
        on_prediction(predict(rollout("\\boxed{gold}")), True)
    assert out.getvalue().splitlines() == ["s: 16 rollouts", "s: 1/16  EM 100.0  about 35 s left"]


def test_rollouts_of_an_earlier_start_count_for_the_score_but_not_for_the_time(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    clock = iter([0.0, 1.0, 1.0, 40.0])
    monkeypatch.setattr(view.time, "monotonic", lambda: next(clock))
    out = io.StringIO()
    with view.EvalView(Console(file=out)).watching("s", 18, "exact_match", at_once=64) as on_prediction:
        for answer in ("no", "no"):
            on_prediction(predict(rollout(answer)), False)
        on_prediction(predict(rollout("\\boxed{gold}")), True)
    assert out.getvalue().splitlines() == ["s: 18 rollouts", "s: 3/18  EM 33.3  about 35 s left"]
