"""Whole trainings on a GPU: the tiny policy learns to remember with each learner, precision and kind of sampler."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.integration.small_training import train_in_small

STEPS = 14
#: name → options of `memfactory train memagent`
CASES: dict[str, tuple[str, ...]] = {
    "as shipped": (),
    "bfloat16": (
        *("model.dtype=bfloat16", "learner.dtype=bfloat16"),
        *("algorithm.tis_cap=2", "trainer.parity_threshold=0.3"),
    ),
    "asleep during updates": ("sampler.sleep=true",),
    "hf": ("sampler=hf",),
    "deepspeed": ("learner=deepspeed",),
    "zero3 asleep": ("learner=deepspeed", "learner.zero_stage=3", "sampler.sleep=true"),
    "adapters alone": (
        "learner=local_lora",
        "model.dtype=bfloat16",
        "learner.dtype=bfloat16",
        "trainer.parity_threshold=0.3",
        "sampler.adapter_sync=true",
        "sampler.sleep=true",
        "learner.lr=5e-3",
    ),
    "ahead": ("trainer.max_staleness=1", "algorithm.tis_cap=2"),
    "a server by ipc": ("sampler=vllm_server", "sampler.transfer=ipc", "sampler.gpu_memory_utilization=0.1"),
    "a server by folder": ("sampler=vllm_server", "sampler.gpu_memory_utilization=0.1"),
}


@pytest.mark.parametrize("name", CASES)
def test_a_dozen_steps_teach_the_tiny_policy_to_remember(name: str, tmp_path: Path) -> None:
    run = tmp_path / "run"
    options = CASES[name]
    if not any(option.startswith("sampler=") for option in options):
        options = (*options, "sampler.gpu_memory_utilization=0.1")
    sizes = ("data.eval.1x.size=100", "~data.eval.2x", "~data.eval.4x", "~data.eval.16x")
    train_in_small("memagent", STEPS, run, *sizes, *options)
    summary: dict[str, Any] = json.loads((run / "summary.json").read_text())
    records = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert [record["step"] for record in records] == list(range(1, STEPS + 1))
    assert sum(r["reward"] for r in records[-3:]) > sum(r["reward"] for r in records[:3])
    assert summary["after"]["1x"] > summary["before"]["1x"] + 0.2
