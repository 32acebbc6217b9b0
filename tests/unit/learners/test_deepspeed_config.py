"""The generated DeepSpeed configuration, and a user's own file in its place."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from memfactory.core.errors import BadInput
from memfactory.learners.deepspeed_config import generate, read_file


def config(**changes: Any) -> dict[str, Any]:
    settings = {
        "zero_stage": 3,
        "offload_optimizer": False,
        "offload_param": False,
        "dtype": "bfloat16",
        "clip_norm": 0.5,
        "world": 4,
    }
    return generate(**{**settings, **changes})


def test_the_recipes_fields_are_in_it() -> None:
    made = config(offload_optimizer=True, offload_param=True)
    assert made["bf16"] == {"enabled": True}
    assert made["gradient_clipping"] == 0.5
    assert made["train_batch_size"] == 4 * made["train_micro_batch_size_per_gpu"]
    zero = made["zero_optimization"]
    assert zero["stage"] == 3
    assert zero["offload_optimizer"]["device"] == zero["offload_param"]["device"] == "cpu"
    assert "offload_param" not in config(zero_stage=2)["zero_optimization"]
    json.dumps(made)


@pytest.mark.parametrize(
    ("changes", "key"),
    [
        ({"zero_stage": 4}, "learner.zero_stage"),
        ({"zero_stage": 0, "offload_optimizer": True}, "learner.offload_optimizer"),
        ({"zero_stage": 2, "offload_param": True}, "learner.offload_param"),
        ({"zero_stage": 0, "dtype": "bfloat16"}, "learner.zero_stage"),
    ],
)
def test_what_cannot_be_is_refused(changes: dict[str, Any], key: str) -> None:
    with pytest.raises(BadInput, match=key):
        config(**changes)


def write(folder: Path, value: Any) -> Path:
    path = folder / "mine.json"
    path.write_text(value if isinstance(value, str) else json.dumps(value))
    return path


def test_a_file_takes_the_place_and_auto_is_filled_in(tmp_path: Path) -> None:
    mine = {
        "train_batch_size": "auto",
        "gradient_clipping": "auto",
        "bf16": {"enabled": "auto"},
        "zero_optimization": {"stage": "auto", "overlap_comm": True, "reduce_bucket_size": 1000},
        "optimizer": None,
        "fp16": {"enabled": False},
    }
    made = read_file(write(tmp_path, mine), config())
    assert made["zero_optimization"] == {"stage": 3, "overlap_comm": True, "reduce_bucket_size": 1000}
    assert made["gradient_clipping"] == 0.5 and made["train_batch_size"] == 4
    assert made["gradient_accumulation_steps"] == 1 and made["zero_force_ds_cpu_optimizer"] is False
    # Left out, clipping is DeepSpeed's default: the file rules.
    bare = read_file(write(tmp_path, {}), config(dtype="float32"))
    assert "gradient_clipping" not in bare and bare["zero_optimization"]["stage"] == 0


@pytest.mark.parametrize(
    ("value", "telling"),
    [
        ("{", "not JSON"),
        ([1], "JSON object"),
        ({"optimizer": {"type": "AdamW"}}, r"'optimizer'.*learner\.lr"),
        ({"scheduler": {"type": "WarmupLR"}}, r"'scheduler'.*learner\.schedule"),
        ({"fp16": {"enabled": True}}, r"learner\.dtype"),
        ({"gradient_accumulation_steps": 8}, "micro_batch_tokens"),
        ({"train_batch_size": 64}, "micro_batch_tokens"),
        ({"bf16": {"enabled": False}}, "disagree"),
        ({"bf16": {"enabled": True}, "zero_optimization": {"stage": 0}}, "zero_stage 1"),
        ({"bf16": {"enabled": "auto"}, "zero_optimization": {"stag": "auto"}}, "did you mean 'stage'"),
    ],
)
def test_a_bad_file_is_one_line(tmp_path: Path, value: Any, telling: str) -> None:
    with pytest.raises(BadInput, match=telling) as caught:
        read_file(write(tmp_path, value), config())
    assert "learner.config_file" in str(caught.value) and "\n" not in str(caught.value)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=r"nothing\.json"):
        read_file(tmp_path / "nothing.json", config())
