"""What a model in a sampler's memory holds, looked up by the names of the tensors that it was sent.

vLLM fuses matrices (`qkv_proj`), pads vocabularies, ties heads, wraps layers for adapters, and on a CPU packs matrices
into a form that nothing but its kernel can read: that is given columns of the unit matrix then, and what comes out are
the columns of the matrix, exactly.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from memfactory.samplers.checksums import FEW_COLUMNS, digest, sampled_columns

if TYPE_CHECKING:
    import torch

Layout = Mapping[str, Sequence[Any]]

#: More rows than a matrix has.
_NOWHERE = 2**40


def held_by_transformers(model: Any, layout: Layout) -> dict[str, Any]:
    """The fields of `checksums.Held` for a transformers model."""
    import torch

    own = model.state_dict(keep_vars=True)
    found = {
        name: digest(own[name].to(getattr(torch, kind))) for name, (kind, *_) in layout.items() if name in own
    }
    there = {own[name].data_ptr() for name in found}
    empty = [name for name, p in model.named_parameters() if p.data_ptr() not in there]
    return {"digests": found, "empty": empty}


def held_by_vllm(model: Any, layout: Layout, turn: int, shards: int = 1) -> dict[str, Any]:
    """The fields of `checksums.Held` for a vLLM model, as plain values; `shards` above 1: nothing is read."""
    if shards > 1:
        return {"digests": {}, "unread": list(layout)}
    import torch

    places = {name.replace(".base_layer.", "."): name for name, _ in model.named_parameters()}
    renamed = _renaming(model)
    lengths = {renamed(name): int(shape[0]) if shape else 1 for name, (_, *shape) in layout.items()}
    filled: dict[str, int] = {}
    digests: dict[str, int] = {}
    packed: list[str] = []
    unread: list[str] = []
    for name, (kind, *shape) in layout.items():
        inner, start = _place(model, renamed(name), lengths, places)
        if inner is None:
            unread.append(name)
            continue
        if start < 0:
            continue  # what stands before it in a fused matrix did not come, so nobody knows where it is
        owner, _, leaf = places[inner].rpartition(".")
        module = model.get_submodule(owner)
        parameter = getattr(module, leaf)
        dtype = getattr(torch, kind)
        rows = shape[0] if shape else 1
        filled[inner] = filled.get(inner, 0) + rows
        if parameter.numel():
            value = parameter.detach()
            part = value[start : start + rows] if value.ndim else value
            digests[name] = digest(part.to(dtype)) if tuple(part.shape) == tuple(shape) else -1
        elif leaf == "weight" and hasattr(module, "cpu_linear") and len(shape) == 2:
            if shape[1] > FEW_COLUMNS:
                packed.append(name)
            columns = _columns(module, shape[1], turn, parameter.dtype)[:, start : start + rows].to(dtype)
            # All of a narrow matrix is read: then its rows are compared as any other's.
            digests[name] = digest(columns.contiguous() if name in packed else columns.t())
        else:
            unread.append(name)
    for name in _stale_heads(model, layout, digests, turn):
        digests[name] = -1
    empty = [name for name in places if not _is_full(model, places[name], filled.get(name, 0))]
    return {"digests": digests, "packed": packed, "empty": empty, "unread": unread}


def _renaming(model: Any) -> Callable[[str], str]:
    """From names of a checkpoint to those of a vLLM model, fused matrices left apart."""
    mapper = getattr(model, "hf_to_vllm_mapper", None)
    if mapper is None:
        return lambda name: name
    # The whole mapper also names the fused matrix, but not the row at which a part begins in it.
    renames = mapper.get_rename_mapper().map_name
    return lambda name: renames(name) or name


def _place(
    model: Any, name: str, rows: Mapping[str, int], places: Mapping[str, str]
) -> tuple[str | None, int]:
    """The parameter that a tensor belongs to, and the row at which it begins there (below 0: not known).

    `rows` are those of all tensors.
    """
    if name in places:
        return name, 0
    owner, _, leaf = name.rpartition(".")
    parent, _, last = owner.rpartition(".")
    for fused, parts in (getattr(model, "packed_modules_mapping", None) or {}).items():
        inner = f"{parent}.{fused}.{leaf}"
        if last in parts and inner in places:
            before = [f"{parent}.{part}.{leaf}" for part in parts[: parts.index(last)]]
            return inner, sum(rows.get(other, -_NOWHERE) for other in before)
    return None, 0


def _columns(module: Any, width: int, turn: int, dtype: torch.dtype) -> torch.Tensor:
    """Chosen columns of a packed matrix [outputs, width] as rows: [columns, outputs]."""
    import torch

    chosen = sampled_columns(width, turn)
    ones = torch.zeros(len(chosen), width, dtype=dtype)
    ones[range(len(chosen)), chosen] = 1
    out: torch.Tensor = module.cpu_linear(ones, module.weight, None)
    return out


def _stale_heads(model: Any, layout: Layout, digests: Mapping[str, int], turn: int) -> Iterator[str]:
    """Sent names of which a layer keeps, beside the weight, a packed copy that is not the weight's."""
    import torch

    for path, module in model.named_modules():
        weight = getattr(module, "weight", None)
        if not hasattr(module, "cpu_linear") or weight is None or weight.ndim != 2 or not weight.numel():
            continue
        chosen = sampled_columns(weight.shape[1], turn)
        copy = _columns(module, weight.shape[1], turn, weight.dtype)
        if not torch.equal(copy, weight.detach()[:, chosen].t()):
            ours = f"{path.removesuffix('.base_layer')}.weight"
            if ours in layout:
                yield ours
            else:  # tied: it came under the embedding's name
                yield from (name for name in layout if name.endswith(("embed_tokens.weight", "wte.weight")))


def _is_full(model: Any, name: str, rows: int) -> bool:
    owner, _, leaf = name.rpartition(".")
    module = model.get_submodule(owner)
    parameter = getattr(module, leaf)
    if hasattr(module, "org_vocab_size"):  # what is beyond is padding
        return bool(rows >= module.org_vocab_size)
    if not parameter.numel():
        sizes = getattr(module, "output_partition_sizes", None)
        return rows >= (sum(sizes) if sizes else 1)
    return rows >= (parameter.shape[0] if parameter.ndim else 1)


def adapter_held_by_vllm(model: Any, layout: Layout, slot: int = 0, shards: int = 1) -> dict[str, Any]:
    """The fields of `checksums.Held` for the adapter in a slot; names as `plain_adapter_name` makes them."""
    if shards > 1:
        return {"digests": {}, "unread": list(layout)}
    import torch

    mapping = getattr(model, "packed_modules_mapping", None) or {}
    layers: dict[str, tuple[Any, int]] = {}
    for path, module in model.named_modules():
        stacked = getattr(module, "lora_a_stacked", None)
        if isinstance(stacked, tuple | list):
            parent, _, last = path.rpartition(".")
            parts = mapping.get(last, [last]) if len(stacked) > 1 else [last]
            for number, part in enumerate(parts[: len(stacked)]):
                layers[f"{parent}.{part}"] = (module, number)
    digests, unread = {}, []
    for name, (kind, *shape) in layout.items():
        owner, _, side = name.rpartition(".")
        module, number = layers.get(owner, (None, 0))
        if module is None:
            unread.append(name)
            continue
        stack = (module.lora_a_stacked if side == "lora_A" else module.lora_b_stacked)[number]
        part = stack[slot, 0, : shape[0], : shape[1]]
        digests[name] = digest(part.to(getattr(torch, kind))) if list(part.shape) == list(shape) else -1
    return {"digests": digests, "unread": unread}
