"""Two finished results side by side: paired differences on the same tasks, with intervals."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from memfactory.core.errors import BadInput
from memfactory.evaluation.metrics import label
from memfactory.evaluation.report import SCHEMA_VERSION, markdown
from memfactory.metrics.statistics import PairedDifference, paired_difference


@dataclass(frozen=True)
class Run:
    """The results of one model and agent: by (benchmark, set), each a mapping as the JSON file has it."""

    label: str
    sets: Mapping[tuple[str, str], Mapping[str, Any]]


@dataclass(frozen=True)
class Difference:
    """One metric on one set of two runs; `before` and `after` are the means over the tasks that both have.

    For a judge `metric` is the reward component and who judged (both, if they differ): `judge by gpt-x`.
    """

    benchmark: str
    set: str
    metric: str
    before: float
    after: float
    paired: PairedDifference


def read_run(source: str) -> Run:
    """The run that `FILE`, `FOLDER`, or either with `#AGENT`, `#MODEL` or `#MODEL/AGENT` after it, names.

    A folder is that of a run, with one result in its `eval/`. Raises `BadInput` for what is no result, and for a
    file of several runs of which none, or more than one, is meant.
    """
    name, _, wanted = source.partition("#")
    path = _file(Path(name).expanduser(), name)
    runs: dict[tuple[str, str], dict[tuple[str, str], Mapping[str, Any]]] = defaultdict(dict)
    for entry in _entries(path):
        if wanted in ("", entry["agent"], entry["model"], f"{entry['model']}/{entry['agent']}"):
            runs[entry["model"], entry["agent"]][entry["benchmark"] or "", entry["set"]] = entry
    if len(runs) == 1:
        [((model, agent), sets)] = runs.items()
        return Run(f"{model} {agent}".strip() or path.stem, sets)
    known = [f"{e['model']}/{e['agent']}" for e in _entries(path)]
    listed = ", ".join(dict.fromkeys(known))
    what = "holds several runs" if len(runs) > 1 else f"holds no run '{wanted}'"
    raise BadInput(f"{path}: {what}; name one as {name}#MODEL/AGENT of: {listed}")


def compare_runs(before: Run, after: Run) -> list[Difference]:
    """Every metric that both have, on every set that both have; then judges' scores, on what both could judge.

    Raises `BadInput` when the runs share no set, when a set's tasks have the same ids but other contents, or when
    they share no task.
    """
    shared = [key for key in before.sets if key in after.sets]
    if not shared:
        raise BadInput(
            f"the two results have no set in common: {_names(before)} against {_names(after)}; "
            f"compare results of one benchmark"
        )
    found = []
    for key in shared:
        old, new = before.sets[key]["predictions"], after.sets[key]["predictions"]
        _require_same_tasks(key, old, new)
        metrics = [name for name in before.sets[key]["metrics"] if name in after.sets[key]["metrics"]]
        columns = [(name, _by_task(old, name), _by_task(new, name)) for name in metrics]
        for name, judge in before.sets[key]["judges"].items():
            other = after.sets[key]["judges"].get(name)
            if other is not None:
                by = " / ".join(dict.fromkeys([judge["judge"], other["judge"]]))
                columns.append((f"{name} by {by}", *_judged_in_both(name, old, new)))
        for metric, was, now in columns:
            both = was.keys() & now.keys()
            if both:
                found.append(
                    Difference(
                        benchmark=key[0],
                        set=key[1],
                        metric=metric,
                        before=sum(was[task] for task in both) / len(both),
                        after=sum(now[task] for task in both) / len(both),
                        paired=paired_difference(was, now),
                    )
                )
    if not found:
        raise BadInput("the two results have no metric in common: nothing can be compared")
    return found


def differences_table(differences: Sequence[Difference], before: Run, after: Run) -> str:
    """A Markdown table in percent, with a word on each difference."""
    labels = [before.label, after.label]
    if labels[0] == labels[1]:
        labels = ["A", "B"]
    header = ["set", "metric", "tasks", *labels, "difference", "95 % interval", "verdict"]
    rows = [
        [
            f"{d.benchmark}/{d.set}".removeprefix("/"),
            label(d.metric),
            str(d.paired.tasks),
            f"{100 * d.before:.1f}",
            f"{100 * d.after:.1f}",
            f"{100 * d.paired.difference:+.1f}",
            f"[{100 * d.paired.low:+.1f}, {100 * d.paired.high:+.1f}]",
            verdict(d.paired, labels[1]),
        ]
        for d in differences
    ]
    return markdown(header, rows, left=2)


def verdict(paired: PairedDifference, after: str) -> str:
    """What the interval says of `after`."""
    if not paired.shown:
        return "no difference shown"
    return f"{after} is {'higher' if paired.difference > 0 else 'lower'}"


def _file(path: Path, name: str) -> Path:
    if path.is_dir():
        found = sorted([*path.glob("eval/*.json"), *path.glob("*.json")])
        if len(found) == 1:
            return found[0]
        if not found:
            raise BadInput(f"{name}: there is no result of `memfactory eval` in this folder")
        raise BadInput(f"{name}: holds several results, name one of: {', '.join(map(str, found))}")
    if not path.exists():
        raise BadInput(f"{name}: no such file; --compare takes two results of `memfactory eval`")
    return path


def _entries(path: Path) -> list[dict[str, Any]]:
    """The file's results, those that `train` writes included."""
    foreign = BadInput(f"{path}: not a result of `memfactory eval` (schema version {SCHEMA_VERSION})")
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
        if "sets" in value and "schema_version" not in value:
            nobody = {"model": "", "agent": "", "benchmark": None}
            entries = [{**nobody, **entry, "set": name} for name, entry in value["sets"].items()]
        elif value["schema_version"] == SCHEMA_VERSION:
            entries = list(value["results"])
        else:
            raise foreign
        for entry in entries:
            entry["model"], entry["agent"], entry["benchmark"], entry["set"], entry["metrics"].keys
            hash((entry["model"], entry["agent"], entry["benchmark"], entry["set"]))
            " / ".join(judge["judge"] for judge in entry["judges"].values())
            for prediction in entry["predictions"]:
                hash((prediction["task_id"], prediction["task_digest"], prediction["error"]))
                values = [verdict["value"] for verdict in prediction["verdicts"].values()]
                for number in [*prediction["scores"].values(), *values]:
                    if number is not None and not abs(number) < 1e300:
                        raise foreign
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError, OverflowError):
        raise foreign from None
    return entries


def _names(run: Run) -> str:
    return ", ".join(f"{benchmark}/{name}".removeprefix("/") for benchmark, name in run.sets)


def _require_same_tasks(
    key: tuple[str, str], before: Sequence[Mapping[str, Any]], after: Sequence[Mapping[str, Any]]
) -> None:
    where = f"set '{key[1]}'" + (f" of benchmark '{key[0]}'" if key[0] else "")
    old, new = ({p["task_id"]: p["task_digest"] for p in predictions} for predictions in (before, after))
    both = old.keys() & new.keys()
    if not both:
        raise BadInput(f"{where}: the two results have no task in common; nothing can be compared")
    other = sorted(task for task in both if old[task] != new[task])
    if other:
        raise BadInput(
            f"{where}: task '{other[0]}' and {len(other) - 1} others have the same id in both results but "
            f"another question, text or gold answer; compare results on the same data"
        )


def _judged_in_both(
    name: str, before: Sequence[Mapping[str, Any]], after: Sequence[Mapping[str, Any]]
) -> tuple[dict[str, float], dict[str, float]]:
    """A judge's score of each task of which neither side has an unjudged reply; failed rollouts score 0."""
    sides = [[(p["task_id"], _judged(p, name)) for p in predictions] for predictions in (before, after)]
    unjudged = {task for side in sides for task, value in side if value is None}
    old, new = ([(task, value) for task, value in side if task not in unjudged] for side in sides)
    return _means(old), _means(new)


def _judged(prediction: Mapping[str, Any], name: str) -> float | None:
    """What the judge gave a prediction; None if it could not judge it."""
    if prediction["error"] is not None:
        return 0.0
    verdict = prediction["verdicts"].get(name)
    return None if verdict is None else verdict["value"]


def _by_task(predictions: Sequence[Mapping[str, Any]], metric: str) -> dict[str, float]:
    """Each task's mean over its repeats."""
    return _means((p["task_id"], p["scores"].get(metric)) for p in predictions)


def _means(values: Iterable[tuple[str, float | None]]) -> dict[str, float]:
    """The mean of each task's values; None is a value that is missing."""
    by_task: dict[str, list[float]] = defaultdict(list)
    for task, value in values:
        if value is not None:
            by_task[task].append(float(value))
    return {task: sum(tries) / len(tries) for task, tries in by_task.items()}
