"""LoRA by peft: put adapters in, switch them off for the reference, and hand out merged weights.

Base weights are never touched: merging happens on copies, tensor by tensor, so nothing is lost to rounding.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from memfactory.core.errors import BadInput

#: The file of an adapter folder that has the matrices.
ADAPTER_FILE = "adapter_model.safetensors"

Gather = Callable[[Sequence[Tensor]], AbstractContextManager[Any]]


def add_lora(
    model: Any, *, rank: int, alpha: int, dropout: float, targets: Sequence[str] | str, seed: int
) -> Any:
    """Return a peft model with LoRA adapters on `targets`; only they are trainable, in float32.

    `targets` are names of linear layers, or `"all-linear"` (all but the output embedding). `seed` draws the
    adapters' first matrices; the second start at zero, so the policy is unchanged. Hu et al. 2021, arXiv 2106.09685.

    Raises:
        BadInput: no layer has such a name, or one of them shares its weights with another layer.
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
    shared = _shared_weights(model)
    with torch.random.fork_rng(), warnings.catch_warnings():
        torch.manual_seed(seed)
        warnings.filterwarnings("ignore", message=".*tie_word_embeddings")  # refused below
        try:
            adapted = get_peft_model(model, config)
        except ValueError as error:
            raise BadInput(f"learner.lora_targets: {str(error).splitlines()[0]}") from error
    for name, module in adapted.get_base_model().named_modules():
        if name in shared and hasattr(module, "base_layer"):
            raise BadInput(
                f"learner.lora_targets: '{name}' shares its weights with '{shared[name]}' (tied embeddings), so an "
                "adapter on one of them alone cannot be merged into the model; leave it out, or train all weights "
                "(learner.lora_rank=0)"
            )
    return adapted


def _shared_weights(model: Any) -> dict[str, str]:
    """Name of a module whose weight another module has too -> name of that one."""
    owners: dict[int, list[str]] = {}
    for name, parameter in model.named_parameters(remove_duplicate=False):
        owners.setdefault(id(parameter), []).append(name.rpartition(".")[0])
    return {
        name: next(other for other in names if other != name)
        for names in owners.values()
        for name in names
        if len(set(names)) > 1
    }


@dataclass(frozen=True)
class Adapter:
    """LoRA adapters without the model: settings as in `add_lora`, and matrices under the names of a peft model."""

    rank: int
    alpha: int
    dropout: float
    targets: Sequence[str] | str
    tensors: Mapping[str, Tensor]

    def write(self, folder: Path, base: str | None = None) -> None:
        """Write a folder that peft and vLLM load as an adapter of the model `base`; raises `OSError`."""
        from peft import LoraConfig

        # peft leaves its own name of the adapter out of files; all-linear is written as the layers that it meant.
        named = {
            re.sub(r"\.default(?=\.|$)", "", name, count=1): tensor.detach().cpu().contiguous()
            for name, tensor in self.tensors.items()
        }
        layers = (re.sub(r"^base_model\.model\.|\.lora_[AB]\.weight$", "", name) for name in named)
        everything = self.targets == "all-linear" or list(self.targets) == ["all-linear"]
        names = sorted({layer.rpartition(".")[2] for layer in layers}) if everything else list(self.targets)
        config = LoraConfig(
            r=self.rank,
            lora_alpha=self.alpha,
            lora_dropout=self.dropout,
            target_modules=names,
            bias="none",
            task_type="CAUSAL_LM",
            inference_mode=True,
            base_model_name_or_path=base,
        )
        config.save_pretrained(str(folder))
        save_file(named, folder / ADAPTER_FILE, metadata={"format": "pt"})


def merged_weights(
    model: Any, gathered: Gather = lambda parameters: nullcontext(), *, merge: bool = True
) -> Iterator[tuple[str, Tensor]]:
    """The model's weights under the names of its Hugging Face checkpoint, adapters merged in, tied weights once.

    Tensors share memory with the model where nothing had to be merged. Of tied tensors only the first
    comes (`model.embed_tokens.weight`, not `lm_head.weight`), as in a saved folder.

    `gathered(parameters)` makes sharded parameters whole while its context is active; what comes of those is a copy,
    one layer at a time. Without `merge` adapters are left out: the weights that they stand on.
    """
    if hasattr(model, "get_base_model"):
        base = model.get_base_model()
        yield from _in_checkpoint_format(base, _merge(base, gathered, merge))
    else:
        yield from _in_checkpoint_format(model, _plain(model, gathered))


def _plain(model: Any, gathered: Gather) -> Iterator[tuple[str, Tensor]]:
    for name, tensor in _distinct(model):
        with gathered([tensor]):
            whole = _whole(tensor)
        yield name, whole


def _merge(model: Any, gathered: Gather, merge: bool = True) -> Iterator[tuple[str, Tensor]]:
    """Weights of a model with peft layers, with `.base_layer` and the adapters gone from the names."""
    from peft.tuners.tuners_utils import BaseTunerLayer

    layers: dict[str, Any] = {
        name: module for name, module in model.named_modules() if isinstance(module, BaseTunerLayer)
    }
    for name, tensor in _distinct(model):
        owner, found, leaf = name.rpartition(".base_layer.")
        if found and leaf == "weight":
            layer = layers[owner]
            with torch.no_grad(), gathered(list(layer.parameters())):
                merged = unpacked(tensor).float()
                for adapter in layer.active_adapters if merge else ():
                    merged = merged + layer.get_delta_weight(adapter).float()
            yield f"{owner}.weight", merged if is_packed(tensor) else merged.to(tensor.dtype)
        elif found or not any(name.startswith(f"{layer}.") for layer in layers):
            with gathered([tensor]):
                whole = _whole(unpacked(tensor))
            yield (f"{owner}.{leaf}" if found else name), whole


def adapted_weights(
    model: Any, gathered: Gather = lambda parameters: nullcontext()
) -> Iterator[tuple[Tensor, Tensor]]:
    """(weight below an adapter, the same with its adapters merged in) of every adapted layer, in float32, unrounded."""
    from peft.tuners.tuners_utils import BaseTunerLayer

    layers: list[Any] = [module for module in model.modules() if isinstance(module, BaseTunerLayer)]
    for layer in layers:
        with torch.no_grad(), gathered(list(layer.parameters())):
            weight = unpacked(layer.get_base_layer().weight).to(torch.float32, copy=True)
            merged = weight
            for adapter in layer.active_adapters:
                merged = merged + layer.get_delta_weight(adapter).float()
        yield weight, merged


def _distinct(model: Any) -> Iterator[tuple[str, Tensor]]:
    """Parameters and saved buffers, of tied ones the first.

    Sharded ones are known by identity: what they hold comes and goes.
    """
    seen: set[tuple[int, ...]] = set()
    scales = tuple(f"{name}." for name, tensor in model.named_parameters() if is_packed(tensor))
    for name, tensor in model.state_dict(keep_vars=True).items():
        if scales and name.startswith(scales):
            continue  # belongs to the packed weight
        sharded = hasattr(tensor, "ds_id") or not tensor.numel()
        key = (id(tensor),) if sharded else (tensor.data_ptr(), *tensor.shape)
        if key not in seen:
            seen.add(key)
            yield name, tensor


def is_packed(tensor: Tensor) -> bool:
    """Whether this weight is bitsandbytes' 4 bits."""
    return getattr(tensor, "quant_state", None) is not None


def unpacked(tensor: Tensor) -> Tensor:
    """A weight as the forward pass uses it: packed ones dequantized, `[outputs, inputs]`; others as they are."""
    if not is_packed(tensor):
        return tensor
    from bitsandbytes.functional import dequantize_4bit

    return dequantize_4bit(tensor.data, tensor.quant_state)  # type: ignore[attr-defined]


def _whole(tensor: Tensor) -> Tensor:
    return tensor.detach().clone() if hasattr(tensor, "ds_id") else tensor.detach()


def _in_checkpoint_format(model: Any, items: Iterator[tuple[str, Tensor]]) -> Iterator[tuple[str, Tensor]]:
    """Undo the renaming and fusing that transformers does while loading some architectures (MoE, mostly)."""
    if not getattr(model, "_weight_conversions", None):
        yield from items
        return
    from transformers.core_model_loading import revert_weight_conversion

    yield from revert_weight_conversion(model, dict(items)).items()
