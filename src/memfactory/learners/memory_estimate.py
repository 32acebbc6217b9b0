"""Bytes that a learner holds on each rank, from the model's shape and the recipe's settings: arithmetic only.

docs/memory_estimate.md has the formulas in words; `scripts/check_memory_estimate.py` compares them with processes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from memfactory.models.architecture import ModelShape

#: Float32 logits of one chunk of `scoring.TokenScorer` (64 MiB), and how many tensors of that size live at once.
_CHUNK_BYTES, _CHUNK_COPIES = 4 * 2**24, 3
#: Buckets in which DeepSpeed exchanges: elements of one, in each direction.
_BUCKET = 5 * 10**8


@dataclass(frozen=True)
class LearnerLayout:
    """What of a recipe decides the learner's memory. `world`: ranks that share the work.

    `reference`: a KL term keeps the initial weights. `sharded`: the learner is DeepSpeed. `dtype`, `zero_stage` and
    the other names are the learner's fields. `longest`: tokens of the longest row; a row is never cut.
    `scored_tokens`: completion tokens of a micro-batch (None: all of it may be).
    """

    world: int = 1
    sharded: bool = False
    zero_stage: int = 2
    offload_optimizer: bool = False
    offload_param: bool = False
    dtype: str = "float32"
    micro_batch_tokens: int = 8192
    longest: int = 0
    scored_tokens: int | None = None
    gradient_checkpointing: bool = False
    lora_rank: int = 0
    lora_targets: Sequence[str] = ("all-linear",)
    quantization: str | None = None
    reference: bool = False


def adapter_parameters(shape: ModelShape, layout: LearnerLayout) -> int:
    """Parameters of the LoRA adapters: rank × (inputs + outputs) of each layer that gets one."""
    every = list(layout.lora_targets) == ["all-linear"]
    chosen = [
        (inputs, outputs)
        for name, inputs, outputs in shape.linear
        if every or any(name == target or name.endswith(f".{target}") for target in layout.lora_targets)
    ]
    return layout.lora_rank * sum(inputs + outputs for inputs, outputs in chosen)


def learner_memory(shape: ModelShape, layout: LearnerLayout) -> dict[str, float]:
    """Bytes of one rank at the peak of an update, by purpose; `host: …` lie in the machine's memory instead.

    The peak is in a backward pass that adds to the gradients of an earlier micro-batch, with the optimizer's moments
    made: from the second micro-batch of the second step on.
    """
    lora = layout.lora_rank > 0
    base, trained = float(shape.parameters), float(shape.parameters)
    if lora:
        trained = float(adapter_parameters(shape, layout))
    value = 2.0 if layout.dtype == "bfloat16" else 4.0
    mixed = layout.sharded and layout.dtype == "bfloat16"  # bfloat16 weights over float32 master weights
    shard = layout.world if layout.sharded else 1
    stage = layout.zero_stage if layout.sharded else 0
    parts: dict[str, float] = {}

    weights = base * value if lora or mixed else base * 4
    if layout.quantization == "nf4":
        weights = _nf4(shape, value)
    if lora:
        weights += trained * (value if mixed else 4)
    parts["weights"] = weights / (shard if stage == 3 else 1)
    parts["gradients"] = trained * 4 / (shard if stage >= 2 else 1)
    # Two moments; stages 1 to 3 step on a float32 copy of the shard.
    optimizer = trained * (8 + (4 if stage >= 1 else 0)) / (shard if stage >= 1 else 1)
    parts["optimizer"] = optimizer
    if layout.reference and not lora:
        parts["reference"] = base * value / (shard if stage == 3 else 1)
    if value == 2 and not layout.sharded and not lora:
        parts["autocast copies"] = base * 2
    parts["activations"], layer = activation_bytes(shape, layout)
    # The output embedding goes backward before the first layer does: never both at once.
    if layout.quantization == "nf4":  # a weight is unpacked where it is used, and goes again
        layer += value * max((inputs * outputs for _, inputs, outputs in shape.linear), default=0)
    parts["one layer or logits"] = max(layer, head_bytes(shape, layout))
    if layout.sharded and layout.world > 1:
        parts["buckets"] = min(_BUCKET, trained) * (2 if mixed else 4) * 2 + (
            min(base, 10**9) * value if stage == 3 else 0.0
        )
    if layout.offload_optimizer:
        parts["host: optimizer"] = parts.pop("optimizer")
        if stage >= 2:
            parts["host: gradients"] = parts.pop("gradients")
    if layout.offload_param:
        parts["host: weights"] = parts.pop("weights")
    return parts


def activation_bytes(shape: ModelShape, layout: LearnerLayout) -> tuple[float, float]:
    """Bytes that one micro-batch keeps for its backward pass, and those that come and go with each layer in it.

    A layer keeps for each token: both norms' inputs, normalised values and outputs (6 hidden); rotated query, key,
    value and the attention's output; where query and key are normalised, those twice more; gate, its activation, up
    and their product (4 intermediate). With gradient checkpointing the input of each layer stays, and one layer
    is whole while it is computed again. The gradients of two intermediate vectors live beside a layer.
    """
    tokens = max(layout.micro_batch_tokens, layout.longest)
    narrow = layout.dtype == "bfloat16"
    lora = layout.lora_rank > 0
    residual = 2 if narrow and (layout.sharded or lora) else 4  # bytes of a value in the residual stream
    value = 2 if narrow else 4
    # In bfloat16, norms compute in float32 and hand on bfloat16.
    norms = shape.hidden * 2 * (12 if not narrow else 10 if residual == 4 else 8)
    if lora and not narrow:
        norms = shape.hidden * 2 * 8  # frozen scales need no normalised values
    attention = (2 * shape.query + 2 * shape.key_value) * value
    if shape.query_norm:
        attention += (shape.query + shape.key_value) * (8 if not lora else 4)
    layer = norms + attention + 4 * shape.intermediate * value
    last = 3 * shape.hidden * residual
    gradients = 2 * shape.intermediate * value
    if layout.gradient_checkpointing:
        return tokens * (shape.layers * shape.hidden * residual + last), tokens * (layer + gradients)
    return tokens * (shape.layers * layer + last), tokens * gradients


def head_bytes(shape: ModelShape, layout: LearnerLayout) -> float:
    """Bytes of a chunk of logits in the backward pass, and of new gradients of the output embedding.

    All chunks' gradients of the embedding are added up before they join the others: two of its size.
    """
    tokens = max(layout.micro_batch_tokens, layout.longest)
    scored = tokens if layout.scored_tokens is None else layout.scored_tokens
    chunk = min(_CHUNK_BYTES, 4 * scored * shape.vocabulary) * _CHUNK_COPIES
    value = 2.0 if layout.sharded and layout.dtype == "bfloat16" else 4.0
    embedding = 0.0 if layout.lora_rank > 0 else 2 * value * shape.vocabulary * shape.hidden
    return chunk + embedding


def _nf4(shape: ModelShape, value: float) -> float:
    """Weights as bitsandbytes' NF4 with double quantization: 0.516 bytes in linear layers, `value` elsewhere."""
    packed = sum(inputs * outputs for _, inputs, outputs in shape.linear)
    return packed * (0.5 + 1 / 64 + 4 / (64 * 256)) + (shape.parameters - packed) * value


def on_device(parts: Mapping[str, float]) -> float:
    """Sum of what lies on the device."""
    return sum(size for name, size in parts.items() if not name.startswith("host: "))
