"""Tokens/s of MemAgent rollouts: agents over our vLLM sampler against vLLM alone, in one run.

Ours: every rollout is an agent; it renders its chats, awaits each call, records it. Raw: exactly the prompts of
those calls, already as token ids, given to `LLM.generate` of the same engine as one batch per round (all first
calls, then all second calls, ...), with equal sampling parameters. Generated tokens count, of each side its own.
Both start with an empty prefix cache; repetitions alternate, and the median of each side is compared.

    python scripts/bench_rollout.py                                  # the quickstart's model and task
    python scripts/bench_rollout.py --recipe memagent_smollm2 --tasks 2 --copies 2 --repeats 1
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from memfactory.core.compat import prepare_imports
from memfactory.core.types import Call, Rollout


@dataclass(frozen=True)
class Measured:
    """Generated tokens and the seconds they took."""

    tokens: int
    seconds: float

    @property
    def rate(self) -> float:
        """Generated tokens per second."""
        return self.tokens / self.seconds


def arguments() -> argparse.Namespace:
    """What the command line asks for."""
    summary, _, details = (__doc__ or "").partition("\n\n")
    parser = argparse.ArgumentParser(
        description=summary, epilog=details, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--recipe", default="memagent", help="name or path of a recipe with sampler vllm")
    parser.add_argument("--tasks", type=int, default=24, help="tasks a repetition (default: 24)")
    parser.add_argument("--copies", type=int, default=8, help="rollouts of each task (default: 8)")
    parser.add_argument("--repeats", type=int, default=5, help="measured repetitions, after one warm-up")
    parser.add_argument("overrides", nargs="*", help="recipe overrides, such as agent.block_tokens=48")
    return parser.parse_args()


def main() -> None:
    """Measure both sides and print a table."""
    asked = arguments()
    prepare_imports()
    from memfactory.commands.graph import make_collector, open_environment, open_policy, open_sampler
    from memfactory.recipe.build import build_agent
    from memfactory.recipe.load import load_recipe

    recipe = load_recipe(asked.recipe, asked.overrides)
    environment = open_environment(recipe, train=True, evaluate=False)
    policy = open_policy(recipe)
    sampler: Any = open_sampler(recipe, policy)
    collector = make_collector(recipe, policy, sampler, build_agent(recipe), None, training=True)
    tasks = [environment.train_tasks[n] for n in range(asked.tasks)]

    ours: list[Measured] = []
    raw: list[Measured] = []
    for repeat in range(asked.repeats + 1):
        forget_prefixes(sampler)
        start = time.perf_counter()
        groups = collector.collect(tasks, asked.copies, f"bench-{repeat}")
        seconds = time.perf_counter() - start
        rollouts = [rollout for group in groups for rollout in group]
        check(rollouts)
        calls = [call for rollout in rollouts for call in rollout.calls]
        mine = Measured(sum(len(call.completion_ids) for call in calls), seconds)
        forget_prefixes(sampler)
        theirs = generate_in_rounds(sampler, [rollout.calls for rollout in rollouts], recipe, policy)
        if repeat == 0:
            continue  # first use of each kernel
        ours.append(mine)
        raw.append(theirs)
        print(
            f"{repeat:3}  ours {describe(mine)}   raw {describe(theirs)}   ratio {mine.rate / theirs.rate:.3f}"
        )

    rates = statistics.median(m.rate for m in ours), statistics.median(m.rate for m in raw)
    calls_each = len(calls) / len(rollouts)
    print(f"{len(rollouts)} rollouts of {calls_each:.1f} calls each; medians of {asked.repeats}:")
    print(f"ours {rates[0]:,.0f} tok/s, raw vLLM {rates[1]:,.0f} tok/s, ratio {rates[0] / rates[1]:.3f}")


def generate_in_rounds(
    sampler: Any, rollouts: Sequence[Sequence[Call]], recipe: Any, policy: Any
) -> Measured:
    """The same prompts through `LLM.generate`, all n-th calls of the rollouts in one batch."""
    import vllm

    llm = sampler.policy._engine._llm
    draw, agent = recipe.schema.sampling.train, recipe.schema.agent
    rounds = []
    for n in range(max(len(calls) for calls in rollouts)):
        batch = [calls[n] for calls in rollouts if n < len(calls)]
        prompts = [{"prompt_token_ids": list(call.prompt_ids)} for call in batch]
        params = [
            vllm.SamplingParams(
                temperature=draw.temperature,
                top_p=draw.top_p,
                top_k=draw.top_k,
                max_tokens=agent["answer_tokens" if call.module == "answer" else "memory_tokens"],
                stop_token_ids=sorted(policy.codec.eos_ids),
                logprobs=0,
                detokenize=False,
            )
            for call in batch
        ]
        rounds.append((prompts, params))
    start = time.perf_counter()
    tokens = 0
    for prompts, params in rounds:
        outputs = llm.generate(prompts, params, use_tqdm=False)
        tokens += sum(len(output.outputs[0].token_ids) for output in outputs)
    return Measured(tokens, time.perf_counter() - start)


def forget_prefixes(sampler: Any) -> None:
    """Empty the prefix cache, so that neither side profits from the other."""
    if not sampler.policy._engine._llm.reset_prefix_cache():
        raise SystemExit("vLLM did not reset its prefix cache")


def check(rollouts: Sequence[Rollout]) -> None:
    """Stop when a rollout failed: its tokens would be missing."""
    failed = [rollout.error for rollout in rollouts if rollout.error]
    if failed:
        raise SystemExit(f"{len(failed)} of {len(rollouts)} rollouts failed; first: {failed[0]}")


def describe(measured: Measured) -> str:
    """Tokens, seconds and rate in one phrase."""
    return f"{measured.tokens:6} tok in {measured.seconds:6.2f} s = {measured.rate:8,.0f} tok/s"


if __name__ == "__main__":
    main()
