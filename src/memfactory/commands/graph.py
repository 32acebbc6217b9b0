"""From a checked recipe to the objects a command works with, in the order in which data flows."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from memfactory.agents.base import Agent
from memfactory.core.chat import Models
from memfactory.core.errors import did_you_mean
from memfactory.core.seeding import derive_seed
from memfactory.core.types import Call, SamplingParams, Task
from memfactory.environments.base import Environment
from memfactory.evaluation.runner import Settings
from memfactory.learners.base import Learner
from memfactory.models.text import TextCodec
from memfactory.recipe.build import build_component, build_rubric, build_tasks
from memfactory.recipe.load import Recipe
from memfactory.rollouts.collect import Collector, ProgressFn
from memfactory.samplers.base import Sampler
from memfactory.samplers.roles import RolloutModels, SampledModel


@dataclass(frozen=True)
class Policy:
    """The policy's files and ruler: where its weights lie, how its text becomes tokens, how long it may read."""

    folder: Path
    codec: TextCodec
    max_model_len: int


def open_policy(recipe: Recipe) -> Policy:
    """Find the model folder (converting or downloading it if need be) and load its tokenizer."""
    from memfactory.models.source import context_length, resolve_model

    model = recipe.schema.model
    folder = resolve_model(model.path, trust_remote_code=model.trust_remote_code)
    allowed = context_length(folder)
    wanted = model.max_model_len or allowed
    if allowed is not None and wanted is not None and wanted > allowed:
        raise recipe.error(
            "model.max_model_len", f"{wanted} is more than the {allowed} tokens the model allows"
        )
    if wanted is None:
        raise recipe.error("model.max_model_len", "the model folder names no limit; set one")
    return Policy(folder, TextCodec.from_folder(folder, trust_remote_code=model.trust_remote_code), wanted)


def open_sampler(recipe: Recipe, policy: Policy) -> Sampler:
    """Start the sampler of the recipe on the policy's weights."""
    model = recipe.schema.model
    sampler: Sampler = build_component(
        "sampler",
        recipe.schema.sampler,
        model_folder=policy.folder,
        codec=policy.codec,
        dtype=model.dtype,
        max_model_len=policy.max_model_len,
        seed=recipe.schema.seed,
        trust_remote_code=model.trust_remote_code,
    )
    return sampler


def open_learner(recipe: Recipe, policy: Policy) -> Learner:
    """Load the policy into the learner of the recipe."""
    schema = recipe.schema
    learner: Learner = build_component(
        "learner",
        schema.learner,
        model=policy.folder,
        tokenizer=policy.codec.tokenizer,
        total_steps=schema.trainer.steps * schema.algorithm.epochs * schema.algorithm.minibatches,
        seed=derive_seed(schema.seed, "learner"),
        reference=schema.algorithm.kl_coef > 0 and schema.stage == "rl",
    )
    return learner


def open_environment(
    recipe: Recipe, *, train: bool, evaluate: bool, loaded: dict[str, Sequence[Task]] | None = None
) -> Environment:
    """Load the tasks that the command needs, and the rewards.

    Held-out tasks that are in `loaded`, by what describes them, are taken from there; others are put into it.
    """
    schema = recipe.schema
    train_tasks: Sequence[Task] = ()
    if train:
        train_tasks = _tasks(recipe, "data.train", schema.data.train)
    eval_tasks: dict[str, Sequence[Task]] = {}
    if evaluate:
        for name, fields in _chosen_sets(recipe).items():
            key = json.dumps(fields, sort_keys=True)
            tasks = (loaded or {}).get(key)
            if tasks is None:
                tasks = _tasks(recipe, f"data.eval.{name}", fields)
            if loaded is not None:
                loaded[key] = tasks
            limit = schema.evaluation.limit
            eval_tasks[name] = tasks[:limit] if limit is not None else tasks
    environment: Environment = build_component(
        "environment",
        schema.environment,
        rubric=build_rubric(recipe),
        train_tasks=train_tasks,
        eval_tasks=eval_tasks,
        prompts=schema.prompts,
    )
    return environment


def _chosen_sets(recipe: Recipe) -> dict[str, dict[str, Any]]:
    """The held-out sets that `evaluation.sets` names, in its order, or all of them."""
    sets, chosen = recipe.schema.data.eval, recipe.schema.evaluation.sets
    if chosen is None:
        return sets
    for name in chosen:
        if name not in sets:
            hint = did_you_mean(name, sets) or f"; sets: {', '.join(sets)}"
            raise recipe.error("evaluation.sets", f"there is no set '{name}'{hint}")
    return {name: sets[name] for name in chosen}


def _tasks(recipe: Recipe, key: str, fields: Mapping[str, Any] | None) -> Sequence[Task]:
    if fields is None:
        raise recipe.error(key, "nothing to train on; choose a data group (data=...)")
    tasks: Sequence[Task] = build_tasks(fields)
    if not len(tasks):
        raise recipe.error(key, "there are no tasks in it")
    if not isinstance(tasks[0], Task):
        raise recipe.error(key, f"data '{fields['type']}' holds {type(tasks[0]).__name__}s, tasks are needed")
    return tasks


@dataclass(frozen=True)
class RoleFactory:
    """Makes the models of one rollout: the policy, drawing by `params` with seeds of its own."""

    policy: Policy
    sampler: Sampler
    params: SamplingParams
    seed: int
    template: Mapping[str, Any]

    def __call__(
        self, *, phase: str, task: Task, index: int, calls: list[Call], progress: ProgressFn | None = None
    ) -> Models:
        """Models of rollout `index` on `task`; see `rollouts.collect.ModelsFactory`."""
        policy = SampledModel(
            role="policy",
            sampler=self.sampler,
            codec=self.policy.codec,
            params=self.params,
            calls=calls,
            seed_parts=(self.seed, phase, task.id, index),
            trainable=True,
            template=self.template,
        )
        drawn = (self.seed, phase, task.id, index) if self.params.temperature > 0 else None
        return RolloutModels({"policy": policy}, progress, drawn)


def make_collector(
    recipe: Recipe,
    policy: Policy,
    sampler: Sampler,
    agent: Agent,
    environment: Environment | None,
    *,
    training: bool,
) -> Collector:
    """The collector of training (all rollouts at once) or of evaluation (`evaluation.concurrency` at once)."""
    schema = recipe.schema
    draw = schema.sampling.train if training else schema.sampling.eval
    factory = RoleFactory(
        policy=policy,
        sampler=sampler,
        params=SamplingParams(temperature=draw.temperature, top_p=draw.top_p, top_k=draw.top_k),
        seed=schema.seed,
        template=schema.model.chat_template_kwargs,
    )
    return Collector(
        agent=agent,
        make_models=factory,
        score=environment.score if environment is not None else None,
        concurrency=None if training else schema.evaluation.concurrency,
        share_readings=not training,
    )


def evaluation_settings(recipe: Recipe) -> Settings:
    """How the recipe wants its held-out sets scored."""
    wanted = recipe.schema.evaluation
    return Settings(repeats=wanted.repeats, metrics=wanted.metrics, log_rollouts=wanted.log_rollouts)


def parity_prompts(policy: Policy, recipe: Recipe) -> Sequence[Sequence[int]]:
    """A few fixed prompts, made of the recipe's own prompt texts, on which sampler and learner are compared."""
    texts = [text for _, text in sorted(recipe.schema.prompts.items())] or ["parity"]
    limit = max(1, policy.max_model_len - 32)
    return [policy.codec.encode(text)[:limit] or (0,) for text in texts][:4]
