"""Which charts a report shows: what is on them, as plain numbers. How they are drawn is not their business."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

from memfactory.reports.run_data import HeldOut, RunData, lower_is_better
from memfactory.training.summary import smooth

_MOST_POINTS = 400
#: Agents whose lines are dashed.
BASELINES = ("no_memory", "full_context", "rag_bm25", "rag_embedding", "oracle")


@dataclass(frozen=True)
class Series:
    """One line: values of `y` at `x`, with the unsmoothed values and interval ends where there are any."""

    label: str
    colour: int
    x: Sequence[float]
    y: Sequence[float]
    raw: Sequence[float] = ()
    low: Sequence[float] = ()
    high: Sequence[float] = ()
    dashed: bool = False


@dataclass(frozen=True)
class Chart:
    """One chart. `lines` joins points; `stack` fills areas on top of each other; `bars` stacks one bar an x."""

    slug: str
    title: str
    series: Sequence[Series]
    x_label: str = "step"
    y_label: str = ""
    kind: Literal["lines", "stack", "bars"] = "lines"
    note: str = ""
    shares: bool = False
    """Values lie between 0 and 1, and the axis shows all of it."""
    log_x: bool = False
    markers: bool = False
    names: Sequence[str] = ()
    """What the x values of `bars` are called."""


def charts(runs: Sequence[RunData]) -> list[Chart]:
    """All charts for which the runs have data."""
    made = [
        *_rewards(runs),
        *_held_out(runs),
        *_lengths_of_context(runs),
        *_by_key([run for run in runs if not _is_rl(run)], "loss", "Loss", lambda key: key == "loss"),
        *_by_key(runs, "length", "Completion length", _is_length, "tokens, mean", _module),
        *_by_key(
            runs,
            "truncated",
            "Calls cut at their limit",
            lambda key: key == "calls/truncated",
            "share of calls",
        ),
        *_operations(runs),
        *_time(runs),
        *_by_key(runs, "flat", "Groups without difference", lambda key: key == "groups/flat", "share"),
        *_by_key(runs, "entropy", "Entropy of the policy", lambda key: key == "entropy", "nats a token"),
        *_by_key(runs, "grad_norm", "Gradient norm", lambda key: key == "grad_norm", "before clipping"),
    ]
    drawn = [replace(chart, series=[s for s in chart.series if len(s.x)]) for chart in made]
    return [chart for chart in drawn if chart.series]


def reward_components(runs: Sequence[RunData]) -> list[str]:
    """Names of the reward components that any of the runs logged."""
    keys = dict.fromkeys(key for run in runs for key in run.metric_keys())
    return [match[1] for key in keys if (match := re.fullmatch(r"reward/([^/]+)", key)) and match[1] != "std"]


def _rewards(runs: Sequence[RunData]) -> Iterator[Chart]:
    """The total, and each component: in one chart for one run, in one chart each for several."""
    components = reward_components(runs)
    keys = {"total": "reward", **{name: f"reward/{name}" for name in components}}
    if len(components) == 1 and all(
        run.curve(f"reward/{components[0]}") == run.curve("reward") for run in runs
    ):
        keys = {components[0]: "reward"}
    note = "Mean over the rollouts of a step; the bold line is the mean of the last 5 steps."
    if len(runs) == 1:
        series = [_curve(runs[0], key, name, i) for i, (name, key) in enumerate(keys.items())]
        yield Chart("reward", "Reward by component", series, y_label="reward", note=note)
        return
    for name, key in keys.items():
        series = [_curve(run, key, run.name, i) for i, run in enumerate(runs)]
        yield Chart(f"reward-{slug(name)}", f"Reward: {name}", series, y_label="reward", note=note)
        note = ""  # said once


def _held_out(runs: Sequence[RunData]) -> Iterator[Chart]:
    """Scores over steps: a line a set for one run, a chart a set for several."""
    sets = list(dict.fromkeys(e.set for run in runs for e in run.evaluations))
    if not any(len({e.step for e in run.evaluations}) > 1 for run in runs):
        return
    lines = {
        (run.name, name): [e for e in run.evaluations if e.set == name and e.metric]
        for run in runs
        for name in sets
    }
    if len(runs) == 1:
        series = [_over_steps(lines[runs[0].name, name], name, i) for i, name in enumerate(sets)]
        yield _score_chart("held-out", "Held-out score", series, runs[0].evaluations)
        return
    for name in sets:
        series = [_over_steps(lines[run.name, name], run.name, i) for i, run in enumerate(runs)]
        measured = [e for run in runs for e in lines[run.name, name]]
        yield _score_chart(f"held-out-{slug(name)}", f"Held-out score: {name}", series, measured)


def _score_chart(
    name: str, title: str, series: Sequence[Series], measured: Sequence[HeldOut], **options: Any
) -> Chart:
    """A chart of scores, labelled by their metrics; the axis is 0 to 1 unless lower is better."""
    metrics = sorted({e.metric for e in measured if e.metric})
    return Chart(
        name,
        title,
        series,
        y_label=" / ".join(metrics).replace("_", " "),
        shares=not any(lower_is_better(metric) for metric in metrics),
        markers=True,
        **options,
    )


def _over_steps(evaluations: Sequence[HeldOut], label: str, colour: int) -> Series:
    scores = [e.scores[e.metric] for e in evaluations]
    return Series(label, colour, [float(e.step or 0) for e in evaluations], [score.mean for score in scores])


def _lengths_of_context(runs: Sequence[RunData]) -> Iterator[Chart]:
    """Score against text length, one chart a family of sets: before and after training, and all results of `eval`."""
    families: dict[str, dict[str, list[HeldOut]]] = {}
    for run in runs:
        several = f"{run.name} " if len(runs) > 1 else ""
        ends = [e for e in run.evaluations if e.label in ("before", "after")]
        labelled = [(f"{several}{e.label} training", e) for e in ends]
        labelled += [(f"{several}{e.label}", e) for e in run.results]
        for label, e in labelled:
            if e.length and e.metric and not lower_is_better(e.metric):
                families.setdefault(_family(e.set), {}).setdefault(label, []).append(e)
    for family, lines in families.items():
        if len({e.length for line in lines.values() for e in line}) < 2:
            continue
        series = [_against_length(line, label, i) for i, (label, line) in enumerate(lines.items())]
        yield _score_chart(
            f"length-{slug(family)}" if family else "context",
            "Score against context length" + (f": {family}" if family else ""),
            series,
            [e for line in lines.values() for e in line],
            x_label="tokens of text",
            log_x=True,
            note=_note(series),
        )


def _note(series: Sequence[Series]) -> str:
    parts = ["Dashed: baselines."] if any(line.dashed for line in series) else []
    parts += ["Bars: 95 % interval over tasks."] if any(line.low for line in series) else []
    return " ".join(parts)


def _against_length(line: Sequence[HeldOut], label: str, colour: int) -> Series:
    points = {e.length: e.scores[e.metric] for e in line if e.length}
    lengths = sorted(points)
    scores = [points[length] for length in lengths]
    known = all(score.low is not None and score.high is not None for score in scores)
    return Series(
        label,
        colour,
        lengths,
        [score.mean for score in scores],
        low=[score.low or 0.0 for score in scores] if known else (),
        high=[score.high or 0.0 for score in scores] if known else (),
        dashed=any(baseline in label for baseline in BASELINES),
    )


def _family(name: str) -> str:
    """What sets of one kind and several lengths share: "facts" of "facts / 4x", "niah" of "niah_4096"."""
    return re.sub(r"[_\- /]*\d+[kKxX]?$", "", name)


def _is_length(key: str) -> bool:
    return re.fullmatch(r"length/[^/]+", key) is not None


def _is_rl(run: RunData) -> bool:
    return any("reward" in record for record in run.metrics)


def _module(key: str) -> str:
    return key.partition("/")[2]


def _by_key(
    runs: Sequence[RunData],
    name: str,
    title: str,
    wanted: Callable[[str], bool],
    y_label: str = "",
    label: Callable[[str], str] = str,
) -> Iterator[Chart]:
    """One chart of all wanted keys of metrics.jsonl, a line for each run and key."""
    series: list[Series] = []
    for run in runs:
        for key in filter(wanted, run.metric_keys()):
            parts = [run.name] if len(runs) > 1 else []
            parts += [label(key)] if label is not str else []
            series.append(_curve(run, key, " · ".join(parts) or title.lower(), len(series)))
    yield Chart(name, title, series, y_label=y_label)


def _operations(runs: Sequence[RunData]) -> Iterator[Chart]:
    """Kinds of operations on the memory bank; a chart a run, as they are stacked."""
    for run in runs:
        keys = [key for key in run.metric_keys() if key.startswith("operations/")]
        title = "Operations on the memory" + (f": {run.name}" if len(runs) > 1 else "")
        series = [_curve(run, key, _module(key), i) for i, key in enumerate(keys)]
        yield Chart(
            f"operations-{slug(run.name)}", title, series, y_label="share of operations", kind="stack"
        )


def _time(runs: Sequence[RunData]) -> Iterator[Chart]:
    """Seconds by phase: over the steps of one run, in all for several."""
    phases = list(
        dict.fromkeys(
            key for run in runs for key in run.metric_keys() if re.fullmatch(r"seconds/(?!step$)[^/]+", key)
        )
    )
    if len(runs) == 1:
        series = [_curve(runs[0], key, _module(key), i) for i, key in enumerate(phases)]
        yield Chart("time", "Time by phase", series, y_label="seconds a step", kind="stack")
        return
    places = [float(i) for i in range(len(runs))]
    series = [
        Series(_module(key), i, places, [sum(run.curve(key)[1]) for run in runs])
        for i, key in enumerate(phases)
    ]
    names = [run.name for run in runs]
    yield Chart("time", "Time by phase", series, "", "seconds in all steps", kind="bars", names=names)


def _curve(run: RunData, key: str, label: str, colour: int) -> Series:
    steps, values = run.curve(key)
    bold = smooth(values)
    return Series(label, colour, _spaced(steps), _spaced(bold), raw=_spaced(values))


def _spaced(values: Sequence[float]) -> list[float]:
    """At most `_MOST_POINTS` of the values, evenly spaced, the first and the last among them."""
    if len(values) <= _MOST_POINTS:
        return list(values)
    last = len(values) - 1
    return [values[round(i * last / (_MOST_POINTS - 1))] for i in range(_MOST_POINTS)]


def slug(name: str) -> str:
    """A name as part of a file name."""
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-") or "x"
