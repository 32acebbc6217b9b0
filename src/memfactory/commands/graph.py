"""From a checked recipe to the objects a command works with, in the order in which data flows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from memfactory.agents.base import Agent
from memfactory.core.chat import Models
from memfactory.core.ranks import ALONE, Ranks
from memfactory.core.seeding import derive_seed
from memfactory.core.types import Call, SamplingParams, Task
from memfactory.environments.base import Environment
from memfactory.learners.base import Learner
from memfactory.models.text import TextCodec
from memfactory.recipe.build import build_component, build_rubric, build_tasks
from memfactory.recipe.load import Recipe
from memfactory.rollouts.collect import Collector, ProgressFn
from memfactory.rollouts.spread import SpreadCollector
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


def open_sampler(recipe: Recipe, policy: Policy, ranks: Ranks = ALONE) -> Sampler:
    """Start the sampler of the recipe on the policy's weights; each rank has one of its own."""
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
        ranks=ranks,
    )
    return sampler


def open_learner(recipe: Recipe, policy: Policy, ranks: Ranks = ALONE) -> Learner:
    """Load the policy into the learner of the recipe; several ranks share it by DeepSpeed."""
    schema = recipe.schema
    learner: Learner = build_component(
        "learner",
        learner_on(ranks, schema.learner),
        model=policy.folder,
        tokenizer=policy.codec.tokenizer,
        total_steps=schema.trainer.steps * schema.algorithm.epochs * schema.algorithm.minibatches,
        seed=derive_seed(schema.seed, "learner"),
        reference=schema.algorithm.kl_coef > 0 and schema.stage == "rl",
        ranks=ranks,
    )
    return learner


def learner_on(ranks: Ranks, fields: Mapping[str, Any]) -> Mapping[str, Any]:
    """The recipe's learner block as several ranks need it: `local` becomes `deepspeed` with the same fields.

    Both give the same weights and read each other's checkpoints: the recipe need not change with the number of ranks.
    """
    return {**fields, "type": "deepspeed"} if ranks.world > 1 and fields["type"] == "local" else fields


def open_environment(recipe: Recipe, *, train: bool, evaluate: bool) -> Environment:
    """Load the tasks that the command needs, and the rewards."""
    schema = recipe.schema
    train_tasks: Sequence[Task] = ()
    if train:
        train_tasks = _tasks(recipe, "data.train", schema.data.train)
    eval_tasks: dict[str, Sequence[Task]] = {}
    if evaluate:
        limit = schema.evaluation.limit
        for name, fields in schema.data.eval.items():
            tasks = _tasks(recipe, f"data.eval.{name}", fields)
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
        return RolloutModels({"policy": policy}, progress)


def make_collector(
    recipe: Recipe,
    policy: Policy,
    sampler: Sampler,
    agent: Agent,
    environment: Environment | None,
    *,
    training: bool,
    ranks: Ranks = ALONE,
) -> Collector:
    """The collector of training (all rollouts at once) or of evaluation (`evaluation.concurrency` at once).

    Several ranks share the tasks of each batch.
    """
    schema = recipe.schema
    draw = schema.sampling.train if training else schema.sampling.eval
    factory = RoleFactory(
        policy=policy,
        sampler=sampler,
        params=SamplingParams(temperature=draw.temperature, top_p=draw.top_p, top_k=draw.top_k),
        seed=schema.seed,
        template=schema.model.chat_template_kwargs,
    )
    collector = Collector(
        agent=agent,
        make_models=factory,
        score=environment.score if environment is not None else None,
        concurrency=None if training else schema.evaluation.concurrency,
    )
    return collector if ranks.world == 1 else SpreadCollector(collector, ranks)


def parity_prompts(policy: Policy, recipe: Recipe) -> Sequence[Sequence[int]]:
    """A few fixed prompts, made of the recipe's own prompt texts, on which sampler and learner are compared."""
    texts = [text for _, text in sorted(recipe.schema.prompts.items())] or ["parity"]
    limit = max(1, policy.max_model_len - 32)
    return [policy.codec.encode(text)[:limit] or (0,) for text in texts][:4]
