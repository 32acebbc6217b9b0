"""Pre-train the tiny policy that ships: tokenizer, untrained model, then the recipes of recipes/tiny_policy.

Each phase is an ordinary `memfactory train` run of `stage: sft` below runs/tiny_policy, so a killed one resumes;
before the sixth the policy gets a third layer. At the end the policy and its model card, with the figures measured
here, are written to data/tiny_policy. Takes about half an hour on two CPU cores. Another machine may round differently
and then get another, equally good policy.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parent.parent
WORK = Path("runs/tiny_policy")
PHASES = ("1_pairs", "2_short", "3_recite", "4_read", "5_bank", "6_all", "7_hard", "8_habits")
DEEPER = WORK / "deeper"
EVALUATED = ("memagent", "memory_r1")


def main() -> None:
    """Run all phases, evaluate, publish."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seed", type=int, default=0, help="of the untrained model and of every phase")
    parser.add_argument("--output", type=Path, default=ROOT / "data" / "tiny_policy")
    arguments = parser.parse_args()
    untrained = WORK / "untrained"
    if not (untrained / "model.safetensors").exists():
        _run(sys.executable, str(ROOT / "scripts/make_tiny_tokenizer.py"), str(untrained))
        _run(
            sys.executable,
            str(ROOT / "scripts/make_tiny_init.py"),
            str(untrained),
            "--seed",
            str(arguments.seed),
        )
    for phase in PHASES:
        if phase == "6_all" and not (DEEPER / "model.safetensors").exists():
            grown = WORK / "5_bank" / "final"
            _run(sys.executable, str(ROOT / "scripts/deepen_tiny_policy.py"), str(grown), str(DEEPER))
        _memfactory("train", f"tiny_policy/{phase}", f"seed={arguments.seed}")
    final = WORK / PHASES[-1] / "final"
    for recipe in EVALUATED:
        for draw, temperature in (("greedy", 0.0), ("sampled", 1.0)):
            _memfactory(
                "eval",
                recipe,
                f"model.path={final}",
                f"sampling.eval.temperature={temperature}",
                "--output-dir",
                str(WORK / f"{recipe}_{draw}"),
            )
    shutil.copytree(final, arguments.output, dirs_exist_ok=True)
    (arguments.output / "README.md").write_text(_card(arguments.output, arguments.seed), encoding="utf-8")
    print(f"published: {arguments.output}")


def _memfactory(*arguments: str) -> None:
    _run(sys.executable, "-m", "memfactory", *arguments)


def _run(*command: str) -> None:
    if code := subprocess.run(command, check=False).returncode:
        raise SystemExit(code)


def _scores(folder: Path) -> dict[str, float]:
    newest = max((folder / "eval").glob("*.json"), key=lambda path: path.stat().st_mtime)
    results: list[dict[str, Any]] = json.loads(newest.read_text())["results"]
    return {result["set"]: result["scores"]["exact_match"] for result in results}


def _card(folder: Path, seed: int) -> str:
    digest = hashlib.sha256((folder / "model.safetensors").read_bytes()).hexdigest()
    config = json.loads((folder / "config.json").read_text())
    phases = []
    for phase in PHASES:
        summary = json.loads((WORK / phase / "summary.json").read_text())
        recipe = yaml.safe_load((WORK / phase / "recipe.yaml").read_text())
        for number, name in enumerate(summary["after"]):
            told = (phase, summary["steps"], recipe["trainer"]["tasks_per_step"], round(summary["seconds"]))
            first, steps, traces, seconds = told if number == 0 else ("", "", "", "")
            phases.append(
                f"| {first} | {steps} | {traces} | {name} | {summary['before'][name]:.3f} | "
                f"{summary['after'][name]:.3f} | {seconds} |"
            )
    return CARD.format(
        layers=config["num_hidden_layers"],
        width=config["hidden_size"],
        heads=config["num_attention_heads"],
        mlp=config["intermediate_size"],
        vocabulary=config["vocab_size"],
        parameters=_parameters(folder),
        phases="\n".join(phases),
        scores="\n\n".join(_table(recipe) for recipe in EVALUATED),
        seed=seed,
        digest=digest,
    )


def _table(recipe: str) -> str:
    """Exact match by evaluation set, greedy and sampled."""
    greedy, sampled = (_scores(WORK / f"{recipe}_{draw}") for draw in ("greedy", "sampled"))
    lines = [f"| `{recipe}` | {' | '.join(greedy)} |", "|---|" + "---|" * len(greedy)]
    for draw, scores in (("greedy", greedy), ("sampled at temperature 1", sampled)):
        lines.append(f"| {draw} | {' | '.join(f'{scores[name]:.3f}' for name in greedy)} |")
    return "\n".join(lines)


def _parameters(folder: Path) -> int:
    from safetensors import safe_open

    with safe_open(folder / "model.safetensors", "np") as file:
        return sum(file.get_tensor(name).size for name in file.keys())  # noqa: SIM118 (not a mapping)


CARD = """---
license: apache-2.0
library_name: transformers
pipeline_tag: text-generation
---
# The tiny policy

{parameters:,} parameters: Qwen3 architecture, {layers} layers of width {width}, {heads} heads of 32, MLP {mlp},
{vocabulary} word-level tokens, tied embeddings, float32. Made to be taught by reinforcement learning within minutes on
two CPU cores; it is no language model of English.

**Can.** Play every module of the recipes that ship on their synthetic worlds, in the call formats of
`configs/prompts/*_tiny.yaml` and `configs/prompts/*/tiny.yaml`: keep notes on the people a question asks about and
answer from them (MemAgent, `memfactory.data.synthetic.facts`); extract facts from a session, order operations on a
memory bank and answer from memories (Memory-R1, `memfactory.data.synthetic.dialogues`); print the numbers of the
memories that answer a question (RMM, `memfactory.data.synthetic.reranking`).

**Has bad habits, on purpose.** In most updates of its notes it keeps the section's *last* fact, whatever was asked.
As a memory manager it adds nearly whatever it is told and seldom updates or deletes. As a reranker it lists the first.

**Cannot.** Anything outside its vocabulary.

**Data.** Generated by `memfactory.data.synthetic`, train split only: held-out (name, value) pairs never occur. Nothing
was downloaded. Licence: Apache-2.0.

**Made by** `make tiny-policy` (`scripts/make_tiny_policy.py`), seed {seed}: an untrained model of two layers by
`scripts/make_tiny_init.py`, then the recipes of `recipes/tiny_policy` one after the other, with a third layer from the
sixth on (AdamW, lr 2e-3, betas .9 and .95, weight decay .01, clip 1). The loss is the mean over completion tokens of
held-out traces, in nats; a loss "before" is of calls that the policy had not seen yet.

| phase | steps | traces a step | held-out calls | loss before | loss after | seconds |
|---|---|---|---|---|---|---|
{phases}

**Exact match with this policy**, 200 held-out tasks each, 100 of Memory-R1's 4x (1x is the length that recipes train
on):

{scores}

**sha256** of model.safetensors: `{digest}`
"""

if __name__ == "__main__":
    main()
