"""Keys that do not go together, found before anything is loaded: `--dry-run` and the command itself say the same."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from memfactory.core import registry
from memfactory.core.errors import did_you_mean
from memfactory.recipe.schema import RecipeSchema

if TYPE_CHECKING:
    from memfactory.recipe.load import Command, Recipe


def check_together(recipe: Recipe, command: Command | None) -> None:
    """Raise `BadInput` for the first pair of keys with which `command` cannot work."""
    if command == "train" and recipe.schema.stage == "rl":
        for key, problem in _of_sampler(recipe.schema):
            raise recipe.error(key, problem)
    if command in ("train", "eval"):
        for key, problem in _of_sets(recipe.schema):
            raise recipe.error(key, problem)


def _of_sampler(schema: RecipeSchema) -> Iterator[tuple[str, str]]:
    """A sampler that takes no weights would draw from a policy that never learns."""
    sampler = registry.get("sampler", schema.sampler["type"])
    if not getattr(sampler.build, "takes_weights", True) and schema.learner["type"] != "none":
        yield (
            "sampler.type",
            f"sampler '{sampler.name}' cannot take weights; use sampler=vllm or sampler=hf to train",
        )


def _of_sets(schema: RecipeSchema) -> Iterator[tuple[str, str]]:
    for name in schema.evaluation.sets or ():
        if name not in schema.data.eval:
            hint = did_you_mean(name, schema.data.eval) or f"; sets: {', '.join(schema.data.eval) or 'none'}"
            yield "evaluation.sets", f"there is no set '{name}'{hint}"


def remarks(schema: RecipeSchema) -> list[str]:
    """What is allowed and may not be meant: keys of a training run that can have no effect in so few steps."""
    said = []
    steps = schema.trainer.steps * schema.algorithm.epochs * schema.algorithm.minibatches
    warmup = schema.learner.get("warmup_steps", 0)
    if warmup > steps:
        said.append(
            f"learner.warmup_steps {warmup} is more than the run's {steps} steps: lr stays below its value"
        )
    if schema.trainer.eval_every > schema.trainer.steps:
        said.append(
            f"trainer.eval_every {schema.trainer.eval_every} is more than trainer.steps: never in between"
        )
    return said
