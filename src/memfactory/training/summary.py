"""The end of a run: a table of before and after, a plot of the reward, and a report to keep."""

from __future__ import annotations

import io
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeGuard

from rich.console import Console
from rich.table import Table

from memfactory.core.errors import BadInput
from memfactory.training.run_folder import RunFolder
from memfactory.training.stalls import nothing_learned, warnings

_WINDOW = 5


def summarise(run: RunFolder, *, metric: str, seconds: float, seed: int) -> dict[str, Any]:
    """Build summary.json from what the run measured: `metric` by set, before and after training."""
    before, after = (_evaluation(run, label) for label in ("before", "after"))
    metrics = run.metrics()
    operations = {
        label: {name: result["operations"] for name, result in sets.items() if result.get("operations")}
        for label, sets in (("before", before), ("after", after))
    }
    rewards = {
        label: {name: found for name, result in sets.items() if len(found := _rewards(result)) > 1}
        for label, sets in (("before", before), ("after", after))
    }
    return {
        "metric": metric,
        "before": _scores(before, metric),
        "after": _scores(after, metric),
        **({"operations": operations} if operations["before"] or operations["after"] else {}),
        **({"rewards": rewards} if rewards["before"] or rewards["after"] else {}),
        "seconds": round(seconds, 1),
        "seed": seed,
        "steps": max((record["step"] for record in metrics), default=0),
        **({"unchanged": True} if nothing_learned(metrics) else {}),
        **({"warnings": lines} if (lines := warnings(metrics)) else {}),
    }


def write_summary(run: RunFolder, summary: Mapping[str, Any], console: Console) -> None:
    """Print table and plot; write summary.json, reward.png and report.md."""
    metrics = run.metrics()
    curve = _curve(metrics, "reward")
    name = "reward"
    if not curve:
        curve, name = _curve(metrics, "loss"), "loss"
    if summary["before"] or summary["after"]:
        console.print(_table(summary))
    if len(curve) > 1:
        console.print(_terminal_plot(curve, name), highlight=False, markup=False)
        run.written.replace(run.path / f"{name}.png", _png_plot(curve, name))
    example = _example(run, summary["metric"])
    if example:
        console.print(example, highlight=False, markup=False)
    for line in summary.get("warnings", ()):
        console.print(f"warning: {line}", highlight=False, markup=False, soft_wrap=True)
    report = _report(summary, example, name if len(curve) > 1 else None)
    run.written.replace_text(run.path / "report.md", report)
    run.written.replace_json(run.path / "summary.json", summary)


def _curve(metrics: Sequence[Mapping[str, Any]], key: str) -> list[tuple[int, float]]:
    """Steps and values of a key, of the lines in which both are numbers."""
    points = [(record.get("step"), record.get(key)) for record in metrics]
    return [
        (step, value)
        for step, value in points
        if _is_number(step) and isinstance(step, int) and _is_number(value)
    ]


def _is_number(value: Any) -> TypeGuard[float]:
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < 1e300


def _evaluation(run: RunFolder, label: str) -> dict[str, Any]:
    """The sets of an evaluation of the run; none when it was not made."""
    path = run.evaluation_path / f"{label}.json"
    return _sets(path) if path.exists() else {}


def _sets(path: Path) -> dict[str, Any]:
    """The sets in a file of `evaluation/`. Raises `BadInput` when it is damaged."""
    try:
        sets = json.loads(path.read_bytes())["sets"]
        if not isinstance(sets, dict) or not all(isinstance(found, dict) for found in sets.values()):
            raise ValueError("it holds no sets")
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        why = (str(error).splitlines() or [type(error).__name__])[0][:100]
        raise BadInput(
            f"{path}: not readable ({why}); move it away, and the evaluation is made anew"
        ) from None
    return sets


def _rewards(result: Mapping[str, Any]) -> dict[str, float]:
    """Means of the reward components of a set; those that could not be judged are left out."""
    found = {name: score.get("mean") for name, score in (result.get("rewards") or {}).items()}
    return {name: round(mean, 4) for name, mean in found.items() if mean is not None}


def _scores(sets: Mapping[str, Any], metric: str) -> dict[str, float]:
    return {name: round(result["scores"][metric], 4) for name, result in sets.items()}


def _rows(summary: Mapping[str, Any]) -> list[tuple[str, str, str, str]]:
    """The metric by set, then reward components (if there are several) and the share of each operation on the bank."""
    rows = [
        _row(name, summary["before"].get(name), summary["after"].get(name))
        for name in summary["after"] or summary["before"]
    ]
    parts = summary.get("rewards", {"before": {}, "after": {}})
    for name in parts["after"] or parts["before"]:
        old, new = parts["before"].get(name, {}), parts["after"].get(name, {})
        rows += [_row(f"{name}: reward {part}", old.get(part), new.get(part)) for part in {**old, **new}]
    mixes = summary.get("operations", {"before": {}, "after": {}})
    for name in mixes["after"] or mixes["before"]:
        old, new = mixes["before"].get(name, {}), mixes["after"].get(name, {})
        rows += [_row(f"{name}: share of {kind}", old.get(kind), new.get(kind)) for kind in {**old, **new}]
    return rows


def _row(name: str, before: float | None, after: float | None) -> tuple[str, str, str, str]:
    change = f"{after - before:+.3f}" if before is not None and after is not None else ""
    return name, _number(before), _number(after), change


def _table(summary: Mapping[str, Any]) -> Table:
    table = Table(title=f"{summary['metric']} on held-out tasks", title_justify="left")
    table.add_column("set")
    for column in ("before", "after", "change"):
        table.add_column(column, justify="right")
    for row in _rows(summary):
        table.add_row(*row)
    return table


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.3f}"


def smooth(values: Sequence[float], window: int = _WINDOW) -> list[float]:
    """Trailing mean over at most `window` values."""
    return [
        sum(values[max(0, i - window + 1) : i + 1]) / len(values[max(0, i - window + 1) : i + 1])
        for i in range(len(values))
    ]


def _terminal_plot(curve: Sequence[tuple[int, float]], name: str) -> str:
    import plotext

    steps, values = [step for step, _ in curve], [value for _, value in curve]
    plotext.clear_figure()
    plotext.theme("clear")
    plotext.plot_size(72, 16)
    plotext.plot(steps, smooth(values), marker="braille")
    plotext.title(f"{name} by step (mean of {_WINDOW})")
    plotext.xlabel("step")
    if name == "reward":
        plotext.ylim(0, max(1.0, max(values)))
    return plotext.uncolorize(plotext.build())


def _png_plot(curve: Sequence[tuple[int, float]], name: str) -> bytes:
    from matplotlib.figure import Figure

    steps, values = [step for step, _ in curve], [value for _, value in curve]
    figure = Figure(figsize=(7, 3.5), layout="constrained")
    axes = figure.add_subplot()
    axes.plot(steps, values, color="#9ecae1", linewidth=1, label="each step")
    axes.plot(steps, smooth(values), color="#08519c", linewidth=2, label=f"mean of {_WINDOW} steps")
    axes.set_xlabel("step")
    axes.set_ylabel(name)
    if name == "reward":
        axes.set_ylim(0, max(1.0, max(values)) * 1.02)
    axes.grid(alpha=0.3)
    axes.legend(frameon=False)
    picture = io.BytesIO()
    figure.savefig(picture, format="png", dpi=120)
    return picture.getvalue()


def _example(run: RunFolder, metric: str) -> str:
    """The same held-out task before and after: what the memory held, step by step."""
    paths = [run.path / "evaluation" / f"{label}.json" for label in ("before", "after")]
    if not all(path.exists() for path in paths):
        return ""
    before, after = map(_sets, paths)
    for name in before:
        old = {p["task_id"]: p for p in before[name].get("predictions", [])}
        for new in after[name].get("predictions", []):
            was = old.get(new["task_id"])
            if was and new["scores"].get(metric) == 1 and was["scores"].get(metric) == 0:
                return _example_text(was, new)
    return ""


def _example_text(was: Mapping[str, Any], new: Mapping[str, Any]) -> str:
    lines = [f"Question: {new['question']}", f"Gold answer: {' or '.join(new['golds'])}"]
    if was["memories"] and was["memories"] == new["memories"]:  # what was learned is how to use it
        lines.append(f"Memory, the same before and after: {was['memories'][-1].replace(chr(10), ' | ')}")
        lines += [f"Answer before training: {was['reply']}", f"Answer after training: {new['reply']}"]
        return "\n".join(lines)
    for label, prediction in (("before", was), ("after", new)):
        lines.append(f"Memory {label} training:")
        memories = prediction["memories"]
        if any("\n" in memory for memory in memories):  # a bank: its last state has what there is to see
            lines += [f"  {memory}" for memory in memories[-1].split("\n")]
        else:
            lines += [f"  step {number}: {memory}" for number, memory in enumerate(memories, start=1)]
        lines.append(f"  answer: {prediction['reply']}")
    return "\n".join(lines)


def _report(summary: Mapping[str, Any], example: str, plot: str | None) -> str:
    parts = [
        "# Training report",
        f"{summary['steps']} steps, {summary['seconds']:.0f} s, seed {summary['seed']}.",
    ]
    parts += [f"**Warning:** {line}" for line in summary.get("warnings", ())]
    if rows := _rows(summary):
        table = [f"| {summary['metric']} | before | after | change |", "|---|---|---|---|"]
        table += [f"| {' | '.join(row)} |" for row in rows]
        parts.append("\n".join(table))
    if plot:
        parts.append(f"![{plot} by step]({plot}.png)")
    if example:
        parts.append(f"## One held-out task\n\n```text\n{example}\n```")
    parts.append(
        "Curves, times and a rollout viewer: `memfactory report` and `memfactory view`, with this folder's name."
    )
    return "\n\n".join(parts) + "\n"
