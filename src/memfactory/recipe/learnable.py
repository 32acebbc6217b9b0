"""Settings with which training would learn nothing, or another thing than was asked for: refused before it starts."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from memfactory.recipe.schema import RecipeSchema

if TYPE_CHECKING:
    from memfactory.recipe.load import Recipe


def check_learnable(recipe: Recipe) -> None:
    """Raise `BadInput` for a recipe to train by whose own keys say that it cannot learn."""
    for key, problem in _problems(recipe.schema):
        raise recipe.error(key, problem)


def _problems(schema: RecipeSchema) -> Iterator[tuple[str, str]]:
    """Keys and what is wrong with them. Without a learner for the policy its calls are not trained on."""
    if schema.learner["type"] == "none":
        return
    if schema.learner.get("lr") == 0:
        yield "learner.lr", "0 changes no weight; give a rate above 0"
    if schema.learner.get("lora_rank") and schema.learner.get("lora_alpha") == 0:
        yield "learner.lora_alpha", "0 switches the adapters off; set it to about learner.lora_rank"
    if schema.stage == "rl":
        yield from _of_draws(schema)
        yield from _of_algorithm(schema)
        if schema.reward and not any(reward.weight for reward in schema.reward.values()):
            name = next(iter(schema.reward))
            yield f"reward.{name}.weight", "no reward has a weight, so nothing tells rollouts apart; set one"


def _of_draws(schema: RecipeSchema) -> Iterator[tuple[str, str]]:
    draw = schema.sampling.train
    if draw.temperature == 0:
        yield (
            "sampling.train.temperature",
            "0 makes all rollouts of a task the same, so there is nothing to learn from; 1 is usual",
        )
    uncut = (
        "the learner's distribution has no such cut, so the gradient would be another policy's; leave it at"
    )
    if draw.top_p < 1:
        yield "sampling.train.top_p", f"{uncut} 1 in training (sampling.eval.top_p is free)"
    if draw.top_k > 0:
        yield "sampling.train.top_k", f"{uncut} 0 in training (sampling.eval.top_k is free)"


def _of_algorithm(schema: RecipeSchema) -> Iterator[tuple[str, str]]:
    algorithm = schema.algorithm
    if algorithm.group_size < 2:
        yield (
            "algorithm.group_size",
            f"must be at least 2: advantages '{algorithm.advantages}' compare the rollouts of a task with each other",
        )
    unclipped = algorithm.clip_low == 0 and algorithm.clip_high == 0
    if algorithm.loss != "reinforce" and unclipped:
        yield (
            "algorithm.clip_low",
            f"0, with algorithm.clip_high 0 too, leaves loss '{algorithm.loss}' no room to move; 0.2 is usual",
        )
    if algorithm.loss == "reinforce":
        for key, times in (("epochs", algorithm.epochs), ("minibatches", algorithm.minibatches)):
            if times > 1:
                yield (
                    f"algorithm.{key}",
                    f"with loss 'reinforce' must be 1, not {times}: it has no ratio to correct for weights that have "
                    "moved since the rollouts; set algorithm.loss=ppo_clip, or algorithm.epochs=1 "
                    "algorithm.minibatches=1",
                )
