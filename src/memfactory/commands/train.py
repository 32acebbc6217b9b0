"""`memfactory train`: build what the recipe asks for, train or go on training, show what came of it."""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console

from memfactory.agents.components import component_learners
from memfactory.algorithms.objective import Objective
from memfactory.commands.graph import (
    adapter_rank,
    learner_on,
    make_collector,
    open_environment,
    open_learner,
    open_policy,
    open_sampler,
    parity_prompts,
)
from memfactory.commands.preflight import check_learner
from memfactory.commands.scoring import evaluation_settings, first_metric, prepare_metrics
from memfactory.core.address import masked
from memfactory.core.errors import BadInput
from memfactory.core.manifest import named
from memfactory.core.ranks import ALONE, Ranks
from memfactory.core.seeding import derive_seed, seed_everything
from memfactory.core.stopping import Stopped
from memfactory.data.sampling import TaskOrder
from memfactory.data.traces import Trace
from memfactory.evaluation.judged import judge_lines
from memfactory.evaluation.runner import SetResult, evaluate_sets
from memfactory.learners.base import Learner
from memfactory.models.source import resolve_model
from memfactory.recipe.build import build_agent, build_component, build_tasks
from memfactory.recipe.load import Recipe, load_recipe
from memfactory.recipe.render import to_yaml
from memfactory.recipe.yaml_text import NotYaml, parse, read_bytes
from memfactory.samplers.base import takes_adapters
from memfactory.samplers.sync import parity_threshold
from memfactory.samplers.vllm_adapters import wants_adapters
from memfactory.training.final_policy import FINAL, look_at_final, rounding_line
from memfactory.training.inputs import INPUTS, check_inputs, files_of, named_files
from memfactory.training.rl import GroupSettings, RolloutSource
from memfactory.training.run_folder import RunFolder
from memfactory.training.sft import SFT_OBJECTIVE, TraceSource
from memfactory.training.summary import summarise, write_summary
from memfactory.training.trackers.base import GuardedTracker, tracked_run
from memfactory.training.trainer import RowSource, Schedule, Trainer
from memfactory.training.view import TrainingView

#: Keys that may change between two starts of one run: they do not change what is learned.
_FREE_KEYS = (
    "name",
    "output_dir",
    "plugins",
    "tracker",
    "trainer.save_every",
    "trainer.keep_last",
    "trainer.log_rollouts",
    "trainer.parity_threshold",
    # How the work is sharded: `local` and `deepspeed` give the same weights and read each other's checkpoints.
    "learner.type",
    "learner.zero_stage",
    "learner.offload_optimizer",
    "learner.offload_param",
    "learner.config_file",
    # Where rollouts are made, and by how many servers, does not change what is drawn.
    "sampler.urls",
    "sampler.servers",
    "sampler.devices",
    "sampler.cores",
    "sampler.transfer",
    "sampler.weights_dir",
    "sampler.master_address",
    "sampler.timeout_s",
    "sampler.wait_s",
)


def train(recipe: Recipe, console: Console, *, fresh: bool = False, ranks: Ranks = ALONE) -> int:
    """Train to the end and print the summary; returns the exit code.

    Under several ranks each of them calls this; all but rank 0 bring a console that shows nothing.

    A run folder with the same recipe is gone on with; a finished one is only shown. Raises `BadInput`
    when the folder holds another recipe's run (unless `fresh`: then its results are deleted first).
    """
    started = time.monotonic()
    run = RunFolder(recipe.output_dir)
    if not fresh:
        finished = False
        if ranks.first:
            _require_same_recipe(run, recipe)
            finished = _show_if_finished(run, console)
        if ranks.broadcast(finished):
            return 0
    elif ranks.first:
        run.require_clearable()
    seed_everything(derive_seed(recipe.schema.seed, "train"))
    source = None
    # Made first: a package that is missing must be told before minutes of loading.
    chosen = recipe.schema.tracker if ranks.first else {"type": "none"}
    tracker = build_component("tracker", chosen)
    with TrainingView(console) as view:
        tracker = GuardedTracker(tracker, chosen["type"], view.say)
        try:
            if ranks.first and run.path.is_dir():
                # A new folder is made only when nothing can be wrong with the input any more.
                run.acquire()
            inputs = _check_inputs(recipe, run, fresh, view) if ranks.first else {}
            view.say("loading model, data and engine")
            source, learner, objective = (
                _rl(recipe, view, ranks) if recipe.schema.stage == "rl" else _sft(recipe, view, ranks)
            )
            if ranks.first:
                run.acquire()
                if fresh:
                    run.clear()
                run.written.replace_text(run.recipe_path, recipe.to_yaml())
                run.written.replace_json(run.path / INPUTS, inputs)
                view.log_to(lambda line: run.written.append(run.path / "log.txt", line))
                newest = run.checkpoints.newest_whole(view.say)
                if recipe.schema.tracker["type"] != "none":
                    _start_tracker(tracker, run, 0 if newest is None else newest[0], recipe)
            if ranks.world > 1:
                view.say(f"{ranks.world} ranks, learner {learner_on(ranks, recipe.schema.learner)['type']}")
            trainer = _trainer(recipe, source, learner, objective, run, view, tracker, started, ranks)
            code = trainer.train()
            final = _look_at_final(recipe, run, source, learner, ranks) if code == 0 else {}
            if code == 0 and ranks.first:
                metric = first_metric(recipe) if recipe.schema.stage == "rl" else "nll"
                seconds = trainer.state.seconds
                summary = summarise(run, metric=metric, seconds=seconds, seed=recipe.schema.seed)
                if lines := [*final.get("warnings", ()), *summary.get("warnings", ())]:
                    final["warnings"] = lines
                summary |= final
                for figures in final.get("rounding", {}).values():
                    view.say(rounding_line(figures))
                write_summary(run, summary, console)
                if summary.get("unchanged"):
                    view.say(f"warning: the weights are unchanged: {run.final_path} holds the first ones")
                else:
                    line = f"trained policy: {run.final_path}"
                    console.print(line, highlight=False, markup=False, soft_wrap=True)
            return code
        except BaseException as error:
            if ranks.world > 1:
                source = None  # closing an engine may wait for ranks that wait for this one; all end now
                if isinstance(error, Stopped):
                    _leave_others(error, console)
            raise
        finally:
            tracker.finish()
            run.release()
            if source is not None:
                source.close()


def _check_inputs(recipe: Recipe, run: RunFolder, fresh: bool, view: TrainingView) -> dict[str, Any]:
    """Checksums of what the run is made of; raises `BadInput` for what differs from what it began with."""
    schema, plain = recipe.schema, recipe.plain
    paths = {
        "model.path": schema.model.path,
        **{f"roles.{name}.path": role.path for name, role in schema.roles.items()},
    }
    files = [
        found for key in ("data", "agent", "reward", "environment") for found in named_files(key, plain[key])
    ]
    for key, path in paths.items():
        if path is not None:
            folder = resolve_model(path, trust_remote_code=schema.model.trust_remote_code)
            files += files_of(key, folder)
    known = RunFolder(run.path / "nowhere") if fresh else run
    return check_inputs(known, files, [Path(name) for name in schema.plugins], view.say)


def _look_at_final(
    recipe: Recipe, run: RunFolder, source: RowSource, learner: Learner, ranks: Ranks
) -> dict[str, Any]:
    """What the summary must say of the trained policy; all ranks call it."""
    schema = recipe.schema
    if not hasattr(learner, "rounding"):  # it trains no policy, or is a plugin's and cannot tell
        return {}
    first = resolve_model(schema.model.path, trust_remote_code=schema.model.trust_remote_code)
    places = {FINAL: str(schema.learner.get("dtype", "float32"))}
    if isinstance(source, RolloutSource) and not takes_adapters(source.sampler):
        places["sampler"] = schema.model.dtype
    return look_at_final(run.final_path, first, learner, places, ranks)


def _leave_others(stopped: Stopped, console: Console) -> None:
    """End this rank here and now: the others have the signal too, or fail when they wait for this one."""
    console.print(str(stopped), highlight=False)
    sys.stdout.flush()
    os._exit(stopped.exit_code)


def _start_tracker(tracker: GuardedTracker, run: RunFolder, step: int, recipe: Recipe) -> None:
    """Start it, and note which folders it makes in the run folder: those are the run's to delete."""
    before = {path.name for path in run.path.iterdir()}
    tracker.start(tracked_run(run.path, step, recipe.shown, run.written.replace_json))
    for path in run.path.iterdir():
        if path.name not in before and path.is_dir():
            run.written.made_folder(path.name)


def _show_if_finished(run: RunFolder, console: Console) -> bool:
    summary_path = run.path / "summary.json"
    if not (summary_path.exists() and run.final_is_whole()):
        return False
    console.print(f"{run.path}: this run is finished (--fresh trains it anew)", highlight=False, markup=False)
    try:
        write_summary(run, json.loads(summary_path.read_bytes()), console)
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError, OverflowError) as error:
        why = (str(error).splitlines() or [type(error).__name__])[0][:100]
        raise BadInput(
            f"{summary_path}: not readable ({why}); move it away, and the same command makes it anew from the last "
            "checkpoint"
        ) from None
    return True


def _trainer(
    recipe: Recipe,
    source: RowSource,
    learner: Learner,
    objective: Objective,
    run: RunFolder,
    view: TrainingView,
    tracker: GuardedTracker,
    started: float,
    ranks: Ranks,
) -> Trainer:
    settings = recipe.schema.trainer
    return Trainer(
        source=source,
        learner=learner,
        objective=objective,
        schedule=Schedule(
            steps=settings.steps,
            save_every=settings.save_every,
            keep_last=settings.keep_last,
            eval_every=settings.eval_every,
            eval_before=settings.eval_before,
            eval_after=settings.eval_after,
            max_staleness=settings.max_staleness,
        ),
        run=run,
        view=view,
        track=tracker.log,
        started=started,
        ranks=ranks,
        components=source.components if isinstance(source, RolloutSource) else {},
    )


def _rl(recipe: Recipe, view: TrainingView, ranks: Ranks) -> tuple[RowSource, Learner, Objective]:
    """Environment, agent, sampler and learner of `stage: rl`."""
    schema, algorithm = recipe.schema, recipe.schema.algorithm
    wants_eval = schema.trainer.eval_before or schema.trainer.eval_after or schema.trainer.eval_every > 0
    if wants_eval:
        prepare_metrics(recipe)
    check_learner(recipe, ranks)
    policy = open_policy(recipe)
    for remark in policy.remarks(recipe):
        view.say(remark)
    environment = open_environment(recipe, train=True, evaluate=wants_eval)
    agent = build_agent(recipe)
    objective = Objective(
        kind=algorithm.loss,
        clip_low=algorithm.clip_low,
        clip_high=algorithm.clip_high,
        kl_coef=algorithm.kl_coef,
        denominator=algorithm.denominator,
        constant_length=algorithm.constant_length,
        tis_cap=algorithm.tis_cap,
        epochs=algorithm.epochs,
        minibatches=algorithm.minibatches,
        temperature=schema.sampling.train.temperature,
    )
    learner = open_learner(recipe, policy, objective, ranks)
    sampler = open_sampler(recipe, policy, training=True, ranks=ranks)
    # Rollouts beside an update exchange what they made while the update's ranks talk too.
    apart = ranks.apart() if schema.trainer.max_staleness else ranks
    collector = make_collector(recipe, policy, sampler, agent, environment, training=True, ranks=apart)
    evaluator = make_collector(recipe, policy, sampler, agent, environment, training=False, ranks=ranks)

    def evaluate(label: str) -> Mapping[str, SetResult]:
        results = evaluate_sets(
            evaluator,
            environment.eval_tasks,
            settings=evaluation_settings(recipe),
            watch=lambda name, rollouts: view.counting(f"evaluating {label}: {name}", rollouts),
        )
        for line in judge_lines({name: result.judges for name, result in results.items()}):
            view.say(line)
        return results

    source = RolloutSource(
        GroupSettings(
            tasks_per_step=schema.trainer.tasks_per_step,
            group_size=algorithm.group_size,
            advantages=algorithm.advantages,
            drop_zero_variance=algorithm.drop_zero_variance,
            dynamic_sampling=algorithm.dynamic_sampling,
            log_rollouts=schema.trainer.log_rollouts,
            parity_threshold=parity_threshold(
                schema.trainer.parity_threshold, schema.model.dtype, schema.learner.get("dtype", "float32")
            ),
            temperature=schema.sampling.train.temperature,
        ),
        environment,
        collector,
        sampler,
        TaskOrder(len(environment.train_tasks), derive_seed(schema.seed, "tasks")),
        parity_prompts(policy, recipe),
        evaluate,
        ranks,
        component_learners(agent),
    )
    return source, learner, objective


def _sft(recipe: Recipe, view: TrainingView, ranks: Ranks) -> tuple[RowSource, Learner, Objective]:
    """Traces and learner of `stage: sft`; nobody samples."""
    schema = recipe.schema
    traces = _traces(recipe, "data.train", schema.data.train)
    held_out = {
        name: _traces(recipe, f"data.eval.{name}", fields) for name, fields in schema.data.eval.items()
    }
    policy = open_policy(recipe)
    for remark in policy.remarks(recipe):
        view.say(remark)
    source = TraceSource(
        traces,
        held_out,
        TaskOrder(len(traces), derive_seed(schema.seed, "traces")),
        policy.codec,
        policy.codec.tokenizer.eos_token_id,
        schema.trainer.tasks_per_step,
        policy.max_model_len,
        schema.model.chat_template_kwargs,
        ranks,
    )
    return source, open_learner(recipe, policy, SFT_OBJECTIVE, ranks), SFT_OBJECTIVE


def _traces(recipe: Recipe, key: str, fields: Mapping[str, Any] | None) -> Sequence[Trace]:
    if fields is None:
        raise recipe.error(key, "nothing to learn from; choose a data group with traces")
    traces: Sequence[Trace] = build_tasks(fields, prompts=recipe.schema.prompts)
    if not len(traces):
        raise recipe.error(key, "there are no traces in it")
    if not isinstance(traces[0], Trace):
        raise recipe.error(key, f"data '{fields['type']}' holds tasks; stage 'sft' needs traces")
    return traces


def _require_same_recipe(run: RunFolder, recipe: Recipe) -> None:
    """Raise `BadInput` naming the first key in which the run folder's recipe differs from this one."""
    if not run.recipe_path.exists():
        if strange := run.foreign_files():
            raise BadInput(
                f"{run.path}: holds files ({named(strange)}) but no recipe.yaml; choose another --output-dir"
            )
        return
    try:
        stored = parse(read_bytes(run.recipe_path))
        if not isinstance(stored, Mapping):
            raise NotYaml("it is no mapping of keys")
    except NotYaml as error:
        raise BadInput(
            f"{run.recipe_path}: not readable as YAML ({error}); choose another --output-dir, or --fresh to start over"
        ) from None
    old = _leaves(stored)
    new = _leaves(parse(recipe.to_yaml().encode()))
    whole = _leaves(parse(to_yaml(recipe.plain).encode()))  # as runs of before kept what the environment gave
    for key in [*new, *old]:
        if old.get(key) not in (new.get(key), whole.get(key)) and not any(
            key == k or key.startswith(k + ".") for k in _FREE_KEYS
        ):
            if key == "sampler.adapter_sync" and _same_hand_over(recipe, old.get(key)):
                continue
            if key not in old and _defaults_in(run.recipe_path).get(key) == new[key]:
                continue  # an older version had no such key: then it did what the default does
            raise BadInput(
                f"{run.path}: this run was started with {key}={_shown(old.get(key), new.get(key))}, the recipe now "
                f"says {new.get(key)}; choose another --output-dir, or --fresh to delete it and start over"
            )


def _defaults_in(path: Path) -> dict[str, Any]:
    """The recipe that a run keeps, with what this version adds to it; nothing if this version cannot read it."""
    try:
        return _leaves(parse(load_recipe(str(path)).to_yaml().encode()))
    except BadInput:
        return {}


def _same_hand_over(recipe: Recipe, kept: Any) -> bool:
    """Whether `sampler.adapter_sync` as a run has it says what the recipe says: a default follows the types."""
    schema = recipe.schema
    sampler = schema.sampler
    # What no run starts, or reaches by another way than a folder, gets adapters only if it is told so.
    elsewhere = bool(sampler.get("urls")) or sampler.get("transfer", "folder") != "folder"

    def adapters(setting: bool | None) -> bool:
        chosen = False if setting is None and elsewhere else setting
        return wants_adapters(chosen, schema.model.dtype, adapter_rank(schema))

    return adapters(sampler.get("adapter_sync")) == adapters(kept)


def _shown(old: Any, new: Any) -> Any:
    """The kept value of a key; not where the recipe now takes it from the environment, as it may be a secret."""
    secret = isinstance(new, str) and "${oc.env:" in new and "${oc.env:" not in str(old)
    return "another value" if secret else masked(str(old)) if isinstance(old, str) else old


def _leaves(value: Any, key: str = "") -> dict[str, Any]:
    if isinstance(value, Mapping) and value:
        leaves: dict[str, Any] = {}
        for name, inner in value.items():
            leaves.update(_leaves(inner, f"{key}.{name}" if key else str(name)))
        return leaves
    return {key: value}
