"""The report as one HTML file: charts as inline SVG, tables, and a rollout viewer over embedded data.

The file needs no network and asks for none: its content security policy forbids everything but its own script. Texts
of models are untrusted. They are embedded as compressed base64, which no text can break out of, and the script
only ever writes them as text.
"""

from __future__ import annotations

import base64
import gzip
import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

import yaml

from memfactory import __version__
from memfactory.core.files import new_folder, write_bytes
from memfactory.core.manifest import require_ours, seal
from memfactory.core.signed import write_signed
from memfactory.reports import drawing, tables
from memfactory.reports.charts import Chart, charts
from memfactory.reports.rollouts import (
    ViewedRollout,
    count_training_rollouts,
    held_out_rollouts,
    thin,
    training_rollouts,
)
from memfactory.reports.run_data import RunData

PICTURES = "report's pictures"
#: Rollouts in the page unless told otherwise, and how large they may be, compressed and as text.
MOST_ROLLOUTS = 3000
_MOST_BYTES = 3_000_000
_MOST_TEXT = 60_000_000
_LONGEST_TEXTS = (12_000, 4_000, 1_500)


@dataclass(frozen=True)
class Report:
    """What was written: the page, its pictures, and how many rollouts of how many are in it."""

    page: Path
    pictures: Sequence[Path]
    shown: int
    found: int


@dataclass(frozen=True)
class Embedded:
    """The rollouts of a page, compressed."""

    payload: str
    shown: int
    found: int
    notes: Sequence[str]


def write_report(runs: Sequence[RunData], output: Path, most_rollouts: int = MOST_ROLLOUTS) -> Report:
    """Write the page to `output` and each chart as PNG into `<output without suffix>_png/`.

    What is at `output` is replaced; earlier pictures only if nothing was added to them or changed, else `BadInput`.
    """
    drawn = charts(runs)
    folder = output.with_name(f"{output.stem}_png")
    pictures = [folder / f"{chart.slug}.png" for chart in drawn]
    if pictures:
        with new_folder(folder, replaces=_only_pictures, option="--output") as partial:
            for chart in drawn:
                write_bytes(partial / f"{chart.slug}.png", drawing.png(chart))
            seal(partial, PICTURES)
    html, embedded = render(runs, drawn, most_rollouts)
    write_signed(output, html)
    return Report(output, pictures, embedded.shown, embedded.found)


def _only_pictures(folder: Path) -> None:
    require_ours(folder, PICTURES, "move it away or choose another --output")


def render(
    runs: Sequence[RunData], drawn: Sequence[Chart], most_rollouts: int = MOST_ROLLOUTS
) -> tuple[str, Embedded]:
    """The page's HTML, and what was embedded in it."""
    from jinja2 import Environment, PackageLoader, StrictUndefined
    from markupsafe import Markup

    pictures = [drawing.svg(chart) for chart in drawn]
    data = {
        "runs": [{"name": run.name, "colour": drawing.colour(i)} for i, run in enumerate(runs)],
        "charts": {
            chart.slug: drawing.hover_values(chart, picture)
            for chart, picture in zip(drawn, pictures, strict=True)
        },
    }
    embedded = embed(runs, data, most_rollouts)
    script = "\n".join(_asset(name) for name in ("diff.js", "charts.js", "viewer.js"))
    environment = Environment(
        loader=PackageLoader("memfactory.reports", "page_assets"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    html = environment.get_template("report.html.j2").render(
        title=", ".join(run.name for run in runs),
        version=__version__,
        runs=data["runs"],
        tiles=tables.tiles(runs[0]) if len(runs) == 1 else [],
        figures=tables.main_figures(runs, headlines=len(runs) > 1),
        results=tables.results_table(runs),
        differences=tables.recipe_differences(runs) if len(runs) > 1 else None,
        recipes=[
            (run.name, yaml.safe_dump(dict(run.recipe), sort_keys=False, allow_unicode=True))
            for run in runs
            if run.recipe
        ],
        charts=[
            (chart, Markup(picture.svg), [drawing.colour(series.colour) for series in chart.series])
            for chart, picture in zip(drawn, pictures, strict=True)
        ],
        notes=[*embedded.notes, *(note for run in runs for note in run.notes)],
        embedded=embedded,
        style=Markup(_asset("report.css")),
        script=Markup(script),
        script_hash=base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
    )
    return html, embedded


def embed(runs: Sequence[RunData], data: dict[str, Any], most: int) -> Embedded:
    """Compress the data of the page with as many rollouts as `most` and the size of the page allow."""
    training = {run.name: list(training_rollouts(run, most)) for run in runs}
    unread = sum(count_training_rollouts(run) - len(training[run.name]) for run in runs)
    held_out = {
        (run.name, i): list(held_out_rollouts(run, e))
        for run in runs
        for i, e in enumerate([*run.evaluations, *run.results])
    }
    sources = [source for source in [*training.values(), *held_out.values()] if source]
    found = sum(map(len, sources)) + max(unread, 0)
    notes: list[str] = []
    for longest in _LONGEST_TEXTS:
        packed = _pack(data, _choose(sources, most), longest)
        if packed is not None:
            break
    wanted = most
    while packed is None:
        wanted //= 2
        packed = _pack(data, _choose(sources, wanted), _LONGEST_TEXTS[-1])
    payload, shown = packed
    if shown < found:
        notes.append(
            f"{shown:,} of {found:,} recorded rollouts are in this page, in whole groups, evenly spaced over "
            "steps and tasks; all of them are in the run's folders rollouts, evaluation and eval."
        )
    if longest != _LONGEST_TEXTS[0]:
        notes.append(
            f"Texts longer than {longest:,} characters are cut in the middle to keep this page small."
        )
    return Embedded(payload, shown, found, notes)


def _choose(sources: Sequence[Sequence[ViewedRollout]], most: int) -> list[ViewedRollout]:
    """Shares of `most` for all sources: small ones whole, the rest equal parts of what is left."""
    chosen: dict[int, list[ViewedRollout]] = {}
    left = most
    by_size = sorted(range(len(sources)), key=lambda i: len(sources[i]))
    for done, i in enumerate(by_size):
        chosen[i] = thin(sources[i], left // (len(sources) - done)) if left else []
        left -= len(chosen[i])
    return [rollout for i in range(len(sources)) for rollout in chosen[i]]


def _pack(data: dict[str, Any], rollouts: Sequence[ViewedRollout], longest: int) -> tuple[str, int] | None:
    """Base64 of the compressed data and how many rollouts it holds; None when it is too large for a page."""
    parts, size = [], 0
    for rollout in rollouts:
        parts.append(json.dumps(rollout.as_json(longest), separators=(",", ":"), allow_nan=False))
        size += len(parts[-1])
        if size > _MOST_TEXT:
            return None
    head = json.dumps(data, separators=(",", ":"), allow_nan=False)
    text = f'{head[:-1]},"rollouts":[{",".join(parts)}]}}'
    packed = gzip.compress(text.encode(), 6, mtime=0)
    if len(packed) > _MOST_BYTES and rollouts:
        return None
    return base64.b64encode(packed).decode(), len(rollouts)


def _asset(name: str) -> str:
    return (files("memfactory.reports") / "page_assets" / name).read_text(encoding="utf-8")
