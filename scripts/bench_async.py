"""Steps with rollouts beside the update (`trainer.max_staleness=1`) against steps that do one after the other.

The learner runs on the first core, a `vllm serve` of the run's own on the second, one thread each. The median step
after a warm-up is compared with the longer of its rollouts and its update; and, for both ways, what lies between the
last token of one step's rollouts and the first of the next apart from the update: writing and loading weights, the
cache reset, the parity check. Other work on the cores spoils the figures: the load before each run is printed.

    python scripts/bench_async.py
    python scripts/bench_async.py --recipe memagent_smollm2 --steps 3 -- trainer.tasks_per_step=2
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

PARTS = ("collect", "update", "sync", "wait", "step")


def run(staleness: int, cores: list[int], options: argparse.Namespace) -> list[dict[str, Any]]:
    """The metrics of one run, without those of the warm-up and of the last step, which collects nothing ahead."""
    with tempfile.TemporaryDirectory() as folder:
        steps = options.warmup + options.steps + 1
        command = [
            *(sys.executable, "-m", "memfactory", "train", options.recipe, "-o", f"{folder}/run"),
            *("sampler=vllm_server", "sampler.servers=1", f"sampler.cores=['{cores[1]}']"),
            *(f"trainer.max_staleness={staleness}", "algorithm.tis_cap=2", f"trainer.steps={steps}"),
            *("trainer.save_every=1000", "trainer.eval_before=false", "trainer.eval_after=false"),
            *options.overrides,
        ]
        done = subprocess.run(
            command,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
            # The server's guard moves the server to its own core.
            preexec_fn=lambda: os.sched_setaffinity(0, {cores[0]}),
            capture_output=True,
            text=True,
        )
        if done.returncode:
            sys.exit(f"max_staleness {staleness} failed:\n{done.stderr[-2000:]}")
        lines = (Path(folder) / "run" / "metrics.jsonl").read_text().splitlines()
    return [json.loads(line) for line in lines][options.warmup : -1]


def medians(records: list[dict[str, Any]]) -> dict[str, float]:
    """Median seconds of the parts of a step, and two shares: of the longer part, and of what lies between steps."""
    found = {part: statistics.median(r.get(f"seconds/{part}", 0.0) for r in records) for part in PARTS}
    longest = [max(r["seconds/collect"], r["seconds/update"]) for r in records]
    found["step_over_longest"] = statistics.median(
        r["seconds/step"] / part for r, part in zip(records, longest, strict=True)
    )
    found["sync_share"] = statistics.median(r["seconds/sync"] / r["seconds/step"] for r in records)
    return found


def main() -> None:
    """Run both ways and print a table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--recipe", default="memagent", help="what to train")
    parser.add_argument("--steps", type=int, default=8, help="measured steps")
    parser.add_argument("--warmup", type=int, default=2, help="steps before those")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("overrides", nargs="*", help="changes to the recipe, as for train")
    options = parser.parse_args()
    cores = sorted(os.sched_getaffinity(0))
    if len(cores) < 2:
        sys.exit("learner and server need a core each; this machine offers one")
    results = {}
    for staleness in (0, 1):
        load = os.getloadavg()[0]
        results[staleness] = {**medians(run(staleness, cores, options)), "load_before": load}
    if options.json:
        print(json.dumps(results))
        return
    print(f"{'max_staleness':>13}" + "".join(f"{part + ' s':>11}" for part in PARTS) + f"{'load':>7}")
    for staleness, r in results.items():
        print(f"{staleness:13}" + "".join(f"{r[part]:11.2f}" for part in PARTS) + f"{r['load_before']:7.1f}")
    for staleness, r in results.items():
        print(
            f"max_staleness {staleness}: a step takes {r['step_over_longest']:.2f} x the longer of rollouts and "
            f"update; between steps {r['sync_share']:.1%} of it"
        )


if __name__ == "__main__":
    main()
