"""The promises of the pages, in small: a dozen steps with the real vLLM. Two recipes train at once, a core for each."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import Future
from pathlib import Path

import pytest

from tests.integration.launching import two_at_a_time

STEPS = 14
QUICKSTART = (
    "memagent",
    "data.eval.1x.size=100",
    "data.eval.4x.size=100",
    "~data.eval.2x",
    "~data.eval.16x",
)
MEMORY_R1 = ("memory_r1", "data.eval.1x.size=80", "~data.eval.4x")


def train_in_small(recipe: str, run: Path, *options: str) -> str:
    """Train into `run` on one core, which must succeed; returns what was printed."""
    finished = subprocess.run(
        [
            sys.executable,
            "-m",
            "memfactory",
            "train",
            recipe,
            f"trainer.steps={STEPS}",
            *options,
            "--output-dir",
            str(run),
        ],
        capture_output=True,
        text=True,
        check=False,
        timeout=600,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    assert finished.returncode == 0, finished.stderr[-2000:]
    return finished.stdout


@pytest.fixture(scope="module")
def trained(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[dict[tuple[str, ...], Future[tuple[Path, str]]]]:
    """By recipe and options, the run folder and what was printed."""

    def train(training: tuple[str, ...], folder: Path) -> tuple[Path, str]:
        recipe, *options = training
        return folder / "run", train_in_small(recipe, folder / "run", *options)

    yield from two_at_a_time(request, "training", train, tmp_path_factory)


@pytest.mark.vllm
@pytest.mark.parametrize("training", [QUICKSTART], ids=["memagent"])
def test_a_dozen_steps_of_the_quickstart_teach_the_tiny_policy_to_remember(
    training: tuple[str, ...], trained: dict[tuple[str, ...], Future[tuple[Path, str]]]
) -> None:
    run, printed = trained[training].result()
    summary = json.loads((run / "summary.json").read_text())
    assert set(summary) >= {"before", "after", "seconds", "seed"}
    assert summary["before"]["1x"] < 0.3
    assert summary["after"]["1x"] > summary["before"]["1x"] + 0.4
    assert summary["after"]["4x"] > summary["before"]["4x"] + 0.3
    records = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert [record["step"] for record in records] == list(range(1, STEPS + 1))
    assert sum(r["reward"] for r in records[-3:]) > sum(r["reward"] for r in records[:3])
    assert all(record["padding_share"] < 0.1 for record in records if record["rows"])
    assert (run / "reward.png").read_bytes().startswith(b"\x89PNG")
    assert "after" in printed and "reward by step" in printed


@pytest.mark.vllm
@pytest.mark.parametrize("training", [MEMORY_R1], ids=["memory_r1"])
def test_a_dozen_steps_teach_the_manager_to_update_and_delete(
    training: tuple[str, ...], trained: dict[tuple[str, ...], Future[tuple[Path, str]]]
) -> None:
    run, printed = trained[training].result()
    summary = json.loads((run / "summary.json").read_text())
    before, after = (summary["operations"][label]["1x"] for label in ("before", "after"))
    assert before["add"] > 0.95
    assert after["add"] < before["add"] - 0.2
    assert after["update"] > 0.05 and after["delete"] > 0.02
    assert summary["after"]["1x"] > summary["before"]["1x"] + 0.1
    records = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert sum(r["reward/answer"] for r in records[-3:]) > sum(r["reward/answer"] for r in records[:3])
    assert all(
        sum(v for k, v in r.items() if k.startswith("operations/")) == pytest.approx(1) for r in records
    )
    assert "1x: share of update" in printed
