"""Measure what RMM's linear reranker learns while it serves: no training run, one answer after another.

Each question of the training data has a memory bank of its own; the agent, and so the reranker, is one. Prints, for
each part of the questions, how many were answered right and how often the right memory was among those shown.
"""

from __future__ import annotations

import argparse
import asyncio
import json

from memfactory.agents.base import keeps_bank
from memfactory.commands.graph import make_collector, open_environment, open_policy, open_sampler
from memfactory.core.seeding import seed_everything
from memfactory.core.types import Call
from memfactory.metrics.boxed import last_boxed
from memfactory.metrics.qa import exact_match
from memfactory.recipe.build import build_agent
from memfactory.recipe.load import load_recipe


async def main() -> None:
    """Ask, and let the reranker learn from each answer (or, with --frozen, not)."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--recipe", default="rmm")
    parser.add_argument("--questions", type=int, default=200)
    parser.add_argument("--part", type=int, default=50, help="questions that are summed up together")
    parser.add_argument("--first", type=int, default=0, help="number of the first question")
    parser.add_argument("--frozen", action="store_true", help="for comparison: serve without learning")
    parser.add_argument("overrides", nargs="*", help="keys of the recipe, as for memfactory train")
    options = parser.parse_args()
    online = "false" if options.frozen else "true"
    recipe = load_recipe(options.recipe, [*options.overrides, f"agent.reranker.online={online}"])
    seed_everything(recipe.schema.seed)
    tasks = open_environment(recipe, train=True, evaluate=False).train_tasks
    agent = build_agent(recipe)
    assert keeps_bank(agent)
    policy = open_policy(recipe)
    make_models = make_collector(
        recipe, policy, open_sampler(recipe, policy), agent, None, training=False
    ).make_models
    right, shown = [], []
    for number in range(options.first, options.first + options.questions):
        task = tasks[number]
        calls: list[Call] = []
        models = make_models(phase="ask", task=task, index=0, calls=calls)
        bank = agent.new_bank()
        for session in task.evidence.sessions:
            with bank.transaction():
                await agent.remember(session, bank, models)
        answer = await agent.answer(task.question, bank, models)
        right.append(exact_match(last_boxed(answer.reply) or answer.reply, task.answers))
        wanted = set(task.meta["evidence_turns"])
        shown.append(bool(wanted & {turn for item in answer.found for turn in item.sources}))
    for start in range(0, options.questions, options.part):
        part = slice(start, start + options.part)
        count = len(right[part])
        print(
            json.dumps(
                {
                    "questions": f"{start + 1}-{start + count}",
                    "exact_match": round(sum(right[part]) / count, 3),
                    "recall": round(sum(shown[part]) / count, 3),
                }
            ),
            flush=True,
        )


if __name__ == "__main__":
    asyncio.run(main())
