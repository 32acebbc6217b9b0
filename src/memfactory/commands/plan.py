"""`--dry-run`: check everything that needs no weights, and say what the command would do."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from rich.table import Table

from memfactory.commands.graph import Policy, has_own_engine, open_environment, open_policy
from memfactory.commands.preflight import check_learner
from memfactory.core.types import Task
from memfactory.recipe.build import build_agent, build_component, build_tasks
from memfactory.recipe.cross_checks import remarks
from memfactory.recipe.load import Recipe
from memfactory.recipe.roles import called_in, played_by, role_config, server_spec

_TASKS_LOOKED_AT = 16
_GIB = 2**30


@dataclass(frozen=True)
class ModelSize:
    """What memory depends on: parameters, and the shape of a layer."""

    parameters: int
    layers: int
    hidden: int
    intermediate: int
    vocabulary: int
    kv_bytes_per_token: int


def plan(recipe: Recipe, command: Literal["train", "eval", "infer"]) -> Table:
    """A table of what `command` would do: model, tasks, calls and tokens a step, estimated memory.

    Reads the model's configuration, tokenizer and the data, no weights. Raises `BadInput` for all that
    the command itself would refuse before it starts.
    """
    schema = recipe.schema
    policy = open_policy(recipe)
    size = None
    if (
        policy.folder / "config.json"
    ).is_file():  # else a server has the weights, and here is only a tokenizer
        size = model_size(policy.folder, bytes_per_value=4 if schema.model.dtype == "float32" else 2)
    table = Table(title=f"{command} {schema.name}: the plan, nothing was started", title_justify="left")
    table.add_column("what")
    table.add_column("value")
    known = (
        "tokenizer" if size is None else f"{size.parameters / 1e6:,.1f} M parameters, {schema.model.dtype}"
    )
    table.add_row("model", f"{schema.model.path} ({known})")
    for key, value in _other_parameters(schema.sampler).items():
        table.add_row(f"sampler: {key}", value)
    table.add_row("context", f"{policy.max_model_len:,} tokens")
    for remark in policy.remarks(recipe):
        table.add_row("thinking", remark)
    table.add_row("output", str(recipe.output_dir))
    for module, player in _players(recipe, trained=command == "train" and schema.stage == "rl").items():
        table.add_row(f"module {module}", player)
    if command == "train":
        build_component("tracker", schema.tracker)  # refuses when its package is missing
        check_learner(recipe)
        rows = _sft_rows(recipe) if schema.stage == "sft" else _rl_rows(recipe, policy)
        for name, value in rows.items():
            table.add_row(name, value)
        for remark in remarks(schema):
            table.add_row("note", remark)
    elif command == "eval":
        environment = open_environment(recipe, train=False, evaluate=True)
        for name, tasks in environment.eval_tasks.items():
            calls, tokens = _cost(recipe, policy, tasks)
            repeats = len(tasks) * schema.evaluation.repeats
            cost = f", about {repeats * calls:,.0f} calls, {repeats * tokens:,.0f} tokens" if calls else ""
            table.add_row(f"set {name}", f"{repeats} rollouts{cost}")
    if size is None:
        return table
    estimate = memory_estimate(
        recipe, size, _frozen_bytes(recipe, policy, command), training=command == "train"
    )
    for name, size_in_bytes in estimate.items():
        table.add_row(f"memory: {name}", f"{size_in_bytes / _GIB:.2f} GiB")
    return table


def _players(recipe: Recipe, *, trained: bool) -> dict[str, str]:
    """Who plays each module of the agent."""
    schema = recipe.schema
    players = {}
    called = called_in(schema, training=trained)
    for module, role in played_by(schema).items():
        config = role_config(schema, role)
        if config is None:
            players[module] = f"policy: {schema.model.path}{', trained' if trained else ''}"
        elif config.is_server:
            spec = server_spec(config)
            players[module] = f"{role}: {spec['model'] or 'the first model'} at {spec['base_url']}"
        else:
            players[module] = f"{role}: {config.path or schema.model.path}, frozen"
        if config is not None and role not in called:
            players[module] += "; never called in this stage, no engine is started"
        elif config is not None:
            players[module] += f", temperature {config.temperature:g}"
    return players


def _rl_rows(recipe: Recipe, policy: Policy) -> dict[str, str]:
    schema = recipe.schema
    wants_eval = schema.trainer.eval_before or schema.trainer.eval_after or schema.trainer.eval_every > 0
    environment = open_environment(recipe, train=True, evaluate=wants_eval)
    build_agent(recipe)
    rollouts = schema.trainer.tasks_per_step * schema.algorithm.group_size
    calls, tokens = _cost(recipe, policy, environment.train_tasks)
    return {
        "tasks": f"{len(environment.train_tasks):,} to train on"
        + "".join(f", {len(tasks):,} in {name}" for name, tasks in environment.eval_tasks.items()),
        "steps": f"{schema.trainer.steps} of {schema.trainer.tasks_per_step} tasks "
        f"x {schema.algorithm.group_size} rollouts",
        "calls a step": f"about {rollouts * calls:,.0f}" if calls else "depends on the agent",
        "tokens a step": f"at most {rollouts * tokens:,.0f} (prompts and replies)"
        if calls
        else "depends on the agent",
        "sampler": str(schema.sampler["type"]),
        "learner": f"{schema.learner['type']}, lr {schema.learner.get('lr')}",
    }


def _sft_rows(recipe: Recipe) -> dict[str, str]:
    schema = recipe.schema
    if schema.data.train is None:
        raise recipe.error("data.train", "nothing to learn from; choose a data group with traces")
    traces = build_tasks(schema.data.train, prompts=schema.prompts)
    return {
        "traces": f"{len(traces):,}",
        "steps": f"{schema.trainer.steps} of {schema.trainer.tasks_per_step} traces",
        "learner": f"{schema.learner['type']}, lr {schema.learner.get('lr')}",
    }


def _cost(recipe: Recipe, policy: Policy, tasks: Sequence[Task]) -> tuple[float, float]:
    """Mean calls and most tokens of one rollout, judged by the first tasks and the agent's limits.

    Zeros when that cannot be told: the agent has no blocks, or the evidence is no text.
    """
    agent: Mapping[str, Any] = recipe.schema.agent
    block = agent.get("block_tokens")
    looked_at = [tasks[i] for i in range(min(_TASKS_LOOKED_AT, len(tasks)))]
    texts = [task.evidence for task in looked_at if isinstance(task.evidence, str)]
    if not block or not texts:
        return 0.0, 0.0
    lengths = [policy.codec.count(text) for text in texts]
    blocks = sum(math.ceil(length / block) for length in lengths) / len(lengths)
    asked = sum(policy.codec.count(task.question) for task in looked_at) / len(looked_at)
    prompts = {name: policy.codec.count(text) for name, text in recipe.schema.prompts.items()}
    memory, answer = agent.get("memory_tokens", 0), agent.get("answer_tokens", 0)
    update = prompts.get("update", 0) + asked + 2 * memory
    final = prompts.get("answer", 0) + asked + memory + answer
    return blocks + 1, sum(lengths) / len(lengths) + blocks * update + final


def model_size(folder: Path, bytes_per_value: int) -> ModelSize:
    """Sizes of the model in a folder, from its configuration alone (built on torch's meta device)."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    config = AutoConfig.from_pretrained(folder)
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config)
    text = config.get_text_config()
    heads = getattr(text, "num_key_value_heads", None) or text.num_attention_heads
    width = getattr(text, "head_dim", None) or text.hidden_size // text.num_attention_heads
    return ModelSize(
        parameters=sum(p.numel() for p in model.parameters()),
        layers=text.num_hidden_layers,
        hidden=text.hidden_size,
        intermediate=getattr(text, "intermediate_size", None) or 4 * text.hidden_size,
        vocabulary=text.vocab_size,
        kv_bytes_per_token=2 * text.num_hidden_layers * heads * width * bytes_per_value,
    )


def _other_parameters(sampler: Mapping[str, Any]) -> dict[str, str]:
    """What a server is asked otherwise than by the recipe's sampling."""
    if sampler["type"] != "openai":
        return {}
    shown = {
        "leave_out": ", ".join(sampler.get("leave_out") or ()),
        "extra_body": ", ".join(sampler.get("extra_body") or ()),  # names alone: a value may be secret
    }
    return {name: value for name, value in shown.items() if value}


def _frozen_bytes(recipe: Recipe, policy: Policy, command: str) -> float:
    """Weights of the frozen roles' engines, and the KV caches that some have of their own."""
    value = 4 if recipe.schema.model.dtype == "float32" else 2
    roles, total = called_in(recipe.schema, training=command == "train"), 0.0
    for role, weights in policy.frozen.items():
        if role in roles and has_own_engine(roles[role], training=command == "train"):
            total += model_size(weights.folder, value).parameters * value
            total += float((roles[role].sampler or {}).get("kv_cache_gb", 0.0)) * _GIB
    return total


def memory_estimate(
    recipe: Recipe, size: ModelSize, frozen: float = 0.0, *, training: bool
) -> dict[str, float]:
    """Bytes by purpose; `frozen` are those of engines beside the policy's.

    Training holds float32 weights, gradients and two Adam moments (16 bytes a parameter; under LoRA
    4 and nothing for the rest), activations of one micro-batch (about 6 hidden and 4 intermediate
    vectors a layer and token, or one hidden vector with gradient checkpointing), and the sampler's
    own weights and KV cache.
    """
    schema = recipe.schema
    value = 4 if schema.model.dtype == "float32" else 2
    parts: dict[str, float] = {"sampler weights": float(size.parameters * value)}
    cache = schema.sampler.get("kv_cache_gb")
    if cache is not None:
        parts["KV cache"] = float(cache) * _GIB
    if frozen:
        parts["frozen roles"] = frozen
    if training:
        lora = schema.learner.get("lora_rank")
        parts["learner weights"] = 4.0 * size.parameters
        if not lora:
            parts["gradients and optimizer"] = 12.0 * size.parameters
            if schema.algorithm.kl_coef > 0 and schema.stage == "rl":
                parts["reference model"] = 4.0 * size.parameters
        tokens = schema.learner.get("micro_batch_tokens", 0)
        floats = (
            size.hidden
            if schema.learner.get("gradient_checkpointing")
            else 6 * size.hidden + 4 * size.intermediate
        )
        parts["activations"] = 4.0 * tokens * size.layers * floats
        if schema.stage == "sft":
            del parts["sampler weights"]
            parts.pop("KV cache", None)
    parts["in all"] = sum(parts.values())
    return parts
