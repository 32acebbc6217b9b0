"""Evaluation results as a table on the terminal and as one JSON file."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rich.table import Table

from memfactory.core.files import write_json
from memfactory.evaluation.runner import METRICS, TASK_METRICS, SetResult

SCHEMA_VERSION = 1
_SHORT = {
    "exact_match": "EM",
    "sub_exact_match": "sub-EM",
    "f1": "F1",
    "string_match_all": "all",
    "string_match_part": "any",
}


def results_table(results: Mapping[str, SetResult], model: str) -> Table:
    """One line a set: scores and share of boxed replies (percent), failed rollouts, tokens, seconds.

    Judges among the recipe's rewards have a column each after the metrics, and one for what they left unjudged.
    """
    own = [metric for metric in TASK_METRICS if any(metric in result.scores for result in results.values())]
    metrics = [*METRICS, *own]
    judges = list(dict.fromkeys(name for result in results.values() for name in result.judges))
    table = Table(title=f"{model}: scores in %", title_justify="left")
    table.add_column("set", overflow="fold")
    for column in (
        "tasks",
        *(_SHORT.get(m, m) for m in metrics),
        *judges,
        *(["unjudged"] if judges else []),
        "boxed",
        "failed",
        "tokens",
        "s",
    ):
        table.add_column(column, justify="right")
    for name, result in results.items():
        table.add_row(
            name,
            f"{result.tasks}" + (f" x {result.repeats}" if result.repeats > 1 else ""),
            *(f"{100 * result.scores[metric]:.1f}" if metric in result.scores else "–" for metric in metrics),
            *(_judged(result, name) for name in judges),
            *([str(sum(judge.unjudged for judge in result.judges.values()))] if judges else []),
            f"{100 * result.boxed:.0f}",
            str(result.errors),
            f"{result.prompt_tokens + result.completion_tokens:,}",
            f"{result.seconds:.1f}",
        )
    return table


def _judged(result: SetResult, name: str) -> str:
    judge = result.judges.get(name)
    return "–" if judge is None or judge.score is None else f"{100 * judge.score:.1f}"


def write_results(
    path: Path, results: Mapping[str, SetResult], recipe: Mapping[str, Any], versions: Mapping[str, str]
) -> None:
    """Write everything needed to read the numbers later: predictions, recipe, package versions."""
    write_json(
        path,
        {
            "schema_version": SCHEMA_VERSION,
            "recipe": recipe,
            "versions": versions,
            "sets": {name: result.as_json() for name, result in results.items()},
        },
    )
