"""The model that a learner trains: loaded, quantized, given adapters and faster kernels, as the settings say."""

from __future__ import annotations

import importlib.util
import inspect
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from memfactory.core.errors import BadInput
from memfactory.learners.settings import compute_dtype

if TYPE_CHECKING:
    from memfactory.learners.local import LocalLearnerConfig


def load_for_training(
    model: Any, tokenizer: Any, *, config: LocalLearnerConfig, weights: str, device: torch.device
) -> tuple[Any, Any]:
    """A causal LM (loaded if `model` is a folder) with weights of type `weights` on the device, and a tokenizer.

    With `config.quantization` its linear layers are NF4 instead; with `config.liger` it runs liger's kernels.

    Raises `BadInput` if the folder does not hold a model and its tokenizer, or a package is missing.
    """
    require_packages(config, device)
    if isinstance(model, str | Path):
        from memfactory.models.load import load_policy, load_tokenizer

        folder = Path(model)
        tokenizer = tokenizer if tokenizer is not None else load_tokenizer(folder)
        model = load_policy(
            folder,
            dtype=weights,
            device=str(device),
            attn=config.attention,
            quantization=config.quantization,
        )
    elif config.quantization is not None:
        raise BadInput(
            f"learner.quantization {config.quantization} needs the folder of a model, not a loaded one"
        )
    elif model.config._attn_implementation != config.attention:
        model.set_attn_implementation(config.attention)
    if config.quantization is None:
        model = cast_parameters(model.to(device), compute_dtype(weights))
    if config.liger:
        apply_liger(model)
    return model, tokenizer


def cast_parameters(model: Any, dtype: torch.dtype) -> Any:
    """Change the type of a model's parameters, in place; buffers (rotary frequencies) stay as they are."""
    for parameter in model.parameters():
        parameter.data = parameter.data.to(dtype)
    return model


def require_packages(config: LocalLearnerConfig, device: torch.device) -> None:
    """Refuse what this machine cannot do, before weights are loaded. Raises `BadInput` naming key and remedy."""
    if config.quantization is not None and importlib.util.find_spec("bitsandbytes") is None:
        raise BadInput(
            f"learner.quantization {config.quantization} needs the package bitsandbytes: "
            "pip install 'memfactory[qlora]'"
        )
    if config.attention == "flash_attention_2":
        if device.type != "cuda" or config.dtype != "bfloat16":
            raise BadInput(
                "learner.attention flash_attention_2 needs a GPU and learner.dtype=bfloat16; use sdpa here"
            )
        if importlib.util.find_spec("flash_attn") is None:
            raise BadInput(
                "learner.attention flash_attention_2 needs the package flash-attn: pip install flash-attn, "
                "or use sdpa"
            )
    if config.liger:
        if device.type != "cuda":
            raise BadInput(
                f"learner.liger needs a GPU (its kernels are Triton's), and the learner runs on '{device.type}'; "
                "leave it out"
            )
        if importlib.util.find_spec("liger_kernel") is None:
            raise BadInput(
                "learner.liger needs the package liger-kernel: pip install 'memfactory[liger]', or leave it out"
            )


def apply_liger(model: Any) -> None:
    """Replace norms, rotary embedding and the gated layers of a loaded model by liger's kernels, in place.

    None of its losses: `scoring.TokenScorer` needs the hidden states, and has no logits to fuse. Hsu et al. 2024,
    arXiv 2410.10989. Run on one GPU (`tests/gpu`). Liger also replaces functions that all models of this kind share, so
    other models of this process get them too.

    Raises:
        BadInput: liger has no kernels for this architecture.
    """
    from liger_kernel.transformers.monkey_patch import MODEL_TYPE_TO_APPLY_LIGER_FN

    kind = model.config.model_type
    apply = MODEL_TYPE_TO_APPLY_LIGER_FN.get(kind)
    if apply is None:
        raise BadInput(
            f"learner.liger: liger-kernel has no kernels for models of type '{kind}'; leave it out"
        )
    apply(model=model, **liger_options(apply))


def liger_options(apply: Any) -> dict[str, bool]:
    """What to ask of one of liger's functions: every kernel that it offers, except for losses."""
    return {
        name: "cross_entropy" not in name
        for name, parameter in inspect.signature(apply).parameters.items()
        if isinstance(parameter.default, bool)
    }
