"""Evaluation results as Markdown tables for the terminal and as one JSON file."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any

from memfactory.core.files import write_json
from memfactory.evaluation.metrics import label
from memfactory.evaluation.scores import Score, SetResult

SCHEMA_VERSION = 2


@dataclass(frozen=True)
class Entry:
    """The result of one set, and whose it is. `benchmark` is None for a recipe's own sets.

    `recipe_id` names the resolved recipe among those of the file.
    """

    recipe_id: str
    name: str
    model: str
    agent: str
    benchmark: str | None
    result: SetResult


def score_tables(entries: Sequence[Entry]) -> str:
    """Scores in percent with 95 % intervals: one Markdown table for each benchmark.

    A row for each set, and after several sets of one model and agent their plain mean. A judge has a column for its
    score and one for the replies that it could not judge, which are left out.
    """
    tables = []
    for benchmark in dict.fromkeys(entry.benchmark for entry in entries):
        here = [entry for entry in entries if entry.benchmark == benchmark]
        repeats = max(entry.result.repeats for entry in here)
        metrics = list(dict.fromkeys(name for entry in here for name in entry.result.metrics))
        rewards = list(dict.fromkeys(name for entry in here for name in entry.result.rewards))
        judges = list(dict.fromkeys(name for entry in here for name in entry.result.judges))
        passed = metrics if repeats > 1 else []
        header = [
            *_owner_header(entries),
            "set",
            "tasks",
            *map(label, metrics),
            *(f"{label(name)} pass@{repeats}" for name in passed),
            *(name if name in judges else f"reward {name}" for name in rewards),
            *(f"{name} unjudged" for name in judges),
            "boxed",
            "failed",
        ]
        rows = []
        for owner, own in groupby(here, key=lambda entry: _owner(entry, entries)):
            results = [entry.result for entry in own]
            for result in results:
                cells = [_score(result.metrics.get(name)) for name in metrics]
                cells += [_pass(result.metrics.get(name), repeats) for name in passed]
                cells += [_score(result.rewards.get(name), name in judges) for name in rewards]
                cells += [_unjudged(result, name) for name in judges]
                rows.append(
                    [
                        *owner,
                        result.name,
                        _tasks(result),
                        *cells,
                        f"{100 * result.boxed:.0f}",
                        str(result.errors),
                    ]
                )
            if len(results) > 1:
                means = [_mean([result.metrics.get(name) for result in results]) for name in metrics]
                means += [""] * len(passed)
                means += [_mean([result.rewards.get(name) for result in results]) for name in rewards]
                means += [""] * len(judges)
                rows.append([*owner, "mean", "", *means, "", str(sum(result.errors for result in results))])
        title = f"{benchmark or 'scores'}: % [95 % interval over tasks]"
        tables.append(f"{title}\n\n{markdown(header, rows, left=len(_owner_header(entries)) + 1)}")
    return "\n\n".join(tables)


def cost_table(entries: Sequence[Entry]) -> str:
    """Calls, tokens, seconds and peak memory, a row for each set; a dash where a server does not tell its tokens."""
    judged = any(entry.result.cost.judge_calls for entry in entries)
    header = [
        *_owner_header(entries),
        "set",
        "calls",
        "prompt tokens",
        "completion tokens",
        *(("judge calls", "judge prompt tokens", "judge completion tokens") if judged else ()),
        "s",
        "peak GiB",
    ]
    rows = []
    for entry in entries:
        cost = entry.result.cost
        peak = f"{cost.peak_memory_bytes / 2**30:.2f}"
        if cost.peak_gpu_memory_bytes is not None:
            peak += f" + {cost.peak_gpu_memory_bytes / 2**30:.2f} GPU"
        judge_tokens = (cost.judge_prompt_tokens, cost.judge_completion_tokens)
        name = entry.result.name if entry.benchmark is None else f"{entry.benchmark}/{entry.result.name}"
        rows.append(
            [
                *_owner(entry, entries),
                name,
                f"{cost.calls:,}",
                _count(cost.prompt_tokens),
                _count(cost.completion_tokens),
                *((f"{cost.judge_calls:,}", *map(_count, judge_tokens)) if judged else ()),
                f"{cost.seconds:,.1f}",
                peak,
            ]
        )
    return f"cost\n\n{markdown(header, rows, left=len(_owner_header(entries)) + 1)}"


def group_tables(entries: Sequence[Entry]) -> str:
    """Each set's first metric by group (question type, for instance), where there are several; else empty."""
    tables = []
    for benchmark, name in dict.fromkeys((entry.benchmark, entry.result.name) for entry in entries):
        here = [
            entry
            for entry in entries
            if (entry.benchmark, entry.result.name) == (benchmark, name) and entry.result.groups
        ]
        if not here:
            continue
        metric = next(iter(here[0].result.metrics))
        groups = list(dict.fromkeys(group for entry in here for group in entry.result.groups))
        rows = [
            [
                *_owner(entry, entries),
                *(_score(entry.result.groups.get(group, {}).get(metric)) for group in groups),
            ]
            for entry in here
        ]
        title = f"{name if benchmark is None else f'{benchmark}/{name}'}: {label(metric)} by group"
        header = [*_owner_header(entries), *groups]
        tables.append(f"{title}\n\n{markdown(header, rows, left=len(_owner_header(entries)))}")
    return "\n\n".join(tables)


def markdown(header: Sequence[str], rows: Iterable[Sequence[str]], *, left: int) -> str:
    """A Markdown table, padded so that it reads well as it is; the first `left` columns are aligned left."""
    cells = [[cell.replace("|", "\\|") for cell in row] for row in (header, *rows)]
    widths = [max(3, *(len(row[i]) for row in cells)) for i in range(len(header))]

    def line(row: Sequence[str]) -> str:
        padded = [
            cell.ljust(width) if i < left else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        return f"| {' | '.join(padded)} |"

    rule = ["-" * width if i < left else "-" * (width - 1) + ":" for i, width in enumerate(widths)]
    return "\n".join([line(cells[0]), line(rule), *map(line, cells[1:])])


def write_results(
    folder: Path,
    entries: Sequence[Entry],
    recipes: Mapping[str, Mapping[str, Any]],
    versions: Mapping[str, str],
) -> Path:
    """Write everything needed to read the numbers later: predictions, recipes, package versions; return the file.

    The file's name is a hash of recipes and tasks: the same evaluation writes the same file, no other does.
    """
    results = [
        {
            "recipe": entry.recipe_id,
            "name": entry.name,
            "model": entry.model,
            "agent": entry.agent,
            "benchmark": entry.benchmark,
            **entry.result.as_json(),
        }
        for entry in entries
    ]
    decides = [
        (
            entry.recipe_id,
            entry.result.name,
            [(p.task_id, p.task_digest, p.index) for p in entry.result.predictions],
        )
        for entry in entries
    ]
    name = hashlib.sha256(json.dumps(decides).encode()).hexdigest()[:8]
    path = folder / f"{name}.json"
    write_json(
        path,
        {
            "schema_version": SCHEMA_VERSION,
            "versions": dict(versions),
            "recipes": dict(recipes),
            "results": results,
        },
    )
    return path


def _owner_header(entries: Sequence[Entry]) -> list[str]:
    """Columns that say whose a row is; the recipe only where there are several."""
    several = len({entry.name for entry in entries}) > 1
    return [*(["recipe"] if several else []), "model", "agent"]


def _owner(entry: Entry, entries: Sequence[Entry]) -> list[str]:
    several = len({other.name for other in entries}) > 1
    return [*([entry.name] if several else []), entry.model, entry.agent]


def _score(score: Score | None, counted_elsewhere: bool = False) -> str:
    if score is None or score.mean is None or score.low is None or score.high is None:
        return "–"
    text = f"{100 * score.mean:.1f} [{100 * score.low:.1f}, {100 * score.high:.1f}]"
    return f"{text} ({score.unscored} unscored)" if score.unscored and not counted_elsewhere else text


def _count(tokens: int | None) -> str:
    return "–" if tokens is None else f"{tokens:,}"


def _unjudged(result: SetResult, name: str) -> str:
    return str(result.judges[name].unjudged) if name in result.judges else "–"


def _mean(scores: Sequence[Score | None]) -> str:
    """The plain mean over sets, if all of them have the score."""
    means = [score.mean for score in scores if score is not None and score.mean is not None]
    return f"{100 * sum(means) / len(means):.1f}" if len(means) == len(scores) else "–"


def _tasks(result: SetResult) -> str:
    return f"{result.tasks}" + (f" x {result.repeats}" if result.repeats > 1 else "")


def _pass(score: Score | None, k: int) -> str:
    value = None if score is None else score.pass_at_k.get(k)
    return "–" if value is None else f"{100 * value:.1f}"
