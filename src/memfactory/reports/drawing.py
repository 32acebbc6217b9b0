"""Charts as pictures: matplotlib draws each once, as PNG for papers and as SVG that the page shows inline.

The SVG names its parts (`<slug>-s0` for the first series), so that the page can colour text and grid for a dark
background, hide a series, and find the values under the pointer.
"""

from __future__ import annotations

import io
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from memfactory.reports.charts import Chart, Series

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

#: Legible on white and on near-black, and told apart by colour-blind readers.
COLOURS = ("#3b7dd8", "#e07b39", "#2a9d6f", "#c2528b", "#8a6fd1", "#b8962e", "#3f9fb5", "#d9534f")
_PNG_SIZE, _SVG_SIZE = (5.6, 3.3), (4.4, 2.55)
_POINTS_PER_INCH = 72


@dataclass(frozen=True)
class Picture:
    """An SVG element, and where its axes lie in it: `frame` is left, top, right, bottom in SVG units."""

    svg: str
    frame: tuple[float, float, float, float]
    limits: tuple[float, float, float, float]
    """The axes' lowest x, highest x, lowest y, highest y."""


def colour(number: int) -> str:
    """The colour of a series number; they repeat."""
    return COLOURS[number % len(COLOURS)]


def png(chart: Chart) -> bytes:
    """The chart with title and legend, for documents."""
    import matplotlib

    with matplotlib.rc_context(_style(chart)):
        figure, axes = _figure(chart, _PNG_SIZE)
        axes.set_title(chart.title, loc="left", fontsize=10, fontweight="bold")
        if len(chart.series) > 1:
            axes.legend(frameon=False, fontsize=7, handlelength=1.4)
        picture = io.BytesIO()
        figure.savefig(picture, format="png", dpi=160)
    return picture.getvalue()


def svg(chart: Chart) -> Picture:
    """The chart without title and legend, which the page has in its own type."""
    import matplotlib

    with matplotlib.rc_context(_style(chart)):
        figure, axes = _figure(chart, _SVG_SIZE)
        text = io.StringIO()
        nothing = dict.fromkeys(("Creator", "Date", "Format", "Type"))
        figure.savefig(text, format="svg", dpi=_POINTS_PER_INCH, transparent=True, metadata=nothing)
        box = axes.get_window_extent()
        height = figure.get_figheight() * _POINTS_PER_INCH
        scale = _POINTS_PER_INCH / figure.dpi
        frame = (box.x0 * scale, height - box.y1 * scale, box.x1 * scale, height - box.y0 * scale)
        limits = (*axes.get_xlim(), *axes.get_ylim())
    return Picture(_inline(text.getvalue()), tuple(map(float, frame)), tuple(map(float, limits)))  # type: ignore[arg-type]


def _style(chart: Chart) -> Any:
    return {
        "svg.fonttype": "none",
        "svg.hashsalt": chart.slug,
        "font.size": 9,
        "figure.dpi": _POINTS_PER_INCH,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.spines.left": False,
        "axes.edgecolor": "#8a8f98",
        "xtick.major.size": 0,
        "xtick.minor.size": 0,
        "ytick.major.size": 0,
        "text.parse_math": False,  # names of runs and modules are not formulas
    }


def _figure(chart: Chart, size: tuple[float, float]) -> tuple[Figure, Axes]:
    from matplotlib.figure import Figure

    figure = Figure(figsize=size, layout="constrained")
    axes = figure.add_subplot()
    axes.set_axisbelow(True)
    axes.grid(axis="y", color="#d9dce1", linewidth=0.6)
    for number, line in enumerate(axes.get_ygridlines()):
        line.set_gid(f"{chart.slug}-grid{number}")
    {"lines": _lines, "stack": _stack, "bars": _bars}[chart.kind](chart, axes)
    axes.set_xlabel(chart.x_label)
    axes.set_ylabel(chart.y_label)
    if chart.shares:
        axes.set_ylim(-0.02, 1.02)
    elif chart.kind == "lines" and axes.get_ylim()[0] < 0 <= min(min(s.y) for s in chart.series):
        axes.set_ylim(bottom=0)
    return figure, axes


def _lines(chart: Chart, axes: Axes) -> None:
    for number, series in enumerate(chart.series):
        gid, shade = f"{chart.slug}-s{number}", colour(series.colour)
        if len(series.raw) > 1:
            axes.plot(series.x, series.raw, color=shade, alpha=0.28, linewidth=0.8, gid=f"{gid}-raw")
        style: dict[str, Any] = {"color": shade, "linewidth": 1.7, "gid": gid, "label": series.label}
        if series.dashed:
            style["linestyle"] = (0, (3.5, 2))
        if chart.markers or len(series.x) == 1:
            style |= {"marker": "o", "markersize": 3.5}
        axes.plot(series.x, series.y, **style)
        if len(series.low):
            axes.vlines(
                series.x, series.low, series.high, color=shade, linewidth=1, alpha=0.6, gid=f"{gid}-raw"
            )
    if chart.log_x:
        _log_axis(chart, axes)
    else:
        axes.locator_params(axis="x", integer=True)


def _log_axis(chart: Chart, axes: Axes) -> None:
    """Powers of two apart: a tick at each length that was measured, as far as there is room."""
    axes.set_xscale("log", base=2)
    lengths = sorted({x for series in chart.series for x in series.x})
    kept: list[float] = []
    for length in lengths:
        if not kept or length >= 1.3 * kept[-1]:
            kept.append(length)
    axes.set_xticks(kept, [f"{length:,.0f}" for length in kept])
    axes.set_xticks([], minor=True)


def _stack(chart: Chart, axes: Axes) -> None:
    steps = sorted({x for series in chart.series for x in series.x})
    floor = [0.0] * len(steps)
    for number, series in enumerate(chart.series):
        values = dict(zip(series.x, series.y, strict=True))
        top = [low + values.get(step, 0.0) for low, step in zip(floor, steps, strict=True)]
        gid = f"{chart.slug}-s{number}"
        axes.fill_between(
            steps,
            floor,
            top,
            color=colour(series.colour),
            alpha=0.75,
            linewidth=0,
            gid=gid,
            label=series.label,
        )
        floor = top
    axes.set_ylim(bottom=0)
    axes.locator_params(axis="x", integer=True)


def _bars(chart: Chart, axes: Axes) -> None:
    floor = [0.0] * len(chart.names)
    for number, series in enumerate(chart.series):
        bars = axes.bar(
            series.x, series.y, 0.55, floor, color=colour(series.colour), alpha=0.85, label=series.label
        )
        for bar in bars:
            bar.set_gid(f"{chart.slug}-s{number}")
        floor = [low + value for low, value in zip(floor, series.y, strict=True)]
    axes.set_xticks(range(len(chart.names)), [_short(name) for name in chart.names])


def _short(name: str) -> str:
    return name if len(name) <= 18 else f"{name[:8]}…{name[-8:]}"


def _inline(text: str) -> str:
    """The `<svg>` element alone, scaled by the page, without matplotlib's style for the whole document."""
    element = text[text.index("<svg") :]
    element = re.sub(r"<defs>\s*<style.*?</style>\s*</defs>", "", element, count=1, flags=re.DOTALL)
    element = re.sub(r"<metadata>.*?</metadata>", "", element, count=1, flags=re.DOTALL)
    return re.sub(r'\s(?:width|height)="[\d.]+pt"', "", element, count=2)


def hover_values(chart: Chart, picture: Picture) -> dict[str, Any]:
    """What the page needs to show the values under the pointer."""
    return {
        "frame": picture.frame,
        "limits": picture.limits,
        "log_x": chart.log_x,
        "x_label": chart.x_label,
        "names": list(chart.names),
        "series": [_hover(series) for series in chart.series],
    }


def _hover(series: Series) -> dict[str, Any]:
    values = series.raw or series.y
    return {
        "label": series.label,
        "colour": colour(series.colour),
        "x": list(series.x),
        "y": [float(f"{value:.5g}") for value in values],
        "smooth": [float(f"{value:.5g}") for value in series.y] if series.raw else None,
    }
