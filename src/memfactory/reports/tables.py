"""The tables of a report: main figures of each run, results of `eval`, and where the recipes differ."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from memfactory.reports.run_data import HeldOut, RunData, Score

_SAME_ANYWAY = ("name", "output_dir")
_ENDS = 5
_LONGEST_CELL = 70
_ABSENT = object()


@dataclass(frozen=True)
class Table:
    """Column titles, and rows of text; the first cell of a row says what it is about."""

    columns: Sequence[str]
    rows: Sequence[Sequence[str]]


@dataclass(frozen=True)
class Tile:
    """One large number: its name, its value, and where it came from."""

    name: str
    value: str
    detail: str


def main_figures(runs: Sequence[RunData], *, headlines: bool = True) -> Table:
    """What each run did and reached; rows that no run can fill are left out.

    Without `headlines` so are those that `tiles` show already.
    """
    rows: list[tuple[str, list[str]]] = [
        ("Steps", [_steps(run) for run in runs]),
        ("Time", [_time(run) for run in runs]),
        ("Reward, first → last 5 steps", [_change(*_ends(run, "reward")) for run in runs]),
        ("Loss, first → last 5 steps", [_loss(run) for run in runs]),
    ]
    for name in dict.fromkeys(e.set for run in runs for e in run.evaluations):
        metric = next((e.metric for run in runs for e in run.evaluations if e.set == name), "")
        pairs = [before_and_after(run, name) for run in runs]
        rows.append((f"Held out: {name} ({metric.replace('_', ' ')})", [_change(*pair) for pair in pairs]))
    if not headlines:
        rows = []
    rows += [
        (
            "Calls cut at their limit, last 5 steps",
            [_percent(_ends(run, "calls/truncated")[1]) for run in runs],
        ),
        ("Failed rollouts", [_total(run, "rollouts/failed") for run in runs]),
        ("Completion tokens", [_total(run, "tokens/completion") for run in runs]),
        ("Policy", [_of_recipe(run, "model", "path") for run in runs]),
        ("Agent", [_of_recipe(run, "agent", "type") for run in runs]),
        ("Advantages", [_of_recipe(run, "algorithm", "advantages") for run in runs]),
        ("Seed", [str(run.recipe["seed"]) if "seed" in run.recipe else "" for run in runs]),
    ]
    filled = [(name, *cells) for name, cells in rows if any(cells)]
    return Table(["", *(run.name for run in runs)], filled)


def tiles(run: RunData) -> list[Tile]:
    """The few numbers that one run is about."""
    found = []
    for name in dict.fromkeys(e.set for e in run.evaluations):
        before, after = before_and_after(run, name)
        if after is not None:
            metric = next(e.metric for e in run.evaluations if e.set == name).replace("_", " ")
            came = f"before {before:.3f}" if before is not None else "not measured before"
            found.append(Tile(f"{name} · {metric}", f"{after:.3f}", came))
    first, last = _ends(run, "reward")
    if last is not None and first is not None:
        found.append(Tile(f"reward · last {_ENDS} steps", f"{last:.3f}", f"first {_ENDS} {first:.3f}"))
    if run.metrics:
        found.append(Tile("steps", _steps(run), _time(run)))
    return found


def results_table(runs: Sequence[RunData]) -> Table:
    """Results of `eval`: a row a set, a column for each who was measured; percent, with intervals if known."""
    results = [(run, e) for run in runs for e in run.results if e.metric]
    several = len({run.name for run, _ in results}) > 1
    whose = {id(e): f"{run.name}: {e.label}" if several else e.label for run, e in results}
    columns = list(dict.fromkeys(whose.values()))
    cells: dict[tuple[str, str], dict[str, str]] = {}
    for _, e in results:
        cells.setdefault((e.set, e.metric), {})[whose[id(e)]] = _score(e.scores[e.metric])
    rows = [
        [f"{name} ({metric.replace('_', ' ')})", *(row.get(column, "–") for column in columns)]
        for (name, metric), row in cells.items()
    ]
    return Table(["set", *columns], rows)


def recipe_differences(runs: Sequence[RunData]) -> Table:
    """Keys in which the recipes of several runs differ; "–" where a recipe has no such key."""
    recipes = [run for run in runs if run.recipe]
    plain = [{k: v for k, v in run.recipe.items() if k not in _SAME_ANYWAY} for run in recipes]
    return Table(["key", *(run.name for run in recipes)], list(_differing("", plain)) if recipes else [])


def _differing(key: str, values: Sequence[Any]) -> Iterator[list[str]]:
    """Rows of the keys below `key` whose values are not all equal; a block that some have and others lack is one."""
    if all(isinstance(value, Mapping) for value in values):
        for name in dict.fromkeys(name for value in values for name in value):
            inner = [value.get(name, _ABSENT) for value in values]
            yield from _differing(f"{key}.{name}" if key else str(name), inner)
    elif any(value != values[0] for value in values):
        yield [key, *map(_short, values)]


def _short(value: Any) -> str:
    if value is _ABSENT:
        return "–"
    text = "null" if value is None else json.dumps(value, ensure_ascii=False, default=str).replace('"', "")
    return text if len(text) <= _LONGEST_CELL else text[: _LONGEST_CELL - 1] + "…"


def before_and_after(run: RunData, name: str) -> tuple[float | None, float | None]:
    """The score of a held-out set before training and at the last evaluation."""
    measured: list[HeldOut] = [e for e in run.evaluations if e.set == name and e.metric]
    before = next((e for e in measured if e.label == "before"), None)
    after = measured[-1] if measured and measured[-1] is not before else None
    return tuple(None if e is None else e.scores[e.metric].mean for e in (before, after))  # type: ignore[return-value]


def _steps(run: RunData) -> str:
    if not run.metrics:
        return ""
    done = int(run.metrics[-1]["step"])
    wanted = (run.recipe.get("trainer") or {}).get("steps")
    return f"{done:,}" if wanted in (None, done) else f"{done:,} of {wanted:,}"


def _time(run: RunData) -> str:
    seconds = run.summary.get("seconds")
    if not isinstance(seconds, (int, float)) or not 0 <= seconds < 1e300:
        seconds = sum(run.curve("seconds/step")[1])
    if not seconds:
        return ""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return (
        f"{hours} h {minutes:02} min" if hours else f"{minutes} min {rest:02} s" if minutes else f"{rest} s"
    )


def _ends(run: RunData, key: str) -> tuple[float | None, float | None]:
    """Means over the first and the last few steps."""
    values = run.curve(key)[1]
    if not values:
        return None, None
    first, last = values[:_ENDS], values[-_ENDS:]
    return sum(first) / len(first), sum(last) / len(last)


def _change(before: float | None, after: float | None) -> str:
    if before is None or after is None:
        value = after if before is None else before
        return "" if value is None else f"{value:.3f}"
    return f"{before:.3f} → {after:.3f} ({after - before:+.3f})"


def _loss(run: RunData) -> str:
    """Of supervised runs only: the loss of a policy gradient says nothing about progress."""
    return "" if run.curve("reward")[1] else _change(*_ends(run, "loss"))


def _percent(value: float | None) -> str:
    return "" if value is None else f"{100 * value:.1f} %"


def _total(run: RunData, key: str) -> str:
    values = run.curve(key)[1]
    return f"{sum(values):,.0f}" if values else ""


def _of_recipe(run: RunData, block: str, key: str) -> str:
    fields = run.recipe.get(block)
    return str(fields.get(key, "")) if isinstance(fields, Mapping) else ""


def _score(score: Score) -> str:
    interval = (
        "" if score.low is None or score.high is None else f" [{100 * score.low:.1f}, {100 * score.high:.1f}]"
    )
    return f"{100 * score.mean:.1f}{interval}"
