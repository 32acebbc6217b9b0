"""`memfactory eval`: score agents on held-out tasks, or compare two finished results."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any

from rich.console import Console

from memfactory.commands.cells import Cell
from memfactory.commands.graph import (
    Policy,
    make_collector,
    open_environment,
    open_policy,
    open_sampler,
)
from memfactory.commands.identity import identity, short_hash
from memfactory.commands.results import unanswered_line
from memfactory.commands.scoring import evaluation_settings, first_metric, prepare_metrics
from memfactory.core.errors import BadInput
from memfactory.core.types import Task
from memfactory.core.versions import package_versions
from memfactory.environments.base import Environment
from memfactory.evaluation.compare import compare_runs, differences_table, read_run
from memfactory.evaluation.journal import Journal
from memfactory.evaluation.judged import judge_lines
from memfactory.evaluation.report import Entry, cost_table, group_tables, score_tables, write_results
from memfactory.evaluation.runner import evaluate_sets
from memfactory.evaluation.scores import SetResult
from memfactory.evaluation.view import EvalView
from memfactory.models.fingerprint import model_fingerprint
from memfactory.recipe.build import build_agent
from memfactory.samplers.roles import Cast


@dataclass(frozen=True)
class _Opened:
    """A cell with its tasks, rewards and agent; all that can be wrong before an engine starts has been checked."""

    cell: Cell
    environment: Environment
    agent: Any
    policy: Policy
    configuration: dict[str, Any]


def evaluate(cells: Sequence[Cell], console: Console) -> int:
    """Run every cell on its sets; print tables, write `eval/<hash>.json`. Returns the exit code, 0.

    Finished rollouts go to `eval/rollouts/` at once, and those that are there are not made again. Raises `BadInput`
    before anything is started for what is wrong with recipes or data, `ServiceError` when a sampler failed: what was
    finished is kept, no result is written.
    """
    folder = cells[0].recipe.output_dir / "eval"
    opened = _open(cells, console)
    view, entries = EvalView(console), list[Entry]()
    for _, group in groupby(opened, key=lambda one: one.cell.engine):
        sharing = list(group)
        sampler = open_sampler(sharing[0].cell.recipe, sharing[0].policy)
        try:
            for one in sharing:
                entries += _entries(one, _score(one, sampler, view, folder, several=len(opened) > 1))
        finally:
            sampler.close()
    _require_some_success(entries)
    recipes = {_recipe_id(one): dict(one.cell.recipe.shown) for one in opened}
    path = write_results(folder, entries, recipes, package_versions())
    for text in (score_tables(entries), group_tables(entries), cost_table(entries)):
        if text:
            console.print(f"\n{text}", highlight=False, markup=False, soft_wrap=True)
    changes = dict.fromkeys(line for entry in entries for line in entry.result.changes)
    for line in (*_judge_lines(entries), *(f"warning: {change}" for change in changes)):
        console.print(line, highlight=False, markup=False, soft_wrap=True)
    silent, calls = _unanswered(entries)
    if silent:
        console.print(unanswered_line(silent, calls), highlight=False, markup=False, soft_wrap=True)
    console.print(f"\nresult: {path}", highlight=False, markup=False, soft_wrap=True)
    _tell_failures(entries, console)
    return 0


def compare(before: str, after: str, console: Console) -> int:
    """Print paired differences of two finished results; no model is loaded. Raises `BadInput` as `read_run` does."""
    runs = read_run(before), read_run(after)
    differences = compare_runs(*runs)
    console.print(differences_table(differences, *runs), highlight=False, markup=False, soft_wrap=True)
    return 0


def _open(cells: Sequence[Cell], console: Console) -> list[_Opened]:
    loaded: dict[str, Sequence[Task]] = {}
    policies: dict[str, tuple[Policy, dict[str, str]]] = {}
    opened = []
    for cell in cells:
        recipe = cell.recipe
        if not recipe.schema.data.eval:
            raise recipe.error("data.eval", "there is nothing to evaluate on; name at least one set")
        prepare_metrics(recipe)
        environment = open_environment(recipe, train=False, evaluate=True, loaded=loaded)
        if cell.engine not in policies:
            policy = open_policy(recipe)
            folders = {"policy": policy.folder, **{role: own.folder for role, own in policy.frozen.items()}}
            weights = {role: model_fingerprint(folder) for role, folder in folders.items()}
            policies[cell.engine] = (policy, weights)
            for remark in policy.remarks(recipe):
                console.print(remark, highlight=False, markup=False, soft_wrap=True)
        policy, weights = policies[cell.engine]
        opened.append(_Opened(cell, environment, build_agent(recipe), policy, identity(recipe, weights)))
    return opened


def _score(
    one: _Opened, sampler: Cast, view: EvalView, folder: Path, *, several: bool
) -> dict[str, SetResult]:
    """The results of one cell by set; `several` cells are told apart in what is shown."""
    recipe, cell = one.cell.recipe, one.cell
    settings = evaluation_settings(recipe)
    collector = make_collector(recipe, one.policy, sampler, one.agent, one.environment, training=False)
    path = folder / "rollouts" / f"{short_hash(one.configuration)}.jsonl"
    owner = " ".join(filter(None, (cell.model, cell.agent, cell.benchmark))) + " " if several else ""
    with Journal(path, one.configuration) as journal:
        return evaluate_sets(
            collector,
            one.environment.eval_tasks,
            settings=settings,
            watch=lambda name, total: view.watching(
                f"{owner}{name}", total, first_metric(recipe), recipe.schema.evaluation.concurrency
            ),
            journal=journal,
        )


def _recipe_id(one: _Opened) -> str:
    return short_hash({"recipe": one.cell.recipe.to_yaml(), "identity": one.configuration})


def _entries(one: _Opened, results: dict[str, SetResult]) -> list[Entry]:
    cell = one.cell
    return [
        Entry(_recipe_id(one), cell.recipe.schema.name, cell.model, cell.agent, cell.benchmark, result)
        for result in results.values()
    ]


def _judge_lines(entries: Sequence[Entry]) -> list[str]:
    return judge_lines(
        {f"{entry.model} {entry.agent} {entry.result.name}": entry.result.judges for entry in entries}
    )


def _unanswered(entries: Sequence[Entry]) -> tuple[int, int]:
    """How many replies held no answer, of how many."""
    finished = [prediction.finished for entry in entries for prediction in entry.result.predictions]
    return sum(one.unanswered_calls for one in finished), sum(one.calls for one in finished)


def _require_some_success(entries: Sequence[Entry]) -> None:
    predictions = [prediction for entry in entries for prediction in entry.result.predictions]
    if predictions and all(prediction.error for prediction in predictions):
        first = predictions[0]
        raise BadInput(f"all {len(predictions)} rollouts failed; first: {first.task_id}: {first.error}")


def _tell_failures(entries: Sequence[Entry], console: Console) -> None:
    for entry in entries:
        failed = entry.result.errors
        if failed:
            first = next(f"{p.task_id}: {p.error}" for p in entry.result.predictions if p.error)
            console.print(
                f"warning: {entry.model} {entry.agent} {entry.result.name}: {failed} rollouts failed and score 0; "
                f"first: {first}",
                highlight=False,
                markup=False,
                soft_wrap=True,
            )
