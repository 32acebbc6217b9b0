"""The promise of the front page, in small: ten steps with the real vLLM and held-out answers get better."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.integration.small_training import train_in_small

STEPS = 10


@pytest.mark.vllm
def test_ten_steps_of_the_quickstart_teach_the_tiny_policy_to_remember(tmp_path: Path) -> None:
    run = tmp_path / "run"
    printed = train_in_small(
        "memagent",
        STEPS,
        run,
        "data.eval.1x.size=100",
        "data.eval.4x.size=100",
        "~data.eval.2x",
        "~data.eval.16x",
    )
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
