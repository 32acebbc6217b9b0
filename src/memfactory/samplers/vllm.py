"""The in-process vLLM sampler: continuous batching and prefix cache, driven from coroutines."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from memfactory.core.bounds import AtLeastOne, PartOfGpu, Positive
from memfactory.core.ranks import ALONE, Ranks
from memfactory.core.registry import register
from memfactory.core.types import Completion, SamplingRequest
from memfactory.samplers.base import SHARED, AdapterFiles, Layout
from memfactory.samplers.checks import check_request
from memfactory.samplers.checksums import Held
from memfactory.samplers.driver import Driver
from memfactory.samplers.vllm_adapters import wants_adapters

if TYPE_CHECKING:
    import torch

    from memfactory.models.text import Codec
    from memfactory.samplers.vllm_engine import VllmEngine


@dataclass(frozen=True)
class VllmConfig:
    """Fields of `sampler: {type: vllm}`.

    `kv_cache_gb` is the KV cache on a CPU; on a GPU `gpu_memory_utilization` of its memory is used.
    None leaves a choice to the device: `enforce_eager` is on for a CPU and off (CUDA graphs) for a
    GPU; `chunked_prefill` and `max_num_batched_tokens` follow vLLM. `async_scheduling` overlaps
    scheduling with the GPU's work. `async_scheduling`, `tensor_parallel_size` and adapters: not run on a GPU.
    `kv_cache_gb` and `gpu_memory_utilization` are for all engines with these settings together: a frozen role
    without settings of its own takes an equal part.
    `sleep` (GPU): during the learner's update the engine gives back the memory of its weights and cache.
    `adapter_sync`: under LoRA each sync hands over the adapters alone, and the engine adds them to its own weights
    (None: where the weights have 16 bits, because merging would round the first updates away).
    """

    kv_cache_gb: Positive = field(default=1.0, metadata=SHARED)
    gpu_memory_utilization: PartOfGpu = field(default=0.5, metadata=SHARED)
    max_num_seqs: AtLeastOne = 256
    max_num_batched_tokens: AtLeastOne | None = None
    enforce_eager: bool | None = None
    prefix_caching: bool = True
    chunked_prefill: bool | None = None
    tensor_parallel_size: AtLeastOne = 1
    async_scheduling: bool = False
    sleep: bool = False
    adapter_sync: bool | None = None

    def __post_init__(self) -> None:
        if self.tensor_parallel_size > 1:
            across = self.tensor_parallel_size
            raise ValueError(
                f"tensor_parallel_size {across} needs engines in processes of their own: sampler=vllm_server "
                f"sampler.servers=1 sampler.tensor_parallel_size={across}"
            )


@register("sampler", "vllm", config=VllmConfig)
class VllmSampler:
    """vLLM in this process: continuous batching, prefix cache, weights updated in place."""

    def __init__(
        self,
        kv_cache_gb: float = 1.0,
        gpu_memory_utilization: float = 0.5,
        max_num_seqs: int = 256,
        max_num_batched_tokens: int | None = None,
        enforce_eager: bool | None = None,
        prefix_caching: bool = True,
        chunked_prefill: bool | None = None,
        tensor_parallel_size: int = 1,
        async_scheduling: bool = False,
        sleep: bool = False,
        adapter_sync: bool | None = None,
        *,
        model_folder: Path,
        codec: Codec,
        max_model_len: int,
        dtype: str = "float32",
        seed: int = 0,
        trust_remote_code: bool = False,
        ranks: Ranks = ALONE,
        lora_rank: int = 0,
    ) -> None:
        """Start the engine (about 10 s on a CPU). Under several ranks all of them start theirs at once.

        `codec` gives the end-of-sequence ids. `lora_rank` is that of the learner whose adapters will come (0: nobody's;
        then `adapter_sync` changes nothing). Raises `BadInput` when the settings do not fit the model
        or the memory.
        """
        # The engine's module imports nothing heavy either; kept apart so that neither grows long.
        from memfactory.samplers.vllm_engine import VllmEngine

        self.max_model_len = max_model_len
        self.policy_version = 0
        self.dtype = dtype
        adapters = wants_adapters(adapter_sync, dtype, lora_rank)
        options: dict[str, object] = {
            "dtype": dtype,
            "max_model_len": max_model_len,
            "seed": seed,
            "trust_remote_code": trust_remote_code,
            "max_num_seqs": max_num_seqs,
            "enable_prefix_caching": prefix_caching,
            "tensor_parallel_size": tensor_parallel_size,
            "async_scheduling": async_scheduling,
            "gpu_memory_utilization": gpu_memory_utilization,
        }
        if ranks.world > 1:
            # The engine lives in a process of somebody else's group, on the device of its local rank.
            options["distributed_executor_backend"] = "external_launcher"
        if max_num_batched_tokens is not None:
            options["max_num_batched_tokens"] = max_num_batched_tokens
        if chunked_prefill is not None:
            options["enable_chunked_prefill"] = chunked_prefill
        self._engine: VllmEngine | None = VllmEngine(
            model_folder,
            eos_ids=sorted(codec.eos_ids),
            cpu_cache_bytes=math.ceil(kv_cache_gb * 2**30),
            enforce_eager=enforce_eager,
            options=options,
            lora_rank=lora_rank if adapters else 0,
            sleeps=sleep,
        )
        self.takes_adapters = adapters
        self._driver = Driver(self._engine, "vllm")

    async def sample(self, request: SamplingRequest) -> Completion:
        """Draw one completion; see `Sampler.sample`. Raises `TaskError` when the request does not fit."""
        if self._engine is None:
            raise RuntimeError("the sampler is closed")
        check_request(request, self.max_model_len, self._engine.vocabulary)
        return await self._driver.submit(request)

    def load_weights(self, named_tensors: Iterable[tuple[str, torch.Tensor]], version: int) -> None:
        """Take over full weights under Hugging Face names, and forget all cached prefixes.

        Raises `RuntimeError` while requests are running, `ServiceError` when the engine refuses.
        """
        engine = self._idle_engine()
        if self.takes_adapters:
            raise RuntimeError("this engine takes adapters, not weights")
        engine.load_weights(named_tensors)
        self.policy_version = engine.policy_version = version

    def load_adapter(self, adapter: AdapterFiles, version: int) -> None:
        """Take over adapters in place of those before, and forget all cached prefixes; for `takes_adapters`.

        Raises `RuntimeError` while requests are running, `ServiceError` when the engine refuses.
        """
        engine = self._idle_engine()
        engine.load_adapter(adapter)
        self.policy_version = engine.policy_version = version

    def held(self, layout: Layout, turn: int) -> list[Held]:
        """See `samplers.base.held_by`."""
        return [Held(**self._idle_engine("weights cannot be read").held(layout, turn))]

    def held_adapter(self, layout: Layout) -> list[Held]:
        """See `samplers.base.held_by`."""
        return [Held(**self._idle_engine("adapters cannot be read").held_adapter(layout))]

    def sleep(self) -> None:
        """Give back the device's memory until new weights or adapters come, if the recipe asks for that.

        Raises `RuntimeError` while requests are running.
        """
        self._idle_engine("the engine cannot sleep").sleep()

    def _idle_engine(self, refused: str = "weights cannot change") -> VllmEngine:
        if self._engine is None:
            raise RuntimeError("the sampler is closed")
        if not self._driver.idle:
            raise RuntimeError(f"{refused} while requests are running")
        return self._engine

    def close(self) -> None:
        """Free the engine; idempotent."""
        if self._engine is not None:
            self._engine.close()
            self._engine = None
