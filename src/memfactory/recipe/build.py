"""Making objects of a checked recipe, one small function for each block."""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Mapping
from typing import Any

from memfactory.core import registry
from memfactory.core.errors import BadInput
from memfactory.recipe.load import Recipe
from memfactory.recipe.values import MISSING
from memfactory.rewards.rubric import RewardComponent, Rubric


def build_component(kind: str, fields: Mapping[str, Any], **dependencies: Any) -> Any:
    """Build the component of `{type: name, ...}`, its nested components first.

    Of the dependencies each constructor gets those that it names (all, if it takes `**kwargs`).
    """
    component = registry.get(kind, fields["type"])
    arguments = {name: value for name, value in fields.items() if name != "type"}
    for field in dataclasses.fields(component.config):
        nested = field.metadata.get("component")
        if nested and arguments.get(field.name) is not None:
            found = arguments[field.name]
            if field.metadata.get("each"):
                arguments[field.name] = {
                    name: build_component(nested, spec, **dependencies) for name, spec in found.items()
                }
            else:
                arguments[field.name] = build_component(nested, found, **dependencies)
    for name, value in arguments.items():
        if isinstance(value, str) and value == MISSING:
            raise BadInput(f"{kind} '{component.name}': a value is needed for {name}")
    parameters = inspect.signature(component.build).parameters
    takes_all = any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters.values())
    for name, value in dependencies.items():
        if name not in arguments and (takes_all or name in parameters):
            arguments[name] = value
    return component.build(**arguments)


def build_agent(recipe: Recipe, **dependencies: Any) -> Any:
    """The agent, with the recipe's prompts."""
    return build_component("agent", recipe.schema.agent, prompts=recipe.schema.prompts, **dependencies)


def build_rubric(recipe: Recipe, **dependencies: Any) -> Rubric:
    """The recipe's rewards with their weights and the modules they pay."""
    return Rubric(
        {
            name: RewardComponent(
                reward=build_component("reward", reward.component, **dependencies),
                weight=reward.weight,
                modules=reward.modules,
            )
            for name, reward in recipe.schema.reward.items()
        }
    )


def build_tasks(fields: Mapping[str, Any], **dependencies: Any) -> Any:
    """What a block of `data` (`data.train`, `data.eval.<name>`) describes."""
    return build_component("data", fields, **dependencies)
