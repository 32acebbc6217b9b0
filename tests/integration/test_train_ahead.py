"""`trainer.max_staleness=1`, killed at the moments that matter: it ends like a run that was left alone."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import pytest

from tests.integration.launching import Strike, fingerprint, launch, two_at_a_time
from tests.integration.projects import write_project

STRIKES = [
    Strike("rollout", "train-1", nth=2),  # beside the first update
    Strike("replace", "ahead.json"),  # in the first checkpoint
    Strike("metrics", "step-3", after=True),  # after it, with rows ahead
    Strike("replace", "checkpoints/step-4", after=True),
]


def arguments(recipe: Path, run: Path) -> list[str]:
    staleness = [
        "trainer.max_staleness=1",
        "algorithm.tis_cap=2",
        "trainer.steps=4",
        "trainer.eval_before=false",
    ]
    return ["train", str(recipe), "-o", str(run), *staleness]


@pytest.fixture(scope="module")
def recipe(tmp_path_factory: pytest.TempPathFactory, policy_folder: Path) -> Path:
    return write_project(tmp_path_factory.mktemp("project"), policy_folder)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory, recipe: Path) -> dict[str, Any]:
    folder = tmp_path_factory.mktemp("whole")
    ended = launch(arguments(recipe, folder / "run"), folder)
    assert ended.code == 0, ended.err
    return fingerprint(folder / "run")


def test_stale_rows_are_weighed_by_what_the_weights_have_moved_since(whole: dict[str, Any]) -> None:
    """The first step's rows come from the weights that learn from them; those of later steps are one update old."""
    mismatch = [record["mismatch_kl"] for record in whole["metrics"]]
    assert mismatch[0] < 1e-6
    assert min(mismatch[1:]) > 100 * max(mismatch[0], 1e-9)
    assert all(record["tis_weight_mean"] > 0 and record["grad_norm"] > 0 for record in whole["metrics"])


@pytest.fixture(scope="module")
def struck(
    request: pytest.FixtureRequest, recipe: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[dict[Strike, Future[dict[str, Any]]]]:
    """By strike, what a run leaves that it killed and that was started again."""

    def kill_and_start_again(strike: Strike, folder: Path) -> dict[str, Any]:
        killed = launch(arguments(recipe, folder / "run"), folder, strike)
        assert killed.code == -9, f"the run was not killed:\n{killed.out}{killed.err}"
        ended = launch(arguments(recipe, folder / "run"), folder)
        assert ended.code == 0, ended.err
        return fingerprint(folder / "run")

    yield from two_at_a_time(request, "strike", kill_and_start_again, tmp_path_factory)


@pytest.mark.parametrize("strike", STRIKES, ids=str)
def test_killed_and_started_again_it_ends_the_same(
    strike: Strike, struck: dict[Strike, Future[dict[str, Any]]], whole: dict[str, Any]
) -> None:
    assert struck[strike].result() == whole
