"""Tokens/s of whole training steps (rollouts, update, sync, parity) on one rank and on several, one core each.

Runs `memfactory train memagent learner=deepspeed` for some steps with `--nproc 1` on the first core and with
`--nproc N` on the first N, OMP_NUM_THREADS=1, the same tasks and rollouts a step, and compares the medians over the
steps after a warm-up. Tokens are those of prompts and completions. Other work on the cores spoils the figures: the
load before each run is printed.

    python scripts/bench_scaling.py                      # 1 and 2 ranks, ZeRO-2
    python scripts/bench_scaling.py --zero-stage 3 --ranks 4
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

PARTS = ("collect", "update", "sync")


def run(ranks: int, options: argparse.Namespace) -> list[dict[str, Any]]:
    """The metrics of one training run on `ranks` ranks, without those of the warm-up."""
    with tempfile.TemporaryDirectory() as folder:
        command = [
            *(sys.executable, "-m", "memfactory", "train", options.recipe, "--nproc", str(ranks)),
            *("-o", f"{folder}/run", "learner=deepspeed", f"learner.zero_stage={options.zero_stage}"),
            # The recipe's own rates stand below the learner group; they are what is trained with.
            *(f"trainer.steps={options.warmup + options.steps}", "trainer.save_every=1000"),
            *("trainer.eval_before=false", "trainer.eval_after=false", *options.overrides),
        ]
        cores = set(sorted(os.sched_getaffinity(0))[:ranks])
        done = subprocess.run(
            command,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
            preexec_fn=lambda: os.sched_setaffinity(0, cores),
            capture_output=True,
            text=True,
        )
        if done.returncode:
            sys.exit(f"{ranks} ranks failed:\n{done.stderr[-2000:]}")
        lines = (Path(folder) / "run" / "metrics.jsonl").read_text().splitlines()
    return [json.loads(line) for line in lines][options.warmup :]


def summary(records: list[dict[str, Any]]) -> dict[str, float]:
    """Medians over steps: tokens/s of the whole step, seconds of its parts."""
    speeds = [(r["tokens/prompt"] + r["tokens/completion"]) / r["seconds/step"] for r in records]
    medians = {part: statistics.median(r[f"seconds/{part}"] for r in records) for part in (*PARTS, "step")}
    return {"tokens_per_second": statistics.median(speeds), **medians}


def main() -> None:
    """Run both, alternating, and print a table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--recipe", default="memagent", help="what to train")
    parser.add_argument("--ranks", type=int, default=2, help="compared with one")
    parser.add_argument("--zero-stage", type=int, default=2)
    parser.add_argument("--steps", type=int, default=8, help="measured steps")
    parser.add_argument("--warmup", type=int, default=2, help="steps before those")
    parser.add_argument("--rounds", type=int, default=1, help="times to run both; the best of each counts")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("overrides", nargs="*", help="changes to the recipe, as for train")
    options = parser.parse_args()
    if options.ranks > len(os.sched_getaffinity(0)):
        sys.exit(
            f"{options.ranks} ranks need as many cores; this machine offers {len(os.sched_getaffinity(0))}"
        )
    results: dict[int, dict[str, float]] = {}
    for _ in range(options.rounds):
        for ranks in (1, options.ranks):
            load = os.getloadavg()[0]
            result = {**summary(run(ranks, options)), "load_before": load}
            if ranks not in results or result["tokens_per_second"] > results[ranks]["tokens_per_second"]:
                results[ranks] = result
    ratio = results[options.ranks]["tokens_per_second"] / results[1]["tokens_per_second"]
    if options.json:
        print(json.dumps({**{str(ranks): result for ranks, result in results.items()}, "ratio": ratio}))
        return
    print(
        f"{'ranks':>6}{'tokens/s':>10}{'step s':>9}"
        + "".join(f"{part:>9}" for part in PARTS)
        + f"{'load':>7}"
    )
    for ranks, r in results.items():
        parts = "".join(f"{r[part]:9.2f}" for part in PARTS)
        print(f"{ranks:6}{r['tokens_per_second']:10.0f}{r['step']:9.2f}{parts}{r['load_before']:7.1f}")
    print(f"{options.ranks} ranks / 1 rank: {ratio:.2f}x tokens/s (ZeRO-{options.zero_stage})")


if __name__ == "__main__":
    main()
