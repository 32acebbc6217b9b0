"""DeepSpeed's engine around a policy: how it is started, and its sharded state as full tensors.

Everything that depends on DeepSpeed's version is in this file.
"""

from __future__ import annotations

import contextlib
import logging
import os
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import torch
from torch import Tensor

from memfactory.algorithms.rows import Batch
from memfactory.core.compat import prepare_imports, quiet_stderr
from memfactory.core.errors import BadInput
from memfactory.learners.optimizer import decay_order
from memfactory.learners.scoring import TokenScorer


class ScoringModule(torch.nn.Module):
    """The policy with its scorer as one module, so that the engine's hooks on the outermost module fire."""

    def __init__(self, model: torch.nn.Module, scorer: TokenScorer) -> None:
        super().__init__()
        self.model = model
        self.head = scorer.head
        self._scorer = scorer

    def forward(self, batch: Batch, temperature: float = 1.0) -> tuple[Tensor, Tensor]:
        """Log-probs and entropies of the batch; see `scoring.TokenScorer`."""
        return self._scorer(batch, temperature)


def start_engine(
    module: ScoringModule, optimizer: torch.optim.Optimizer | None, config: Mapping[str, Any]
) -> Any:
    """A DeepSpeed engine on `module`; without an optimizer only its parameters are sharded (a reference)."""
    deepspeed = import_deepspeed()
    if config["zero_optimization"]["stage"] == 3 and not module.head.plain:
        raise BadInput(
            "learner.zero_stage 3 cannot train an output embedding with adapters or of a kind of its own; "
            "leave it out of learner.lora_targets, or use zero_stage 2"
        )
    deepspeed.utils.set_z3_leaf_module(module.head, True)
    buffers = {name: buffer.clone() for name, buffer in module.named_buffers()}
    if config["zero_optimization"]["stage"] == 3:
        _shard(deepspeed, module, config)
    with quiet_output():
        engine, *_ = deepspeed.initialize(
            model=module,
            optimizer=optimizer,
            config=dict(config),
            dist_init_required=False,
        )
    for name, buffer in module.named_buffers():
        # bfloat16 training casts buffers too; rotary frequencies must stay what the sampler uses.
        buffer.data = buffers[name].to(engine.device)
    return engine


def _shard(deepspeed: Any, module: ScoringModule, config: Mapping[str, Any]) -> None:
    """Give each rank its part of the weights, from wherever they were loaded: one tensor at a time is on the device.

    The engine would do it too, but move the whole model there first.
    """
    if config["bf16"]["enabled"]:
        for parameter in module.parameters():
            parameter.data = parameter.data.to(torch.bfloat16)
    with quiet_output():
        deepspeed.zero.Init(module=module, config_dict_or_path=dict(config))


def import_deepspeed() -> Any:
    """DeepSpeed, joined to the process group that exists; nothing is compiled."""
    prepare_imports()
    os.environ.setdefault("DS_IGNORE_CUDA_DETECTION", "1")  # it asks for nvcc even when it builds nothing
    with quiet_output():
        import deepspeed

        # An operator for inference that would be compiled (a minute) the first time a CPU run starts.
        deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False
        if not deepspeed.comm.is_initialized():
            deepspeed.init_distributed(dist_backend=torch.distributed.get_backend(), verbose=False)
    logging.getLogger("DeepSpeed").setLevel(logging.ERROR)
    # Two names of torch 2.13 that DeepSpeed still uses: a line for each of thousands of calls.
    warnings.filterwarnings("ignore", category=FutureWarning, module=r"torch\.distributed\.c10d_logger")
    return deepspeed


@contextmanager
def quiet_output() -> Iterator[None]:
    """DeepSpeed prints and logs its configuration to both streams; keep that from the user's screen."""
    with open(os.devnull, "w") as sink, contextlib.redirect_stdout(sink), quiet_stderr():
        yield


def step_engine(engine: Any, lr: float) -> float:
    """One optimizer step on the gradients that have come in; returns their norm before clipping."""
    for group in engine.optimizer.param_groups:
        group["lr"] = lr
    plain = _plain_optimizer(engine)
    norm = None
    if plain is not None:  # the engine does not tell the norm that it clips by
        gradients = [p.grad for p in engine.module.parameters() if p.grad is not None]
        norm = torch.nn.utils.get_total_norm(gradients)
    engine.step()
    return float(engine.get_global_grad_norm() if norm is None else norm)


def gathered(parameters: Sequence[Tensor]) -> AbstractContextManager[Any]:
    """While active, those of the parameters that ZeRO-3 has sharded are whole on every rank."""
    sharded = [p for p in parameters if hasattr(p, "ds_id")]
    if not sharded:
        return nullcontext()
    import deepspeed

    manager: AbstractContextManager[Any] = deepspeed.zero.GatheredParameters(sharded)
    return manager


def own_part(parameter: Tensor, rank: int) -> Tensor:
    """What this rank holds of a parameter: all of it, or under ZeRO-3 its shard, without the padding at its end."""
    shard = getattr(parameter, "ds_tensor", None)
    if shard is None:
        return parameter.detach()
    real = int(parameter.ds_numel) - rank * shard.numel()  # type: ignore[attr-defined]
    part: Tensor = shard.detach().flatten()[: max(0, min(real, shard.numel()))]
    return part


def full_shape(parameter: Tensor) -> tuple[int, ...]:
    """The parameter's shape, sharded or not."""
    return tuple(getattr(parameter, "ds_shape", parameter.shape))


def full_weights(trainable: Mapping[str, Tensor], keep: bool) -> dict[str, Tensor]:
    """The float32 values of trainable parameters on the CPU.

    All ranks must call it; those without `keep` get an empty dictionary.
    """
    from deepspeed.utils import safe_get_full_fp32_param

    weights = {}
    for name, parameter in trainable.items():
        value = safe_get_full_fp32_param(parameter)
        if keep:
            weights[name] = (parameter if value is None else value).detach().float().cpu().clone()
    return weights


def full_moments(
    engine: Any, trainable: Mapping[str, Tensor], step: int, keep: bool
) -> dict[int, dict[str, Tensor]]:
    """AdamW's state by place of the parameter, as torch's own optimizer would hold it; empty before the first step.

    All ranks must call it; those without `keep` get an empty dictionary.
    """
    from deepspeed.utils import safe_get_full_optimizer_state

    plain = _plain_optimizer(engine)
    if step:
        _link_moments(engine.optimizer)
    moments: dict[int, dict[str, Tensor]] = {}
    for place, parameter in enumerate(_in_optimizer_order(trainable) if step else []):
        state = {}
        for key in ("exp_avg", "exp_avg_sq"):
            value = plain.state[parameter][key] if plain else safe_get_full_optimizer_state(parameter, key)
            if keep:
                state[key] = value.detach().float().cpu().clone()
        if keep:
            moments[place] = {"step": torch.tensor(float(step)), **state}
    return moments


def put_state(
    engine: Any, trainable: Mapping[str, Tensor], weights: Mapping[str, Tensor], moments: Mapping[int, Any]
) -> None:
    """Load full weights and AdamW's state into the shards, in place; the inverse of the two above."""
    plain = _plain_optimizer(engine)
    if plain is not None:
        with torch.no_grad():
            for name, parameter in trainable.items():
                parameter.copy_(weights[name])
        plain.load_state_dict({"state": dict(moments), "param_groups": plain.state_dict()["param_groups"]})
        return
    _make_flat_moments(engine.optimizer, moments)
    names = {id(parameter): name for name, parameter in trainable.items()}
    for place, parameter in enumerate(_in_optimizer_order(trainable)):
        value = weights[names[id(parameter)]]
        _put(parameter, value, None)
        for key in ("exp_avg", "exp_avg_sq") if moments else ():
            _put(parameter, moments[place][key], key)
        with torch.no_grad(), _writable(parameter):
            parameter.copy_(value)


def _plain_optimizer(engine: Any) -> torch.optim.Optimizer | None:
    """Torch's optimizer if the engine steps it on the parameters themselves (stage 0 in float32), else None."""
    return engine.optimizer if isinstance(engine.optimizer, torch.optim.Optimizer) else None


def _in_optimizer_order(trainable: Mapping[str, Tensor]) -> list[Tensor]:
    parameters = list(trainable.values())
    matrices, vectors = decay_order(parameters, [len(full_shape(p)) for p in parameters])
    return matrices + vectors


def _flat_partitions(optimizer: Any) -> list[Tensor]:
    """The flat float32 tensors that a ZeRO (or bfloat16) optimizer steps on this rank."""
    for name in (
        "fp32_partitioned_groups_flat",  # stage 3
        "single_partition_of_fp32_groups",  # stages 1 and 2
        "fp32_groups_flat_partition",  # stage 1 in bfloat16
    ):
        if hasattr(optimizer, name):
            return list(getattr(optimizer, name))
    raise RuntimeError(f"unknown kind of DeepSpeed optimizer: {type(optimizer).__name__}")


def _make_flat_moments(optimizer: Any, moments: Mapping[int, Any]) -> None:
    """Give the inner AdamW empty moments of the right step, which it would only make in its first step."""
    inner = optimizer.optimizer
    inner.state.clear()
    if not moments:
        return
    step = next(iter(moments.values()))["step"]
    for flat in _flat_partitions(optimizer):
        inner.state[flat] = {
            "step": step.clone().to(flat.device),
            "exp_avg": torch.zeros_like(flat),
            "exp_avg_sq": torch.zeros_like(flat),
        }
    _link_moments(optimizer)


def _link_moments(optimizer: Any) -> None:
    """Let stages 1 and 2 find a parameter's moments.

    DeepSpeed 0.19 does that once, after the first group of parameters has been stepped: too early for the others.
    """
    if hasattr(optimizer, "_hp_optimizer_states_linked"):
        optimizer._hp_optimizer_states_linked = False
        optimizer._lazy_init_hp_params_optimizer_state()


def _put(parameter: Tensor, value: Tensor, key: str | None) -> None:
    """Write this rank's part of a full tensor: the float32 weight (key None) or a moment."""
    value = value.to(parameter.device)
    if not hasattr(parameter, "ds_id"):
        parameter.set_full_hp_param(value, key)  # type: ignore[attr-defined]
        return
    # Not DeepSpeed's setter for full tensors: in 0.19 it fails where a parameter does not divide by the ranks.
    size = parameter.ds_tensor.numel()  # type: ignore[attr-defined]
    start = size * torch.distributed.get_rank()
    piece = torch.zeros(size, dtype=value.dtype, device=value.device)
    mine = value.flatten()[start : start + size]
    piece[: mine.numel()] = mine
    parameter._z3_optimizer.set_local_hp_param(piece, parameter, key)  # type: ignore[attr-defined]


def _writable(parameter: Tensor) -> AbstractContextManager[Any]:
    """Like `gathered`, but what is written on rank 0 reaches the shards of all."""
    if not hasattr(parameter, "ds_id"):
        return nullcontext()
    import deepspeed

    manager: AbstractContextManager[Any] = deepspeed.zero.GatheredParameters([parameter], modifier_rank=0)
    return manager
