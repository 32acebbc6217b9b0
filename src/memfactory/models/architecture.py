"""The numbers of a model that its memory depends on, from its configuration alone: no weights, no network."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from memfactory.core.compat import prepare_imports
from memfactory.core.errors import BadInput

_QWEN2_5 = {"model_type": "qwen2", "vocab_size": 152064, "max_position_embeddings": 32768}
_QWEN3 = {
    "model_type": "qwen3",
    "vocab_size": 151936,
    "head_dim": 128,
    "num_key_value_heads": 8,
    "tie_word_embeddings": True,
}

#: What `config.json` says of the models that shipped recipes name, so that they can be planned for without it.
KNOWN: Mapping[str, Mapping[str, Any]] = {
    "Qwen/Qwen3-1.7B": {
        **_QWEN3,
        "hidden_size": 2048,
        "intermediate_size": 6144,
        "num_hidden_layers": 28,
        "num_attention_heads": 16,
        "max_position_embeddings": 40960,
    },
    "Qwen/Qwen3-4B-Instruct-2507": {
        **_QWEN3,
        "hidden_size": 2560,
        "intermediate_size": 9728,
        "num_hidden_layers": 36,
        "num_attention_heads": 32,
        "max_position_embeddings": 262144,
    },
    "Qwen/Qwen2.5-7B-Instruct": {
        **_QWEN2_5,
        "hidden_size": 3584,
        "intermediate_size": 18944,
        "num_hidden_layers": 28,
        "num_attention_heads": 28,
        "num_key_value_heads": 4,
    },
    "Qwen/Qwen2.5-14B-Instruct": {
        **_QWEN2_5,
        "hidden_size": 5120,
        "intermediate_size": 13824,
        "num_hidden_layers": 48,
        "num_attention_heads": 40,
        "num_key_value_heads": 8,
    },
    "meta-llama/Llama-3.1-8B-Instruct": {
        "model_type": "llama",
        "vocab_size": 128256,
        "hidden_size": 4096,
        "intermediate_size": 14336,
        "num_hidden_layers": 32,
        "num_attention_heads": 32,
        "num_key_value_heads": 8,
        "max_position_embeddings": 131072,
    },
}


@dataclass(frozen=True)
class ModelShape:
    """Sizes of a decoder. `linear` are its linear layers but the output embedding: (name, inputs, outputs).

    `query`, `key_value`: widths of a token's query and of its key (as of its value) in one layer.
    `positions` is the longest context in tokens (None: not said).
    """

    parameters: int
    layers: int
    hidden: int
    intermediate: int
    vocabulary: int
    query: int
    key_value: int
    tied: bool
    query_norm: bool
    positions: int | None
    linear: tuple[tuple[str, int, int], ...]

    def kv_bytes(self, bytes_per_value: int) -> int:
        """Bytes of one token in the KV cache."""
        return 2 * self.layers * self.key_value * bytes_per_value


def find_shape(path: str) -> ModelShape:
    """The shape of what `model.path` names: an alias, a folder, a hub id that is in the hub's cache or known here.

    A folder needs a `config.json` only. Nothing is downloaded. Raises `BadInput` if no configuration is found or
    transformers does not know its architecture.
    """
    return shape_of(_configuration(path), path)


def _configuration(path: str) -> Mapping[str, Any]:
    from memfactory.models.source import ALIASES

    if path in ALIASES:
        return _read(ALIASES[path]() / "config.json")
    folder = Path(path).expanduser()
    if folder.is_dir():
        return _read(folder / "config.json")
    if "/" in path:
        from huggingface_hub import try_to_load_from_cache
        from huggingface_hub.errors import HFValidationError

        try:
            cached = try_to_load_from_cache(path, "config.json")
        except HFValidationError:
            cached = None
        if isinstance(cached, str):
            return _read(Path(cached))
    if path in KNOWN:
        return KNOWN[path]
    raise BadInput(
        f"model.path: the sizes of '{path}' are not known here; put the model's config.json into a folder and name "
        "that as model.path"
    )


def _read(file: Path) -> Mapping[str, Any]:
    try:
        value = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise BadInput(f"{file}: not readable as a model's configuration: {error}") from None
    if not isinstance(value, dict) or not isinstance(value.get("model_type"), str):
        raise BadInput(f"{file}: not a model's config: no model_type in it")
    return value


def shape_of(config: Mapping[str, Any], name: str) -> ModelShape:
    """The shape that a `config.json` describes; the model is built without memory (torch's meta device).

    Raises `BadInput`, naming `name`, for an architecture that transformers does not know.
    """
    prepare_imports()
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    fields = {key: value for key, value in config.items() if key not in ("model_type", "quantization_config")}
    try:
        made = AutoConfig.for_model(config["model_type"], **fields)
        with torch.device("meta"):
            model: Any = AutoModelForCausalLM.from_config(made)
    except Exception as error:  # transformers raises whatever its classes raise
        first = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise BadInput(
            f"model.path: '{name}': cannot build the model from its config: {first[:200]}"
        ) from error
    text = made.get_text_config()
    heads = text.num_attention_heads
    width = getattr(text, "head_dim", None) or text.hidden_size // heads
    modules = dict(model.named_modules())
    output = model.get_output_embeddings()
    return ModelShape(
        parameters=sum(p.numel() for p in model.parameters()),
        layers=text.num_hidden_layers,
        hidden=text.hidden_size,
        intermediate=getattr(text, "intermediate_size", None) or 4 * text.hidden_size,
        vocabulary=text.vocab_size,
        query=heads * width,
        key_value=(getattr(text, "num_key_value_heads", None) or heads) * width,
        tied=bool(text.tie_word_embeddings),
        query_norm=any(part.endswith(".q_norm") for part in modules),
        positions=getattr(text, "max_position_embeddings", None),
        linear=tuple(
            (part, module.in_features, module.out_features)
            for part, module in modules.items()
            if isinstance(module, torch.nn.Linear) and module is not output
        ),
    )
