"""Memory-R1's main job, in small: a dozen steps with the real vLLM, and the manager no longer only adds."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.integration.small_training import train_in_small

STEPS = 12


@pytest.mark.vllm
def test_a_dozen_steps_teach_the_manager_to_update_and_delete(tmp_path: Path) -> None:
    run = tmp_path / "run"
    printed = train_in_small("memory_r1", STEPS, run, "data.eval.1x.size=60", "~data.eval.4x")
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
