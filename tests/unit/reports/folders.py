"""Run folders made by hand, with figures that one can check in one's head."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

RECIPE = """
name: demo
output_dir: {name}
seed: {seed}
model: {{path: tiny}}
agent: {{type: memagent, block_tokens: 40}}
algorithm: {{advantages: grpo}}
data:
  eval:
    1x: {{type: facts, sections: 3, section_tokens: 40}}
    4x: {{type: facts, sections: 12, section_tokens: 40}}
trainer: {{steps: 10}}
"""


def call(module: str, prompt: str, reply: str, **extra: Any) -> dict[str, Any]:
    return {
        "module": module,
        "role": "policy",
        "prompt": prompt,
        "reply": reply,
        "finish_reason": "stop",
        "prompt_tokens": 12,
        "completion_tokens": 3,
        "policy_version": 0,
        **extra,
    }


def rollout(task: str, index: int, reward: float, **extra: Any) -> dict[str, Any]:
    """Two blocks are read: the memory becomes "Ada lives in Rome", then "Ada lives in Oslo"."""
    return {
        "task": task,
        "group": 0,
        "index": index,
        "question": f"Where does Ada of {task} live?",
        "golds": ["Oslo"],
        "reply": "Oslo" if reward else "Rome",
        "reward": reward,
        "rewards": {"answer": reward},
        "advantages": {"update": reward - 0.5, "answer": reward - 0.5},
        "error": None,
        "info": {},
        "memory": "nothing yet",
        "calls": [
            call(
                "update", "block one", "Ada lives in Rome", memory="Ada lives in Rome", advantage=reward - 0.5
            ),
            call(
                "update", "block two", "Ada lives in Oslo", memory="Ada lives in Oslo", advantage=reward - 0.5
            ),
            call("answer", "answer now", "Oslo" if reward else "Rome", advantage=reward - 0.5),
        ],
        **extra,
    }


def prediction(task: str, score: float) -> dict[str, Any]:
    return {
        "task_id": task,
        "index": 0,
        "question": f"Where does Ada of {task} live?",
        "golds": ["Oslo"],
        "answer": "Oslo",
        "reply": "\\boxed{Oslo}",
        "boxed": True,
        "scores": {"exact_match": score},
        "rewards": {"answer": score},
        "memories": ["Ada unknown", "Ada Oslo"],
        "error": None,
    }


def make_run(
    path: Path,
    *,
    seed: int = 0,
    steps: int = 10,
    rewards: Sequence[float] = (),
    rollouts: dict[int, list[dict[str, Any]]] | None = None,
    evaluate: bool = True,
) -> Path:
    """A run of `steps` steps whose reward rises from 0.1 by 0.1; held out 0.25 before and 0.75 after."""
    path.mkdir(parents=True)
    (path / "recipe.yaml").write_text(RECIPE.format(name=path, seed=seed))
    values = list(rewards) or [0.1 * step for step in range(1, steps + 1)]
    records = [
        {
            "step": step,
            "reward": value,
            "reward/answer": value / 2,
            "reward/answer/std": 0.1,
            "reward/format": 1.0,
            "calls/truncated": 0.125,
            "tokens/completion": 100,
            "rollouts/failed": 0,
            "length/update": 4.0,
            "length/update/max": 9,
            "operations/ADD": 0.75,
            "operations/DELETE": 0.25,
            "seconds/collect": 1.0,
            "seconds/update": 2.0,
            "seconds/step": 3.0,
            "entropy": None,
        }
        for step, value in enumerate(values, start=1)
    ]
    (path / "metrics.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
    kept = (
        rollouts
        if rollouts is not None
        else {step: [rollout("t1", i, i % 2) for i in range(4)] for step in (1, 2)}
    )
    (path / "rollouts").mkdir()
    for step, lines in kept.items():
        text = "".join(json.dumps(line) + "\n" for line in lines)
        (path / "rollouts" / f"step-{step}.jsonl").write_text(text)
    if evaluate:
        write_evaluation(path, "before", 0, {"1x": 0.25, "4x": 0.0})
        write_evaluation(path, "after", steps, {"1x": 0.75, "4x": 0.5})
    return path


def write_evaluation(path: Path, label: str, step: int, scores: dict[str, float]) -> None:
    sets = {
        name: {
            "name": name,
            "tasks": 4,
            "scores": {"exact_match": score},
            "predictions": [prediction("held", score)],
        }
        for name, score in scores.items()
    }
    (path / "evaluation").mkdir(exist_ok=True)
    (path / "evaluation" / f"{label}.json").write_text(json.dumps({"step": step, "sets": sets}))


def write_result(
    path: Path, name: str, agent: str, lengths: dict[int, float], *, sets: str = "ruler/niah_single_1_{}"
) -> None:
    """A file of `eval` (schema 2): a benchmark at several lengths, with intervals of 0.1 to both sides."""
    benchmark, _, set_name = sets.partition("/")
    (path / "eval").mkdir(parents=True, exist_ok=True)
    results = [
        {
            "recipe": "r1",
            "name": "demo",
            "model": "tiny",
            "agent": agent,
            "benchmark": benchmark,
            "set": set_name.format(length),
            "length": length,
            "tasks": 8,
            "repeats": 1,
            "metrics": {
                "exact_match": {"mean": 0.0, "low": 0.0, "high": 0.0, "tasks": 8, "unscored": 0},
                "string_match_all": {
                    "mean": mean,
                    "low": mean - 0.1,
                    "high": mean + 0.1,
                    "tasks": 8,
                    "unscored": 0,
                },
            },
            "predictions": [
                {
                    **prediction("needle", mean),
                    "trace": [
                        {
                            "module": "answer",
                            "role": "policy",
                            "prompt": "hay",
                            "text": "pin",
                            "finish_reason": "stop",
                        }
                    ],
                }
            ],
        }
        for length, mean in lengths.items()
    ]
    value = {"schema_version": 2, "versions": {}, "recipes": {"r1": {"name": "demo"}}, "results": results}
    (path / "eval" / f"{name}.json").write_text(json.dumps(value))
