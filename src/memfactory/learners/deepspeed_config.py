"""DeepSpeed's JSON: made from the recipe, or the user's own file with its `auto` values filled in."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from memfactory.core.errors import BadInput, did_you_mean

#: What the recipe says already; two places for one setting would contradict each other sooner or later.
_OF_THE_RECIPE = {
    "optimizer": "learner.lr, learner.betas and learner.weight_decay",
    "scheduler": "learner.schedule and learner.warmup_steps",
    "fp16": "learner.dtype: bfloat16 (float16 with loss scaling is not supported)",
    "amp": "learner.dtype",
    "torch_autocast": "learner.dtype",
}
_STAGE_0 = (
    "learner.zero_stage 0 would sum gradients in bfloat16; with learner.dtype=bfloat16 use zero_stage 1 to 3"
)
#: Micro-batches are cut by tokens, so DeepSpeed counts none; these may only say what is always true here.
_FIXED = {"train_micro_batch_size_per_gpu": 1, "gradient_accumulation_steps": 1}


def generate(
    *, zero_stage: int, offload_optimizer: bool, offload_param: bool, dtype: str, clip_norm: float, world: int
) -> dict[str, Any]:
    """The configuration that a recipe's fields describe (https://www.deepspeed.ai/docs/config-json).

    `clip_norm` 0 is no clipping. Gradients are summed in float32. AdamW stays torch's own also where its state is
    offloaded: DeepSpeed's needs a compiler at run time, and a run must end the same with and without it.

    Raises:
        BadInput: a stage that does not exist, or one that cannot offload or compute as asked.
    """
    if zero_stage not in (0, 1, 2, 3):
        raise BadInput(f"learner.zero_stage must be 0, 1, 2 or 3, not {zero_stage}")
    if offload_optimizer and zero_stage == 0:
        raise BadInput("learner.offload_optimizer needs learner.zero_stage 1, 2 or 3")
    if offload_param and zero_stage != 3:
        raise BadInput("learner.offload_param needs learner.zero_stage 3")
    if zero_stage == 0 and dtype == "bfloat16":
        raise BadInput(_STAGE_0)
    zero: dict[str, Any] = {"stage": zero_stage}
    if offload_optimizer:
        zero["offload_optimizer"] = {"device": "cpu", "pin_memory": True}
    if offload_param:
        zero["offload_param"] = {"device": "cpu", "pin_memory": True}
    if zero_stage == 3:
        # The policy must never be saved as shards by DeepSpeed: we gather the tensors ourselves.
        zero["stage3_gather_16bit_weights_on_model_save"] = False
    return {
        **_FIXED,
        "train_batch_size": world,
        "gradient_clipping": clip_norm,
        "bf16": {"enabled": dtype == "bfloat16"},
        "data_types": {"grad_accum_dtype": "fp32"},
        "zero_optimization": zero,
        "zero_allow_untested_optimizer": True,
        "zero_force_ds_cpu_optimizer": False,
        "steps_per_print": 2**62,
        "wall_clock_breakdown": False,
    }


def read_file(path: Path, generated: Mapping[str, Any]) -> dict[str, Any]:
    """The user's file in place of `generated`; values `"auto"` are taken from there.

    Raises:
        BadInput: the file is missing, no JSON object, or sets what the recipe sets.
    """
    try:
        given = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else f"not JSON: {error}"
        raise BadInput(f"learner.config_file: cannot read {path} ({reason})") from error
    if not isinstance(given, dict):
        raise BadInput(f"learner.config_file: {path} does not hold a JSON object")
    for key, where in _OF_THE_RECIPE.items():
        if _is_on(given.get(key)):
            raise BadInput(f"learner.config_file: {path}: leave '{key}' out; set {where} in the recipe")
    for key, value in (*_FIXED.items(), ("train_batch_size", generated["train_batch_size"])):
        if given.get(key, "auto") not in ("auto", value):
            raise BadInput(
                f"learner.config_file: {path}: '{key}' must be \"auto\" or left out; micro-batches are cut by "
                "learner.micro_batch_tokens"
            )
    filled = _fill(given, generated, path, "")
    wants_bf16 = bool(generated["bf16"]["enabled"])
    if bool(filled.get("bf16", {}).get("enabled", False)) != wants_bf16:
        raise BadInput(
            f'learner.config_file: {path}: bf16.enabled and learner.dtype disagree; write "auto" or '
            f"learner.dtype={'float32' if wants_bf16 else 'bfloat16'}"
        )
    if wants_bf16 and filled.get("zero_optimization", {}).get("stage", 0) == 0:
        raise BadInput(f"learner.config_file: {path}: {_STAGE_0}")
    needed = ("train_batch_size", *_FIXED, "zero_allow_untested_optimizer", "zero_force_ds_cpu_optimizer")
    defaults = {key: generated[key] for key in (*needed, "steps_per_print", "data_types")}
    return {**defaults, "zero_optimization": {"stage": 0}, **filled}


def _is_on(section: Any) -> bool:
    if isinstance(section, Mapping) and "enabled" in section:
        return bool(section["enabled"])
    return section is not None


def _fill(given: Mapping[str, Any], generated: Any, path: Path, key: str) -> dict[str, Any]:
    """`given` with each `"auto"` replaced by the generated value of the same place."""
    filled: dict[str, Any] = {}
    for name, value in given.items():
        where = f"{key}.{name}" if key else name
        known = generated if isinstance(generated, Mapping) else {}
        if isinstance(value, Mapping):
            filled[name] = _fill(value, known.get(name), path, where)
        elif value == "auto":
            if name not in known:
                hint = did_you_mean(name, known)
                raise BadInput(
                    f"learner.config_file: {path}: '{where}' is \"auto\", but the recipe has no value for it{hint}"
                )
            filled[name] = known[name]
        else:
            filled[name] = value
    return filled
