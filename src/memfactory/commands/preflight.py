"""What can be known without weights, but not from the recipe alone: it needs the tokenizer, or this machine."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from memfactory.core import registry
from memfactory.core.errors import BadInput
from memfactory.core.ranks import ALONE, Ranks
from memfactory.recipe.load import Recipe
from memfactory.recipe.roles import played_by

if TYPE_CHECKING:
    from memfactory.commands.graph import Policy


def check_lengths(recipe: Recipe, policy: Policy) -> None:
    """Refuse an agent whose own lengths exceed the context of whoever plays the module.

    Replies (`extractor_tokens` of the module `extractor`) are compared for every module that asks a model; full blocks
    with memory and prompt where the agent's class tells by `longest_calls`. Raises `BadInput` that names the key.
    """
    schema = recipe.schema
    agent = registry.get("agent", schema.agent["type"])
    for name, value in schema.agent.items():
        if not name.endswith("_tokens") or not _is_of_a_reply(name, schema.agent):
            continue
        if isinstance(value, int) and value >= policy.max_model_len:
            raise recipe.error(
                f"agent.{name}",
                f"{value} tokens leave nothing of the context of {policy.max_model_len} tokens "
                "(model.max_model_len)",
            )
    longest_calls = getattr(agent.build, "longest_calls", None)
    if longest_calls is None:
        return

    def count(prompt: str) -> int:
        text = schema.prompts.get(prompt, "")
        return policy.codec.count(text) if text else 0

    players = played_by(schema)
    for module, wanted in longest_calls(schema.agent, count).items():
        limit = policy.frozen.get(players.get(module, ""), policy).max_model_len
        if wanted > limit:
            key = next(
                (f"agent.{name}" for name in ("block_tokens", "top_k") if name in schema.agent), "agent"
            )
            raise recipe.error(
                key,
                f"a full prompt of module '{module}' and its reply are {wanted} tokens, the context has {limit}; "
                "lower the agent's lengths or raise model.max_model_len",
            )


def _is_of_a_reply(name: str, agent: Mapping[str, Any]) -> bool:
    """Whether `<module>_tokens` belongs to a module of this agent that asks a model."""
    module = name.removesuffix("_tokens")
    specs = [spec for key, spec in agent.items() if key.startswith(module) and isinstance(spec, Mapping)]
    return any(
        getattr(registry.get("module", spec["type"]).build, "asks_model", True)
        for spec in specs
        if "type" in spec
    )


def check_learner(recipe: Recipe, ranks: Ranks = ALONE) -> None:
    """Refuse a learner that this machine cannot run: its device, its packages, its file. Raises `BadInput`."""
    from memfactory.commands.graph import learner_on

    block = learner_on(ranks, recipe.schema.learner)
    config: Any = registry.get("learner", block["type"]).config
    if not hasattr(config, "quantization"):
        return
    from memfactory.learners.loading import require_packages
    from memfactory.learners.settings import pick_device

    known = {field.name for field in fields(config)}
    made = config(**{name: value for name, value in block.items() if name in known})
    require_packages(made, pick_device(made.device, ranks.local_rank if ranks.world > 1 else None))
    file = getattr(made, "config_file", None)
    if file is not None and not Path(file).is_file():
        raise BadInput(f"learner.config_file: there is no file {file}")
