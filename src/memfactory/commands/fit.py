"""`train --dry-run --gpus 8xH100-80G`: what the run would hold on each GPU, whether it fits, and what to change.

Needs the recipe and the model's configuration only: no weights, tokenizer, data, GPU or network.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

from rich.table import Table

from memfactory.commands.graph import has_own_engine, learner_on
from memfactory.core.errors import BadInput
from memfactory.core.ranks import Ranks
from memfactory.learners.memory_estimate import LearnerLayout, learner_memory, on_device
from memfactory.models.architecture import ModelShape, find_shape
from memfactory.recipe.load import Recipe
from memfactory.recipe.roles import other_roles

GIB = 2**30
#: Share of the nominal memory that a driver hands out, and what CUDA, its libraries and NCCL take: assumed.
_USABLE, _RUNTIME = 0.975, 1.5 * GIB
#: Parts of the learner that are there between updates too.
_KEPT = ("weights", "optimizer", "reference", "buckets")
#: What vLLM keeps beside weights and cache (activations, CUDA graphs): assumed.
_ENGINE = 1.5 * GIB

_SPEC = re.compile(
    r"(?!0+x)(?:(?P<count>[1-9]\d*)x)?(?:(?P<name>[A-Za-z0-9_.]+)-)?(?P<memory>\d+(?:\.\d+)?)G(?:i?B)?"
)


@dataclass(frozen=True)
class Gpus:
    """`count` GPUs of `memory` bytes on each of `nodes` machines."""

    name: str
    count: int
    memory: float
    nodes: int = 1

    @property
    def world(self) -> int:
        """GPUs in all."""
        return self.count * self.nodes

    @property
    def usable(self) -> float:
        """Bytes of one GPU that programs get."""
        return self.memory * _USABLE


def parse_gpus(spec: str | None, memory_gib: float | None, nproc: int = 1, nnodes: int = 1) -> Gpus:
    """From `--gpus 8xH100-80G` or `--gpu-memory 24`; `nproc` ranks on a machine must be its GPUs.

    Raises `BadInput` for another form, or if GPUs and ranks contradict each other.
    """
    if spec is None:
        if memory_gib is None or not memory_gib > 0:
            raise BadInput(f"--gpu-memory: a number of GiB above 0 is needed, not {memory_gib}")
        return Gpus("GPU", nproc, memory_gib * GIB, nnodes)
    found = _SPEC.fullmatch(spec)
    if found is None or not float(found["memory"]) > 0:
        raise BadInput(f"--gpus: '{spec}' is not like 8xH100-80G, A100-80G or 4090-24G")
    count = int(found["count"] or 1)
    if nproc not in (1, count):
        raise BadInput(
            f"--gpus: {spec} are {count} GPUs, but --nproc says {nproc} ranks; each rank needs one"
        )
    return Gpus(found["name"] or "GPU", count, (memory_gib or float(found["memory"])) * GIB, nnodes)


@dataclass(frozen=True)
class Engines:
    """vLLM on one GPU. `share`: of the GPU's memory, for all engines on it; `weights`: bytes of all of them.

    `beside`: the GPU is the learner's too; `sleeps`: during updates the policy's engine, one of `count` with equal
    parts, gives back all but `_ENGINE`.
    """

    share: float
    weights: float
    kv_token: float
    longest: int
    beside: bool = True
    sleeps: bool = False
    count: int = 1

    def cache(self, gpus: Gpus) -> float:
        """Bytes left for the KV cache."""
        return self.share * gpus.memory - self.weights - _ENGINE


@dataclass(frozen=True)
class Estimate:
    """Bytes of one GPU by purpose; `engines` None if nobody samples here, `written` the recipe's learner."""

    gpus: Gpus
    layout: LearnerLayout
    learner: Mapping[str, float]
    engines: Engines | None
    written: str = "local"
    ahead: bool = False
    """Rollouts run beside updates (`trainer.max_staleness`), so the sampler cannot sleep."""

    @property
    def total(self) -> float:
        """Bytes on a GPU that has a learner."""
        updating = on_device(self.learner) + _RUNTIME
        if self.engines is None or not self.engines.beside:
            return updating
        sampling = self.engines.share * self.gpus.memory
        if not self.engines.sleeps:
            return updating + sampling
        awake = sampling * (self.engines.count - 1) / self.engines.count
        return max(self.beside_sampler + sampling, updating + _ENGINE + awake)

    @property
    def beside_sampler(self) -> float:
        """Bytes that the learner holds while the sampler has all of its memory."""
        if self.engines is None or not self.engines.sleeps:
            return on_device(self.learner) + _RUNTIME
        return sum(size for name, size in self.learner.items() if name in _KEPT) + _RUNTIME

    @property
    def fits(self) -> bool:
        """Whether all of it fits, and each engine can hold one context."""
        cached = self.engines is None or (
            self.engines.cache(self.gpus) >= self.engines.kv_token * self.engines.longest
        )
        return cached and self.total <= self.gpus.usable


def estimate(recipe: Recipe, gpus: Gpus) -> tuple[ModelShape, Estimate]:
    """The estimate for a recipe on these GPUs. Raises `BadInput` if the model's sizes cannot be found."""
    schema = recipe.schema
    shape = find_shape(schema.model.path)
    longest = schema.model.max_model_len or shape.positions or 0
    block = learner_on(Ranks(0, gpus.world, 0), schema.learner)
    known = {field.name for field in fields(LearnerLayout)}
    given: dict[str, Any] = {name: value for name, value in block.items() if name in known}
    layout = LearnerLayout(
        **given,
        world=gpus.world,
        sharded=block["type"] == "deepspeed",
        longest=longest,
        reference=schema.stage == "rl" and schema.algorithm.kl_coef > 0,
    )
    engines = None if schema.stage == "sft" else _engines(recipe, shape, longest)
    trained = (
        {} if block["type"] == "none" else learner_memory(shape, layout)
    )  # none: the weights stay as they are
    ahead = schema.trainer.max_staleness > 0
    return shape, Estimate(gpus, layout, trained, engines, schema.learner["type"], ahead)


def _engines(recipe: Recipe, shape: ModelShape, longest: int) -> Engines:
    schema, sampler = recipe.schema, recipe.schema.sampler
    value = 4 if schema.model.dtype == "float32" else 2
    across = int(sampler.get("tensor_parallel_size", 1))
    if not str(sampler["type"]).startswith("vllm"):
        raise BadInput(
            f"--gpus: memory of the sampler '{sampler['type']}' is not estimated; use sampler=vllm"
        )
    weights, count = shape.parameters * value / across, 1
    for config in other_roles(schema).values():
        if not config.is_server and config.sampler is None and has_own_engine(config, training=True):
            frozen = shape if config.path is None else find_shape(config.path)
            weights += frozen.parameters * value / across + _ENGINE
            count += 1
    return Engines(
        share=float(sampler["gpu_memory_utilization"]),
        weights=weights,
        kv_token=shape.kv_bytes(value) / across,
        longest=longest,
        beside=sampler["type"] == "vllm",
        sleeps=bool(sampler.get("sleep", False)),
        count=count,
    )


def advice(shape: ModelShape, first: Estimate) -> list[str] | None:
    """The changes to the command line that make it fit, as few as were found; None if none of ours is enough."""
    if first.fits:
        return []
    if first.written == "none":
        return None
    engines = first.engines
    if engines is not None and engines.beside and not (engines.sleeps or first.ahead):
        words = advice(shape, replace(first, engines=replace(engines, sleeps=True)))
        return None if words is None else ["sampler.sleep=true", *words]
    steps = _changes(first)
    chosen: list[int] = []
    for number in range(len(steps)):
        chosen.append(number)
        if _changed(shape, first, [steps[i] for i in chosen])[0].fits:
            break
    else:
        return None
    for number in list(chosen):  # those that turn out not to be needed go again
        rest = [i for i in chosen if i != number]
        if _changed(shape, first, [steps[i] for i in rest])[0].fits:
            chosen = rest
    _, shared = _changed(shape, first, [steps[i] for i in chosen])
    words = [steps[i][0] for i in chosen]
    needs_deepspeed = any("zero_stage" in word or "offload" in word for word in words)
    if (
        needs_deepspeed and first.written == "local"
    ):  # it has no such fields, also where DeepSpeed takes its place
        words.insert(0, "learner=deepspeed")
    return [*words, *shared]


_Change = tuple[str, Callable[[LearnerLayout], LearnerLayout]]


def _changes(first: Estimate) -> list[_Change]:
    """What can be changed, what changes the result least first."""
    now, found = first.layout, list[_Change]()
    if not now.gradient_checkpointing:
        found.append(
            ("learner.gradient_checkpointing=true", lambda x: replace(x, gradient_checkpointing=True))
        )
    smallest = max(now.longest, 1)
    if now.micro_batch_tokens > smallest:
        found.append(
            (
                f"learner.micro_batch_tokens={smallest}",
                lambda x: replace(x, micro_batch_tokens=smallest),
            )
        )
    if now.sharded and now.world > 1 and now.zero_stage < 3:
        found.append(("learner.zero_stage=3", lambda x: replace(x, zero_stage=3)))
    if now.sharded and now.dtype == "float32":
        found.append(("learner.dtype=bfloat16", lambda x: replace(x, dtype="bfloat16")))
    if not now.offload_optimizer and now.quantization is None:
        found.append(
            (
                "learner.offload_optimizer=true",
                lambda x: replace(x, sharded=True, offload_optimizer=True, zero_stage=max(x.zero_stage, 1)),
            )
        )
    if not now.lora_rank:
        group = "deepspeed_lora" if now.sharded else "local_lora"
        found.append(
            (
                f"learner={group}",
                lambda x: replace(
                    x, lora_rank=16, sharded=now.sharded, offload_optimizer=now.offload_optimizer
                ),
            )
        )
    if now.quantization is None:
        words = [] if now.lora_rank else ["learner=deepspeed_lora" if now.sharded else "learner=local_lora"]
        words += ["learner.zero_stage=2"] if now.sharded and now.zero_stage == 3 else []
        found.append((" ".join([*words, "learner.quantization=nf4"]), lambda x: _rounded(x, now)))
    return found


def _rounded(layout: LearnerLayout, now: LearnerLayout) -> LearnerLayout:
    """Adapters on a base in 4 bits, which cannot be sharded."""
    return replace(
        layout,
        quantization="nf4",
        lora_rank=layout.lora_rank or 16,
        sharded=now.sharded,
        zero_stage=min(layout.zero_stage, 2),
        offload_optimizer=now.offload_optimizer,
        offload_param=False,
    )


def _changed(shape: ModelShape, first: Estimate, changes: Sequence[_Change]) -> tuple[Estimate, list[str]]:
    """The estimate after some changes; the sampler's share of the GPU shrinks if it has to and can."""
    layout = first.layout
    for _, change in changes:
        layout = change(layout)
    now = replace(first, layout=layout, learner=learner_memory(shape, layout))
    if now.fits or now.engines is None or not now.engines.beside:
        return now, []
    left = now.gpus.usable - now.beside_sampler
    share = int(100 * left / now.gpus.memory) / 100
    if share <= 0 or share >= 1:
        return now, []
    smaller = replace(now, engines=replace(now.engines, share=share))
    return (smaller, [f"sampler.gpu_memory_utilization={share:g}"]) if smaller.fits else (now, [])


def fit_table(recipe: Recipe, gpus: Gpus) -> Table:
    """The estimate as a table. Raises `BadInput` if the model's sizes cannot be found."""
    shape, found = estimate(recipe, gpus)
    layout, engines = found.layout, found.engines
    nodes = f"{gpus.nodes} x " if gpus.nodes > 1 else ""
    table = Table(
        title=f"train {recipe.schema.name} on {nodes}{gpus.count} x {gpus.name} of {gpus.memory / GIB:g} GiB: "
        "an estimate, nothing was started",
        title_justify="left",
    )
    table.add_column("on each GPU")
    table.add_column("GiB", justify="right")
    table.add_column("of")
    how = f"DeepSpeed ZeRO-{layout.zero_stage}, {gpus.world} ranks" if layout.sharded else "local learner"
    told = {
        "weights": f"{shape.parameters / 1e9:.2f} G parameters, {how}",
        "activations": _activations(layout),
    }
    for name, size in found.learner.items():
        if not name.startswith("host: "):
            table.add_row(f"learner: {name}", _gib(size), told.get(name, ""))
    if engines is not None:
        where = "" if engines.beside else " (on GPUs of its own)"
        table.add_row(f"sampler: weights{where}", _gib(engines.weights), recipe.schema.model.dtype)
        cache = engines.cache(gpus)
        contexts = cache / (engines.kv_token * engines.longest) if engines.longest else 0
        text = f"{max(contexts, 0):.1f} contexts of {engines.longest:,} tokens"
        table.add_row(f"sampler: KV cache{where}", _gib(cache), text)
        table.add_row(f"sampler: the rest{where}", _gib(_ENGINE), "assumed")
    table.add_row("CUDA and its libraries", _gib(_RUNTIME), "assumed")
    verdict = "fits" if found.fits else "does not fit"
    if engines is not None and engines.sleeps:
        verdict += " (the larger of update and rollouts: the sampler sleeps)"
    table.add_row(
        "in all", _gib(found.total), f"{verdict}; {gpus.usable / GIB:.1f} can be used", end_section=True
    )
    for name, size in found.learner.items():
        if name.startswith("host: "):
            table.add_row(
                f"memory of the machine: {name[6:]}", _gib(size * gpus.count), f"{gpus.count} rank(s)"
            )
    changes = advice(shape, found)
    if changes is None:
        table.add_row("to make it fit", "", "more GPUs, GPUs with more memory, or a smaller model")
    elif changes:
        table.add_row("to make it fit", "", " ".join(changes))
    return table


def _activations(layout: LearnerLayout) -> str:
    tokens = max(layout.micro_batch_tokens, layout.longest)
    kind = "recomputed in the backward pass" if layout.gradient_checkpointing else "kept"
    return f"{tokens:,} tokens, {kind}"


def _gib(size: float) -> str:
    return f"{size / GIB:.2f}"
