"""The estimate of `train --dry-run --gpus` against the measured peak memory of the learner, on a CPU or a GPU.

Each case is a fresh process: a learner is built, takes updates of two micro-batches, and its peak is compared with
`learners/memory_estimate.py`. On a CPU that is the growth of its resident memory over what the imports took (the kernel
tells it: Linux), on a GPU what torch has allocated there.

    python scripts/check_memory_estimate.py                # the tiny policy
    python scripts/check_memory_estimate.py --model smollm2 --tokens 1024
    python scripts/check_memory_estimate.py --device cuda --model Qwen/Qwen3-1.7B --tokens 8192 --row 1024
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

CASES: dict[str, dict[str, Any]] = {
    "full": {},
    "checkpointing": {"gradient_checkpointing": True},
    "lora": {"lora_rank": 16},
    "qlora": {"lora_rank": 16, "quantization": "nf4"},
    "lora+checkpointing": {"lora_rank": 16, "gradient_checkpointing": True},
    "reference": {"reference": True},
}
#: For GPUs only; those with a stage run on DeepSpeed, one rank.
GPU_CASES: dict[str, dict[str, Any]] = {
    "bfloat16": {"dtype": "bfloat16"},
    "bfloat16+checkpointing": {"dtype": "bfloat16", "gradient_checkpointing": True},
    "bfloat16 qlora": {"dtype": "bfloat16", "lora_rank": 16, "quantization": "nf4"},
    "bfloat16 zero2": {"dtype": "bfloat16", "zero_stage": 2},
    "bfloat16 zero2 offloaded": {"dtype": "bfloat16", "zero_stage": 2, "offload_optimizer": True},
    "bfloat16 zero3": {"dtype": "bfloat16", "zero_stage": 3},
}


def status_mib(field: str) -> float:
    """A field of /proc/self/status in MiB."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(field + ":"):
            return int(line.split()[1]) / 1024
    raise SystemExit(f"/proc/self/status has no {field}; this script needs Linux")


def make_learner(settings: dict[str, Any]) -> Any:
    """The local learner, or for a ZeRO stage DeepSpeed's with this process as its only rank."""
    from memfactory.learners.local import LocalLearner

    if "zero_stage" not in settings:
        return LocalLearner(**settings)
    from memfactory.core.ranks import join_ranks
    from memfactory.learners.deepspeed import DeepSpeedLearner
    from memfactory.samplers.server_process import free_port

    os.environ.update(RANK="0", WORLD_SIZE="1", LOCAL_RANK="0", MASTER_ADDR="127.0.0.1")
    os.environ["MASTER_PORT"] = str(free_port())
    return DeepSpeedLearner(ranks=join_ranks(), **settings)


def measure(model: str, case: str, tokens: int, row: int, device: str) -> dict[str, float]:
    """Run one case in this process: peak of the updates and the estimate, in MiB."""
    import random

    import torch

    from memfactory.algorithms.objective import Objective
    from memfactory.core.types import Row
    from memfactory.learners.memory_estimate import LearnerLayout, learner_memory, on_device
    from memfactory.models.architecture import find_shape
    from memfactory.models.source import resolve_model

    settings = dict({**CASES, **GPU_CASES}[case])
    reference = settings.pop("reference", False)
    shape, folder = find_shape(model), resolve_model(model)
    warm = torch.randn(64, 64, requires_grad=True)  # the libraries' own buffers exist before the baseline
    torch.nn.functional.silu(warm @ warm).sum().backward()
    import peft  # noqa: F401

    before = status_mib("VmRSS")
    learner = make_learner(
        {"model": folder, "lr": 1e-6, "device": device, "micro_batch_tokens": tokens, "reference": reference}
        | settings
    )
    draw = random.Random(0)
    rows = []
    for number in range(2 * (tokens // row)):
        ids = [draw.randrange(3, shape.vocabulary) for _ in range(row + 1)]
        rows.append(
            Row(tuple(ids[: row // 2]), tuple(ids[row // 2 :]), (-5.0,) * (row + 1 - row // 2), 1.0, number)
        )
    objective = Objective(kl_coef=0.01 if reference else 0.0)
    learner.update(rows, objective)
    if device == "cpu":
        Path("/proc/self/clear_refs").write_text("5")  # the peak counts from here
        figures = learner.update(rows, objective)
        measured = status_mib("VmHWM") - before
    else:
        torch.cuda.reset_peak_memory_stats()
        figures = learner.update(rows, objective)
        measured = torch.cuda.max_memory_allocated() / 2**20
    scored = (tokens // row) * (row + 1 - row // 2)
    layout = LearnerLayout(
        micro_batch_tokens=tokens,
        scored_tokens=scored,
        reference=reference,
        sharded="zero_stage" in settings,
        **settings,
    )
    parts = learner_memory(shape, layout)
    return {
        "measured": measured,
        "estimate": on_device(parts) / 2**20,
        "tokens_per_second": figures["tokens_per_second"],
        **{k: v / 2**20 for k, v in parts.items()},
    }


def run_case(model: str, case: str, tokens: int, row: int, device: str) -> dict[str, float]:
    """Run one case in a process of its own."""
    command = [
        sys.executable,
        __file__,
        "--model",
        model,
        "--case",
        case,
        "--tokens",
        str(tokens),
        "--row",
        str(row),
        "--device",
        device,
    ]
    # The C library keeps freed memory of large tensors otherwise, and would be measured instead of the learner.
    environment = {**os.environ, "MALLOC_MMAP_THRESHOLD_": "65536", "MALLOC_ARENA_MAX": "1"}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    if done.returncode:
        raise SystemExit(f"{case} failed:\n{done.stderr[-2000:]}")
    result: dict[str, float] = json.loads(done.stdout.strip().splitlines()[-1])
    return result


def main() -> None:
    """Run the cases and print a table; exit 1 if an estimate is off by more than the tolerance."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", default="tiny", help="a model folder or alias")
    parser.add_argument("--cases", nargs="*", choices=[*CASES, *GPU_CASES])
    parser.add_argument("--device", default="cpu", choices=["cpu", "cuda"])
    parser.add_argument("--tokens", type=int, default=32768, help="tokens of a micro-batch")
    parser.add_argument("--row", type=int, default=256, help="tokens of a row")
    parser.add_argument("--tolerance", type=float, default=0.2)
    parser.add_argument("--case", choices=[*CASES, *GPU_CASES], help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.case:
        print(json.dumps(measure(options.model, options.case, options.tokens, options.row, options.device)))
        return
    print(f"{options.model}, micro-batches of {options.tokens} tokens, rows of {options.row}")
    print(f"{'case':26}{'measured MiB':>14}{'estimate MiB':>14}{'off by':>9}{'tokens/s':>10}")
    worst = 0.0
    for case in options.cases or [*CASES, *(GPU_CASES if options.device == "cuda" else ())]:
        result = run_case(options.model, case, options.tokens, options.row, options.device)
        off = result["estimate"] / result["measured"] - 1
        worst = max(worst, abs(off))
        print(
            f"{case:26}{result['measured']:14.0f}{result['estimate']:14.0f}{off:+9.1%}"
            f"{result['tokens_per_second']:10,.0f}",
            flush=True,
        )
    sys.exit(worst > options.tolerance)


if __name__ == "__main__":
    main()
