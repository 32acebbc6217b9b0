"""LoRA by peft: put adapters in, switch them off for the reference, and hand out merged weights.

Base weights are never touched: merging happens on copies, tensor by tensor, so nothing is lost to rounding.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from memfactory.core.errors import BadInput


def add_lora(
    model: Any, *, rank: int, alpha: int, dropout: float, targets: Sequence[str] | str, seed: int
) -> Any:
    """Return a peft model with LoRA adapters on `targets`; only they are trainable, in float32.

    `targets` are names of linear layers, or `"all-linear"` (all but the output embedding). `seed` draws the
    adapters' first matrices; the second start at zero, so the policy is unchanged. Hu et al. 2021, arXiv 2106.09685.

    Raises:
        BadInput: no layer has such a name.
    """
    from peft import LoraConfig, get_peft_model

    names = targets if isinstance(targets, str) else list(targets)
    config = LoraConfig(
        r=rank,
        lora_alpha=alpha,
        lora_dropout=dropout,
        target_modules=names,
        bias="none",
        task_type="CAUSAL_LM",
    )
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        try:
            return get_peft_model(model, config)
        except ValueError as error:
            raise BadInput(f"learner.lora_targets: {str(error).splitlines()[0]}") from error


def merged_weights(model: Any) -> Iterator[tuple[str, Tensor]]:
    """The model's weights under the names of its Hugging Face checkpoint, adapters merged in, tied weights once.

    Tensors share memory with the model where nothing had to be merged. Of tied tensors only the first
    comes (`model.embed_tokens.weight`, not `lm_head.weight`), as in a saved folder.
    """
    if hasattr(model, "get_base_model"):
        yield from _in_checkpoint_format(model.get_base_model(), _merge(model.get_base_model()))
    else:
        yield from _in_checkpoint_format(model, _distinct(model.state_dict().items()))


def _merge(model: Any) -> Iterator[tuple[str, Tensor]]:
    """Weights of a model with peft layers, with `.base_layer` and the adapters gone from the names."""
    from peft.tuners.tuners_utils import BaseTunerLayer

    layers: dict[str, Any] = {
        name: module for name, module in model.named_modules() if isinstance(module, BaseTunerLayer)
    }
    for name, tensor in _distinct(model.state_dict().items()):
        owner, found, leaf = name.rpartition(".base_layer.")
        if found and leaf == "weight":
            layer = layers[owner]
            merged = tensor.float()
            for adapter in layer.active_adapters:
                merged = merged + layer.get_delta_weight(adapter).float()
            yield f"{owner}.weight", merged.to(tensor.dtype)
        elif found:
            yield f"{owner}.{leaf}", tensor
        elif not any(name.startswith(f"{layer}.") for layer in layers):
            yield name, tensor


def _distinct(items: Any) -> Iterator[tuple[str, Tensor]]:
    seen: set[tuple[int, tuple[int, ...]]] = set()
    for name, tensor in items:
        key = (tensor.data_ptr(), tuple(tensor.shape))
        if tensor.numel() and key in seen:
            continue
        seen.add(key)
        yield name, tensor.detach()


def _in_checkpoint_format(model: Any, items: Iterator[tuple[str, Tensor]]) -> Iterator[tuple[str, Tensor]]:
    """Undo the renaming and fusing that transformers does while loading some architectures (MoE, mostly)."""
    if not getattr(model, "_weight_conversions", None):
        yield from items
        return
    from transformers.core_model_loading import revert_weight_conversion

    yield from revert_weight_conversion(model, dict(items)).items()
