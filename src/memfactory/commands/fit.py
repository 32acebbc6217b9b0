"""`train --dry-run --gpus 8xH100-80G`: what the run would hold on each GPU, whether it fits, and what to change.

Needs the recipe and the model's configuration only: no weights, tokenizer, data, GPU or network.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

from memfactory.commands.graph import has_own_engine, learner_on
from memfactory.core.errors import BadInput
from memfactory.core.ranks import Ranks
from memfactory.learners.memory_estimate import LearnerLayout, learner_memory, on_device
from memfactory.models.architecture import ModelShape, find_shape
from memfactory.recipe.load import Recipe
from memfactory.recipe.roles import called_in

GIB = 2**30
#: Share of the nominal memory that a driver hands out, and what CUDA, its libraries and NCCL take: assumed.
_USABLE, RUNTIME = 0.975, 1.5 * GIB
#: Parts of the learner that are there between updates too.
_KEPT = ("weights", "optimizer", "reference", "buckets")
#: Contexts of full length that an engine must hold at once: with fewer, rollouts wait for each other's cache.
ENOUGH = 8
#: What vLLM keeps beside weights and cache (activations, CUDA graphs): assumed.
ENGINE = 1.5 * GIB

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
    parts, gives back all but `ENGINE`.
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
        return self.share * gpus.memory - self.weights - ENGINE

    def contexts(self, gpus: Gpus) -> float:
        """How many contexts of `longest` tokens each engine holds at once; 0 if that cannot be told."""
        if not self.longest:
            return 0.0
        return max(0.0, self.cache(gpus)) / self.count / (self.kv_token * self.longest)


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
        updating = on_device(self.learner) + RUNTIME
        if self.engines is None or not self.engines.beside:
            return updating
        sampling = self.engines.share * self.gpus.memory
        if not self.engines.sleeps:
            return updating + sampling
        awake = sampling * (self.engines.count - 1) / self.engines.count
        return max(self.beside_sampler + sampling, updating + ENGINE + awake)

    @property
    def beside_sampler(self) -> float:
        """Bytes that the learner holds while the sampler has all of its memory."""
        if self.engines is None or not self.engines.sleeps:
            return on_device(self.learner) + RUNTIME
        return sum(size for name, size in self.learner.items() if name in _KEPT) + RUNTIME

    @property
    def fits(self) -> bool:
        """Whether all of it fits, and each engine can hold `ENOUGH` contexts."""
        cached = self.engines is None or self.engines.contexts(self.gpus) >= ENOUGH
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
    for config in called_in(schema, training=True).values():
        if not config.is_server and config.sampler is None and has_own_engine(config, training=True):
            frozen = shape if config.path is None else find_shape(config.path)
            weights += frozen.parameters * value / across + ENGINE
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
