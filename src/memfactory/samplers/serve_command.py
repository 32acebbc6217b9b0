"""The command line and the environment of a `vllm serve` that a run starts itself."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Sequence
from pathlib import Path

from memfactory.samplers.vllm_draw import LOGPROBS_MODE

#: What a launcher of ranks sets: a server is no rank.
_OF_RANKS = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")


def serve_arguments(
    model_folder: Path,
    *,
    dtype: str,
    max_model_len: int,
    seed: int,
    trust_remote_code: bool,
    on_gpu: bool,
    kv_cache_gb: float,
    gpu_memory_utilization: float,
    max_num_seqs: int,
    max_num_batched_tokens: int | None,
    enforce_eager: bool | None,
    prefix_caching: bool,
    tensor_parallel_size: int,
    transfer: str,
    adapter_rank: int = 0,
    more: Sequence[str] = (),
) -> list[str]:
    """The options of the server, without its address. `more` comes last, so it may replace what is before it.

    With an `adapter_rank` above 0 the server takes adapters of at most that rank, one at a time.
    """
    arguments = [
        f"--model={model_folder}",
        f"--dtype={dtype}",
        f"--max-model-len={max_model_len}",
        f"--seed={seed}",
        f"--max-num-seqs={max_num_seqs}",
        f"--tensor-parallel-size={tensor_parallel_size}",
        "--enable-prefix-caching" if prefix_caching else "--no-enable-prefix-caching",
        "--skip-tokenizer-init",  # ids in, ids out
        "--enable-scale-out",  # the endpoint that takes and gives ids
        "--generation-config=vllm",  # never the folder's own sampling defaults
        f"--logprobs-mode={LOGPROBS_MODE}",
        "--logits-processors=memfactory.samplers.vllm_plugin:SeededDraw",
        "--worker-extension-cls=memfactory.samplers.vllm_plugin.PolicyWeights",
        "--disable-log-stats",
        "--disable-uvicorn-access-log",
    ]
    if on_gpu:
        arguments.append(f"--gpu-memory-utilization={gpu_memory_utilization}")
    else:
        arguments.append(f"--kv-cache-memory-bytes={math.ceil(kv_cache_gb * 2**30)}")
    if enforce_eager or (enforce_eager is None and not on_gpu):
        arguments.append("--enforce-eager")
    if max_num_batched_tokens is not None:
        arguments.append(f"--max-num-batched-tokens={max_num_batched_tokens}")
    if trust_remote_code:
        arguments.append("--trust-remote-code")
    if adapter_rank:
        arguments += ["--enable-lora", "--max-loras=1", f"--max-lora-rank={adapter_rank}"]
    if transfer != "folder":
        arguments.append("--weight-transfer-config=" + json.dumps({"backend": transfer}))
    return [*arguments, *more]


def serve_environment(
    *, transfer: str, threads: int, devices: str | None, key: str, one_worker_on_cpu: bool = False
) -> dict[str, str]:
    """Environment variables of one server; `threads` is for CPUs, and what the user has set stays.

    `key` is what it asks for: here, because everybody can read the command line of a process.

    With `one_worker_on_cpu` the worker lives in the process of vLLM's engine. On a CPU vLLM would start one more for it
    to bind its threads, which we do not; that one imports vLLM again: a third of the time that a start takes.
    """
    environment = {
        "VLLM_API_KEY": key,
        "VLLM_SERVER_DEV_MODE": "1",  # the endpoints for weights
        "VLLM_ALLOW_RUNTIME_LORA_UPDATING": "1",  # the endpoints for adapters, if it takes any
        "VLLM_ENABLE_V1_MULTIPROCESSING": "0" if one_worker_on_cpu else "1",
        "VLLM_NO_USAGE_STATS": "1",
        "VLLM_LOGGING_LEVEL": os.environ.get("VLLM_LOGGING_LEVEL", "WARNING"),
        "VLLM_CPU_OMP_THREADS_BIND": os.environ.get("VLLM_CPU_OMP_THREADS_BIND", "nobind"),
        "OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", str(threads)),
        # The draw is a logits processor written for, and tested on, this model runner.
        "VLLM_USE_V2_MODEL_RUNNER": os.environ.get("VLLM_USE_V2_MODEL_RUNNER", "0"),
    }
    if transfer == "ipc":
        # Handles of GPU memory travel pickled; nobody but the user can connect (`ServerProcess`).
        environment["VLLM_ALLOW_INSECURE_SERIALIZATION"] = "1"
    if devices is not None:
        environment["CUDA_VISIBLE_DEVICES"] = devices
    return environment


def without_ranks(environment: dict[str, str]) -> dict[str, str]:
    """An environment without what a launcher of ranks has set."""
    return {
        name: value
        for name, value in environment.items()
        if name not in _OF_RANKS and not name.startswith(("TORCHELASTIC_", "SLURM_"))
    }
