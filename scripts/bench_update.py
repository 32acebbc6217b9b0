"""Tokens/s and peak memory of one policy update: our local learner against TRL's GRPO loss path.

Both take the same ragged MemAgent-like calls (block calls with a growing memory, short answer calls), the
same model, the same loss (clipped ratio, token mean, no KL), AdamW and clipping, float32 on the CPU, each in
a process of its own. TRL pads prompts on the left and completions on the right over the whole batch and cuts
it into micro-batches of as many rows as fit the same token budget. Tokens counted are the real ones, without
padding. The losses of the first update are printed and must agree.

    python scripts/bench_update.py      # the tiny policy, or random weights of its shape where it is missing
    python scripts/bench_update.py --model smollm2 --rollouts 3 --block 256 --budget 2048
"""

from __future__ import annotations

import argparse
import json
import random
import resource
import subprocess
import sys
import tempfile
import time
import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

TINY = Path(__file__).parents[1] / "data" / "tiny_policy"


def make_rows(rollouts: int, block: int, vocabulary: int, seed: int) -> list[Any]:
    """Calls of MemAgent-like rollouts: 1 to 6 blocks (the last one cut short) and an answer call each."""
    from memfactory.core.types import Row

    draw = random.Random(seed)

    def row(prompt: int, completion: int, rollout: int, advantage: float) -> Row:
        ids = [draw.randrange(3, vocabulary) for _ in range(prompt + completion)]
        return Row(tuple(ids[:prompt]), tuple(ids[prompt:]), (-5.0,) * completion, advantage, rollout)

    rows = []
    for rollout in range(rollouts):
        question, blocks, advantage = draw.randint(12, 24), draw.randint(1, 6), draw.choice((-1.0, 1.0))
        memory = 4
        for index in range(blocks):
            text = block if index + 1 < blocks else draw.randint(block // 4, block)
            written = draw.randint(max(3, block // 16), max(4, block // 5))
            rows.append(row(question + memory + text, written, rollout, advantage))
            memory = written
        rows.append(row(question + memory, draw.randint(3, max(4, block // 16)), rollout, advantage))
    return rows


def load(model: str) -> Any:
    """The model that `model` names (as in a recipe), or a random one of the tiny policy's shape."""
    from transformers import Qwen3Config, Qwen3ForCausalLM

    from memfactory.models.load import load_policy
    from memfactory.models.source import resolve_model

    if model:
        return load_policy(resolve_model(model), device="cpu")
    config = Qwen3Config(
        vocab_size=2112,
        hidden_size=160,
        intermediate_size=480,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=4,
        head_dim=32,
        tie_word_embeddings=True,
    )
    return Qwen3ForCausalLM(config)


def ours(model: Any, rows: list[Any], budget: int, packing: bool) -> Any:
    """A function that runs one update of the local learner and returns its loss."""
    from memfactory.algorithms.objective import Objective
    from memfactory.learners.local import LocalLearner

    learner = LocalLearner(model=model, lr=1e-6, device="cpu", micro_batch_tokens=budget, packing=packing)
    scores = learner.logprobs(rows)
    rows = [replace(row, behaviour_logprobs=tuple(s)) for row, s in zip(rows, scores, strict=True)]
    return lambda: learner.update(rows, Objective(tis_cap=2.0))["loss"]


def theirs(model: Any, rows: list[Any], budget: int) -> Any:
    """A function that runs one update through TRL's GRPOTrainer loss and returns the loss."""
    import torch
    from datasets import Dataset
    from tokenizers import Tokenizer
    from tokenizers.models import WordLevel
    from transformers import PreTrainedTokenizerFast
    from trl import GRPOConfig, GRPOTrainer

    words = Tokenizer(WordLevel({"<pad>": 0, "<eos>": 1}, unk_token="<pad>"))
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=words, pad_token="<pad>", eos_token="<eos>")
    prompts = max(len(row.prompt_ids) for row in rows)
    completions = max(len(row.completion_ids) for row in rows)
    size = max(1, budget // (prompts + completions))
    micro = [rows[start : start + size] for start in range(0, len(rows), size)]
    config = GRPOConfig(
        output_dir=tempfile.mkdtemp(),
        loss_type="dapo",
        beta=0.0,
        use_cpu=True,
        bf16=False,
        gradient_checkpointing=False,
        per_device_train_batch_size=2,
        num_generations=2,
        report_to="none",
        temperature=1.0,
    )

    def no_reward(completions: list[Any], **_: Any) -> list[float | None]:
        return [0.0] * len(completions)

    trainer: Any = GRPOTrainer(
        model=model,
        reward_funcs=no_reward,
        args=config,
        train_dataset=Dataset.from_dict({"prompt": ["x"]}),
        processing_class=tokenizer,
    )
    trainer.current_gradient_accumulation_steps = trainer.args.steps_per_generation = 1
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-6, weight_decay=0.0, fused=True)
    total = torch.tensor(float(sum(len(row.completion_ids) for row in rows)))

    def pad(values: list[tuple[int, ...]], width: int, left: bool) -> tuple[torch.Tensor, torch.Tensor]:
        ids, mask = (
            torch.zeros(len(values), width, dtype=torch.long),
            torch.zeros(len(values), width, dtype=torch.long),
        )
        for place, value in enumerate(values):
            where = slice(width - len(value), None) if left else slice(0, len(value))
            ids[place, where], mask[place, where] = torch.tensor(value), 1
        return ids, mask

    def update() -> float:
        model.train()
        loss = 0.0
        for chosen in micro:
            prompt_ids, prompt_mask = pad([row.prompt_ids for row in chosen], prompts, True)
            completion_ids, completion_mask = pad([row.completion_ids for row in chosen], completions, False)
            inputs = {
                "prompt_ids": prompt_ids,
                "prompt_mask": prompt_mask,
                "completion_ids": completion_ids,
                "completion_mask": completion_mask,
                "advantages": torch.tensor([row.advantage for row in chosen]),
                "num_items_in_batch": total,
            }
            part = trainer.compute_loss(model, inputs)
            part.backward()
            loss += part.item()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        return loss

    return update


def measure(side: str, options: argparse.Namespace) -> dict[str, float]:
    """Time updates of one side in this process; the first one is a warm-up."""
    import torch

    if options.threads:
        torch.set_num_threads(options.threads)
    torch.manual_seed(options.seed)
    model = load(options.model)
    rows = make_rows(options.rollouts, options.block, model.config.vocab_size, options.seed)
    if side == "memfactory":
        update = ours(model, rows, options.budget, options.packing)
    else:
        update = theirs(model, rows, options.budget)
    before = resident_mib()
    loss = update()
    times, cpu = [], time.process_time()
    for _ in range(options.repeats):
        started = time.perf_counter()
        update()
        times.append(time.perf_counter() - started)
    seconds, cpu = min(times), (time.process_time() - cpu) / options.repeats
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    tokens = sum(len(row.prompt_ids) + len(row.completion_ids) for row in rows)
    return {
        "calls": len(rows),
        "tokens": tokens,
        "seconds": seconds,
        "cpu_seconds": cpu,
        "tokens_per_second": tokens / seconds,
        "peak_mib": peak,
        "update_mib": peak - before,
        "loss": loss,
    }


def resident_mib() -> float:
    """Resident memory of this process now."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize() / 2**20


def main() -> None:
    """Run both sides, each in a fresh process, and print a table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    default = str(TINY) if (TINY / "model.safetensors").exists() else ""
    parser.add_argument(
        "--model", default=default, help="model folder or a recipe's model.path; default: the tiny policy"
    )
    parser.add_argument("--rollouts", type=int, default=64, help="rollouts of 1 to 6 blocks")
    parser.add_argument("--block", type=int, default=160, help="tokens of a full block")
    parser.add_argument("--budget", type=int, default=8192, help="padded tokens of a micro-batch, both sides")
    parser.add_argument(
        "--repeats", type=int, default=3, help="timed updates after one warm-up; the fastest counts"
    )
    parser.add_argument("--threads", type=int, default=0, help="torch threads; 0 leaves it to torch")
    parser.add_argument(
        "--rounds", type=int, default=1, help="times to run both sides, alternating; best counts"
    )
    parser.add_argument("--packing", action="store_true", help="our side packs rows instead of padding them")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--side", choices=("memfactory", "trl"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.side:
        warnings.simplefilter("ignore")
        print(json.dumps(measure(options.side, options)))
        return

    results: dict[str, dict[str, float]] = {}
    for _ in range(options.rounds):
        for side in ("memfactory", "trl"):
            command = [sys.executable, __file__, *sys.argv[1:], "--side", side]
            finished = subprocess.run(command, capture_output=True, text=True, check=False)
            if finished.returncode:
                sys.exit(f"{side} failed:\n{finished.stderr[-2000:]}")
            result = json.loads(finished.stdout.strip().splitlines()[-1])
            if side not in results or result["seconds"] < results[side]["seconds"]:
                results[side] = result
    mine, other = results["memfactory"], results["trl"]
    ratio = mine["tokens_per_second"] / other["tokens_per_second"]
    if options.json:
        print(json.dumps({**results, "speedup": ratio}))
        return
    print(f"{options.model or 'random model'}: {mine['calls']} calls, {mine['tokens']} tokens an update")
    print(
        f"{'':12}{'tokens/s':>10}{'seconds':>9}{'CPU s':>9}{'peak MiB':>10}{'of which update':>17}{'loss':>9}"
    )
    for side, result in results.items():
        speed = f"{result['tokens_per_second']:10.0f}{result['seconds']:9.2f}{result['cpu_seconds']:9.2f}"
        print(f"{side:12}{speed}{result['peak_mib']:10.0f}{result['update_mib']:17.0f}{result['loss']:9.4f}")
    memory = mine["update_mib"] / other["update_mib"]
    print(f"memfactory / trl: {ratio:.2f}x tokens/s, {memory:.2f}x memory of the update")


if __name__ == "__main__":
    main()
