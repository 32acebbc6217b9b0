"""What a run folder holds, read for reports: recipe, metrics by step, held-out scores, results of `eval`.

A report must also open what a killed run left, so half-written lines are skipped; a file that is no result at
all is named in `notes`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeGuard

from memfactory.core.errors import BadInput
from memfactory.recipe.yaml_text import NotYaml, parse, read_bytes
from memfactory.training.run_folder import RunFolder
from memfactory.training.stalls import warnings

#: Scores that every set has; another one is the benchmark's own, and then the one to look at.
_COMMON = ("exact_match", "sub_exact_match", "f1")
_LOWER_IS_BETTER = ("nll",)


@dataclass(frozen=True)
class Score:
    """A mean, with the ends of its 95 % interval where they are known."""

    mean: float
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True)
class HeldOut:
    """Scores of one held-out set at one moment of training (`step`), or of a result of `eval` (`step` None).

    `label` is "before", "step-20", "after", or who was measured; `length` is the set's text length in tokens.
    """

    label: str
    set: str
    scores: Mapping[str, Score]
    step: int | None = None
    length: float | None = None
    predictions: Sequence[Mapping[str, Any]] = ()

    @property
    def metric(self) -> str:
        """The score to look at first: the benchmark's own, else exact match."""
        own = [name for name in self.scores if name not in _COMMON]
        return next(iter(own or [name for name in _COMMON if name in self.scores]), "")


@dataclass(frozen=True)
class RunData:
    """One run as a report sees it. `recipe` is empty for a folder that only holds results of `eval`."""

    name: str
    path: Path
    recipe: Mapping[str, Any]
    metrics: Sequence[Mapping[str, Any]]
    evaluations: Sequence[HeldOut]
    results: Sequence[HeldOut]
    summary: Mapping[str, Any]
    notes: list[str] = field(default_factory=list)

    def curve(self, key: str) -> tuple[list[float], list[float]]:
        """Steps and values of one key of metrics.jsonl, where it is a number."""
        points = [(record["step"], record[key]) for record in self.metrics if _is_number(record.get(key))]
        return [float(step) for step, _ in points], [float(value) for _, value in points]

    def metric_keys(self) -> list[str]:
        """All keys of metrics.jsonl, in the order in which they first appear."""
        return list(dict.fromkeys(key for record in self.metrics for key in record))


def read_runs(paths: Sequence[Path]) -> list[RunData]:
    """Read the runs of a report, each under a name of its own. Raises `BadInput` for what is no run folder."""
    resolved = [path.resolve() for path in paths]
    for path, same in zip(paths, resolved, strict=True):
        if resolved.count(same) > 1:
            raise BadInput(f"{path}: this run is named twice")
    names = [path.name for path in resolved]
    return [
        read_run(path, name if names.count(name) == 1 else str(path))
        for path, name in zip(paths, names, strict=True)
    ]


def read_run(path: Path, name: str | None = None) -> RunData:
    """Read one run folder. Raises `BadInput` when it is none, or its recipe is not readable."""
    if not path.is_dir():
        raise BadInput(f"{path}: no such folder; name a run folder (what a recipe's output_dir says)")
    run = RunFolder(path)
    results = sorted((path / "eval").glob("*.json"))
    if not (run.metrics_path.exists() or results or list((path / "evaluation").glob("*.json"))):
        raise BadInput(f"{path}: not a run folder (it holds neither metrics.jsonl nor results of eval)")
    notes: list[str] = []
    recipe = _recipe(run.recipe_path)
    evaluations = [
        held_out
        for file in sorted((path / "evaluation").glob("*.json"))
        for held_out in _evaluation(file, recipe, notes)
    ]
    metrics = _metrics(run)
    data = RunData(
        name=name or path.resolve().name,
        path=path,
        recipe=recipe,
        metrics=metrics,
        evaluations=sorted(evaluations, key=lambda held_out: held_out.step or 0),
        results=[result for file in results for result in _results(file, notes)],
        summary=_json(path / "summary.json", notes) if (path / "summary.json").exists() else {},
        notes=notes,
    )
    notes += [f"{data.name}: {line}" for line in warnings(metrics)]
    return data


def step_files(path: Path) -> list[tuple[int, Path]]:
    """The files of rollouts of a run as (step, path), by step."""
    found = []
    for file in (path / "rollouts").glob("step-*.jsonl"):
        match = re.fullmatch(r"step-(\d+)", file.stem)
        if match and file.is_file():
            found.append((int(match[1]), file))
    return sorted(found)


def lower_is_better(metric: str) -> bool:
    """Whether a score falls when things go well."""
    return metric in _LOWER_IS_BETTER


def _metrics(run: RunFolder) -> list[Mapping[str, Any]]:
    return [record for record in run.metrics() if _is_number(record.get("step"))]


def _recipe(path: Path) -> Mapping[str, Any]:
    if not path.exists():
        return {}
    try:
        recipe = parse(read_bytes(path))
    except NotYaml as error:
        raise BadInput(
            f"{path}: not readable as YAML ({error}); put it back from a copy, or move it away"
        ) from None
    return recipe if isinstance(recipe, Mapping) else {}


def _json(path: Path, notes: list[str]) -> Mapping[str, Any]:
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        value = None
    if isinstance(value, Mapping):
        return value
    notes.append(f"{path} is not readable as JSON and was left out.")
    return {}


def _evaluation(path: Path, recipe: Mapping[str, Any], notes: list[str]) -> Iterator[HeldOut]:
    """The sets of one evaluation/<label>.json of a training run."""
    value = _json(path, notes)
    for name, entry in _items(value.get("sets")):
        step = value.get("step")
        yield _held_out(path.stem, str(name), entry, recipe, int(step) if _is_number(step) else 0)


def _results(path: Path, notes: list[str]) -> Iterator[HeldOut]:
    """The results of one file of `eval`, of either schema version."""
    value = _json(path, notes)
    recipes, results = value.get("recipes"), value.get("results")
    for entry in results if isinstance(results, list) else ():
        if isinstance(entry, Mapping):
            recipe = recipes.get(str(entry.get("recipe"))) if isinstance(recipes, Mapping) else None
            who = " · ".join(str(entry[key]) for key in ("agent", "model") if entry.get(key))
            parts = [str(entry[key]) for key in ("benchmark", "set") if entry.get(key)]
            yield _held_out(
                who or path.stem,
                " / ".join(parts),
                entry,
                recipe if isinstance(recipe, Mapping) else {},
                None,
            )
    recipe = value.get("recipe")
    recipe = recipe if isinstance(recipe, Mapping) else {}
    for name, entry in _items(value.get("sets")):
        yield _held_out(_who(recipe) or path.stem, str(name), entry, recipe, None)


def _held_out(
    label: str, name: str, entry: Mapping[str, Any], recipe: Mapping[str, Any], step: int | None
) -> HeldOut:
    scores = {}
    for metric, value in _items(entry.get("metrics")):
        if _is_number(value.get("mean")):
            scores[str(metric)] = Score(value["mean"], _known(value.get("low")), _known(value.get("high")))
    means = entry.get("scores")
    for metric, value in means.items() if isinstance(means, Mapping) else ():
        if _is_number(value):
            scores.setdefault(str(metric), Score(float(value)))
    length = entry.get("length")
    predictions = entry.get("predictions")
    return HeldOut(
        label=label,
        set=name,
        scores=scores,
        step=step,
        length=float(length) if _is_number(length) else _length_of(recipe, name),
        predictions=[p for p in predictions if isinstance(p, Mapping)]
        if isinstance(predictions, list)
        else [],
    )


def _known(value: Any) -> float | None:
    return value if _is_number(value) else None


def _length_of(recipe: Mapping[str, Any], name: str) -> float | None:
    """Text length in tokens, as the recipe's data of that set says it."""
    spec = _block(_block(recipe, "data"), "eval").get(name)
    if not isinstance(spec, Mapping):
        return None
    if _is_number(spec.get("length")):
        return float(spec["length"])
    sections, tokens = spec.get("sections"), spec.get("section_tokens")
    return float(sections * tokens) if _is_number(sections) and _is_number(tokens) else None


def _block(recipe: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    block = recipe.get(key)
    return block if isinstance(block, Mapping) else {}


def _who(recipe: Mapping[str, Any]) -> str:
    parts = (_block(recipe, "agent").get("type"), _block(recipe, "model").get("path"))
    return " · ".join(str(part) for part in parts if part)


def _items(value: Any) -> Iterator[tuple[Any, Mapping[str, Any]]]:
    if isinstance(value, Mapping):
        yield from ((name, entry) for name, entry in value.items() if isinstance(entry, Mapping))


def _is_number(value: Any) -> TypeGuard[float]:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and abs(value) < 1e300
