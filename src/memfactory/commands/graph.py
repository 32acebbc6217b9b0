"""From a checked recipe to the objects a command works with, in the order in which data flows."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from memfactory.agents.base import Agent
from memfactory.algorithms.objective import Objective
from memfactory.commands.preflight import check_lengths
from memfactory.core import registry
from memfactory.core.chat import Models
from memfactory.core.errors import BadInput, did_you_mean
from memfactory.core.ranks import ALONE, Ranks
from memfactory.core.seeding import derive_seed
from memfactory.core.types import Call, Rollout, SamplingParams, Task
from memfactory.environments.base import Environment
from memfactory.learners.base import Learner
from memfactory.models.finite import require_finite_files
from memfactory.models.text import TextCodec
from memfactory.models.thinking import thinking_remark
from memfactory.recipe.build import build_component, build_rubric, build_tasks
from memfactory.recipe.load import Recipe
from memfactory.recipe.roles import POLICY, called_in, other_roles, server_spec
from memfactory.recipe.schema import RecipeSchema, RoleConfig
from memfactory.rollouts.collect import Collector, ProgressFn
from memfactory.rollouts.spread import SpreadCollector
from memfactory.samplers.base import Sampler
from memfactory.samplers.heard import HeardSampler
from memfactory.samplers.roles import Cast, Player, RolloutModels, SampledModel

_Score = Callable[[Rollout], Awaitable[dict[str, float]]]


@dataclass(frozen=True)
class Policy:
    """The policy's files and ruler: where its weights lie, how its text becomes tokens, how long it may read.

    `frozen` holds the same of each role that the agent's modules name and that has weights here.
    """

    folder: Path
    codec: TextCodec
    max_model_len: int
    frozen: Mapping[str, Policy] = field(default_factory=dict)

    def remarks(self, recipe: Recipe) -> list[str]:
        """What a recipe leaves to the policy's chat template, one line each."""
        remark = thinking_remark(self.codec, recipe.schema.model.chat_template_kwargs)
        return [] if remark is None else [remark]


def open_policy(recipe: Recipe) -> Policy:
    """Find the model folder (converting or downloading it if need be) and load its tokenizer.

    The same for frozen roles, so that whatever is wrong with them is known before weights are loaded.
    """
    model = recipe.schema.model
    policy = _open_weights(recipe, "model", model.path, model.max_model_len, weights=_weights_needed(recipe))
    frozen = {}
    for role, config in other_roles(recipe.schema).items():
        if config.is_server:
            continue
        if config.path is None and config.max_model_len is None:
            frozen[role] = policy
        else:
            path = model.path if config.path is None else config.path
            frozen[role] = _open_weights(recipe, f"roles.{role}", path, config.max_model_len)
    policy = replace(policy, frozen=frozen)
    if recipe.schema.stage == "rl":
        check_lengths(recipe, policy)
    return policy


def _weights_needed(recipe: Recipe) -> bool:
    """Whether an engine here loads `model.path`; a server that answers needs only to be measured for."""
    schema = recipe.schema
    if schema.sampler["type"] != "openai":
        return True
    local = (config for config in other_roles(schema).values() if not config.is_server)
    return any(config.path is None and config.sampler is not None for config in local)


def _open_weights(
    recipe: Recipe, key: str, path: str, max_model_len: int | None, *, weights: bool = True
) -> Policy:
    from memfactory.models.source import context_length, resolve_model

    trusted = recipe.schema.model.trust_remote_code
    try:
        folder = resolve_model(path, trust_remote_code=trusted, weights=weights)
    except BadInput as error:
        if key == "model":
            raise
        raise recipe.error(f"{key}.path", str(error).removeprefix("model.path: ")) from error
    served = not weights and not (folder / "config.json").is_file()
    allowed = recipe.schema.sampler.get("context") if served else context_length(folder)
    wanted = max_model_len or allowed
    if allowed is not None and wanted is not None and wanted > allowed:
        raise recipe.error(
            f"{key}.max_model_len", f"{wanted} is more than the {allowed} tokens the model allows"
        )
    if wanted is None:
        also = ", or sampler.context" if served else ""
        raise recipe.error(f"{key}.max_model_len", f"the model folder names no limit; set one{also}")
    return Policy(folder, TextCodec.from_folder(folder, trust_remote_code=trusted), wanted)


def open_sampler(recipe: Recipe, policy: Policy, *, training: bool = False, ranks: Ranks = ALONE) -> Cast:
    """Start the sampler of the recipe on the policy's weights, and what the other roles need.

    A frozen role with the policy's own weights shares the policy's engine unless those weights will change
    (`training`). All others that are called get engines of their own; engines with the recipe's settings divide its
    memory. Each rank has all of them.
    """
    schema = recipe.schema
    roles = called_in(schema, training=training)
    _require_finite(recipe, policy, training=training)
    own = [role for role in policy.frozen if role in roles and has_own_engine(roles[role], training=training)]
    shared = divided(schema.sampler, 1 + sum(roles[role].sampler is None for role in own))
    # Only the policy's engine is ever synced, and so can be woken; the others are as they were loaded.
    frozen = {key: value for key, value in shared.items() if key != "sleep"}
    rank = adapter_rank(schema) if training else 0
    cast = Cast(_start(recipe, shared, policy, ranks, lora_rank=rank))
    try:
        for role, config in roles.items():
            sampler = cast.policy
            if config.is_server:
                limit = {} if config.max_model_len is None else {"max_model_len": config.max_model_len}
                sampler = build_component("sampler", server_spec(config), **limit)
            elif role in own:
                if config.sampler is None and schema.sampler.get("urls"):
                    raise recipe.error(
                        f"roles.{role}.sampler",
                        "the policy's servers follow the policy; this role needs its own",
                    )
                sampler = _start(recipe, config.sampler or frozen, policy.frozen[role], ranks)
            cast.others[role] = Player(
                sampler,
                policy.frozen.get(role, policy).codec,
                SamplingParams(temperature=config.temperature, top_p=config.top_p, top_k=config.top_k),
                schema.model.chat_template_kwargs,
            )
    except BaseException:
        cast.close()
        raise
    return cast


def adapter_rank(schema: RecipeSchema) -> int:
    """Rank of the adapters that a sampler could be given alone; 0 where only merged weights are the policy.

    The rounded base of QLoRA is the learner's alone, and vLLM's adapters are of linear layers.
    """
    learner = schema.learner
    embeds = any(
        target.rpartition(".")[2] in ("lm_head", "embed_tokens")
        for target in learner.get("lora_targets") or ()
    )
    if schema.sampler.get("adapter_sync") is None and (learner.get("quantization") or embeds):
        return 0
    return int(learner.get("lora_rank") or 0)


def _require_finite(recipe: Recipe, policy: Policy, *, training: bool) -> None:
    """Raise `BadInput` if weights that will be loaded hold NaN; the policy's own are the learner's in training."""
    schema = recipe.schema
    if not training and schema.sampler["type"] not in ("openai", "scripted"):
        require_finite_files(policy.folder, "model.path", schema.model.path)
    for role, weights in policy.frozen.items():
        if weights.folder != policy.folder:
            require_finite_files(
                weights.folder,
                f"roles.{role}.path",
                schema.roles[role].path if role in schema.roles else None,
            )


def has_own_engine(config: RoleConfig, *, training: bool) -> bool:
    """Whether a frozen role needs an engine beside the policy's: always if the policy's weights will change."""
    return training or (config.path, config.max_model_len, config.sampler) != (None, None, None)


def _start(
    recipe: Recipe, spec: Mapping[str, Any], policy: Policy, ranks: Ranks, lora_rank: int = 0
) -> Sampler:
    model = recipe.schema.model
    sampler: Sampler = build_component(
        "sampler",
        spec,
        model_folder=policy.folder,
        codec=policy.codec,
        dtype=model.dtype,
        max_model_len=policy.max_model_len,
        seed=recipe.schema.seed,
        trust_remote_code=model.trust_remote_code,
        ranks=ranks,
        lora_rank=lora_rank,
    )
    return sampler


def divided(spec: Mapping[str, Any], engines: int) -> dict[str, Any]:
    """The sampler's spec for each of `engines`: settings that are a budget of the machine in equal parts."""
    config = registry.get("sampler", spec["type"]).config
    shared = {f.name for f in dataclasses.fields(config) if f.metadata.get("shared")}
    return {name: value / engines if name in shared else value for name, value in spec.items()}


def open_learner(recipe: Recipe, policy: Policy, objective: Objective, ranks: Ranks = ALONE) -> Learner:
    """Load the policy into the learner of the recipe; several ranks share it by DeepSpeed."""
    schema = recipe.schema
    require_finite_files(policy.folder, "model.path", schema.model.path)
    learner: Learner = build_component(
        "learner",
        learner_on(ranks, schema.learner),
        model=policy.folder,
        tokenizer=policy.codec.tokenizer,
        total_steps=schema.trainer.steps * objective.steps,
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
                tasks = _held_out(recipe, name, fields)
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


def _held_out(recipe: Recipe, name: str, fields: Mapping[str, Any]) -> Sequence[Task]:
    """A held-out set; what is wrong with one of many in a benchmark need not stop the others, and the error says so."""
    try:
        return _tasks(recipe, f"data.eval.{name}", fields)
    except BadInput as error:
        schema = recipe.schema
        if schema.benchmark is None or schema.evaluation.sets is not None or len(schema.data.eval) == 1:
            raise
        raise BadInput(f"{error} (needed by set '{name}'; evaluation.sets=[...] chooses others)") from error


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
    """Makes the models of one rollout: the policy and the other roles, each with seeds of its own."""

    policy: Player
    others: Mapping[str, Player]
    seed: int

    def __call__(
        self, *, phase: str, task: Task, index: int, calls: list[Call], progress: ProgressFn | None = None
    ) -> Models:
        """Models of rollout `index` on `task`; see `rollouts.collect.ModelsFactory`."""
        models = {
            role: SampledModel(
                role=role,
                sampler=player.sampler,
                codec=player.codec,
                params=player.params,
                calls=calls,
                seed_parts=(self.seed, phase, task.id, index),
                trainable=role == POLICY,
                template=player.template,
            )
            for role, player in {POLICY: self.policy, **self.others}.items()
        }
        drawn = (self.seed, phase, task.id, index) if self.policy.params.temperature > 0 else None
        return RolloutModels(models, progress, drawn)


def make_collector(
    recipe: Recipe,
    policy: Policy,
    sampler: Cast,
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
    params = SamplingParams(temperature=draw.temperature, top_p=draw.top_p, top_k=draw.top_k)
    template = schema.model.chat_template_kwargs
    player, others = Player(sampler.policy, policy.codec, params, template), sampler.others
    score: _Score | None = environment.score if environment is not None else None
    if ranks.world > 1:
        player, *rest = [
            replace(one, sampler=HeardSampler(one.sampler, ranks.beat)) for one in (player, *others.values())
        ]
        others = dict(zip(others, rest, strict=True))
        score = _heard(score, ranks.beat)
    collector = Collector(
        agent=agent,
        make_models=RoleFactory(player, others, schema.seed),
        score=score,
        concurrency=None if training else schema.evaluation.concurrency,
        share_readings=not training,
    )
    return collector if ranks.world == 1 else SpreadCollector(collector, ranks)


def _heard(score: _Score | None, heard: Callable[[], None]) -> _Score | None:
    """The same scores; a judge's word is a sign of life of its rank, like a server's reply."""
    if score is None:
        return None

    async def scored(rollout: Rollout) -> dict[str, float]:
        found = await score(rollout)
        heard()
        return found

    return scored


def parity_prompts(policy: Policy, recipe: Recipe) -> Sequence[Sequence[int]]:
    """A few fixed prompts, made of the recipe's own prompt texts, on which sampler and learner are compared."""
    texts = [text for _, text in sorted(recipe.schema.prompts.items())] or ["parity"]
    limit = max(1, policy.max_model_len - 32)
    return [policy.codec.encode(text)[:limit] or (0,) for text in texts][:4]
