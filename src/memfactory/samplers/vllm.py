"""The in-process vLLM sampler: continuous batching and prefix cache, driven from coroutines."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from memfactory.core.registry import register
from memfactory.core.types import Completion, SamplingRequest
from memfactory.samplers.base import SHARED
from memfactory.samplers.checks import check_request
from memfactory.samplers.driver import Driver

if TYPE_CHECKING:
    import torch

    from memfactory.models.text import Codec


@dataclass(frozen=True)
class VllmConfig:
    """Fields of `sampler: {type: vllm}`.

    `kv_cache_gb` is the KV cache on a CPU; on a GPU `gpu_memory_utilization` of its memory is used.
    None leaves a choice to the device: `enforce_eager` is on for a CPU and off (CUDA graphs) for a
    GPU; `chunked_prefill` and `max_num_batched_tokens` follow vLLM. `async_scheduling` overlaps
    scheduling with the GPU's work. The GPU values follow vLLM's documentation: not run on a GPU.
    `kv_cache_gb` and `gpu_memory_utilization` are for all engines with these settings together: a frozen role
    without settings of its own takes an equal part.
    """

    kv_cache_gb: float = field(default=1.0, metadata=SHARED)
    gpu_memory_utilization: float = field(default=0.5, metadata=SHARED)
    max_num_seqs: int = 256
    max_num_batched_tokens: int | None = None
    enforce_eager: bool | None = None
    prefix_caching: bool = True
    chunked_prefill: bool | None = None
    tensor_parallel_size: int = 1
    async_scheduling: bool = False


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
        *,
        model_folder: Path,
        codec: Codec,
        max_model_len: int,
        dtype: str = "float32",
        seed: int = 0,
        trust_remote_code: bool = False,
    ) -> None:
        """Start the engine (about 10 s on a CPU).

        `codec` gives the end-of-sequence ids. Raises `BadInput` when the settings do not fit the model
        or the memory.
        """
        # The engine's module imports nothing heavy either; kept apart so that neither grows long.
        from memfactory.samplers.vllm_engine import VllmEngine

        self.max_model_len = max_model_len
        self.policy_version = 0
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
        )
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
        if self._engine is None:
            raise RuntimeError("the sampler is closed")
        if not self._driver.idle:
            raise RuntimeError("weights cannot change while requests are running")
        self._engine.load_weights(named_tensors)
        self.policy_version = self._engine.policy_version = version

    def close(self) -> None:
        """Free the engine; idempotent."""
        if self._engine is not None:
            self._engine.close()
            self._engine = None
