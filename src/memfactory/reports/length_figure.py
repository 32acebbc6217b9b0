"""Score against context length for readers in a hurry: one picture and one table of a result of `eval`."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from memfactory.core.errors import BadInput
from memfactory.reports.charts import BASELINES
from memfactory.reports.drawing import COLOURS
from memfactory.reports.run_data import HeldOut, Score

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_SIZE = (7.2, 3.9)
_MARKS = "osD^vP"


@dataclass(frozen=True)
class Line:
    """The scores of one agent with one policy: `scores[i]` on texts of `lengths[i]` tokens, shortest first."""

    agent: str
    policy: str
    lengths: tuple[int, ...]
    scores: tuple[Score, ...]
    metric: str

    @property
    def baseline(self) -> bool:
        """Whether the agent is one of the baselines."""
        return self.agent in BASELINES


def lines_of(results: Sequence[HeldOut]) -> list[Line]:
    """One line for each agent and policy, in the order of the results.

    Raises `BadInput` for a result without length, score or interval, for lines over different lengths, and for a
    length that is no multiple of the shortest one, which counts as the trained length.
    """
    found: dict[str, list[HeldOut]] = {}
    for result in results:
        if result.length is None or not result.metric or result.scores[result.metric].low is None:
            raise BadInput(f"{result.label}, {result.set}: has no length, score or interval to draw")
        found.setdefault(result.label, []).append(result)
    if not found:
        raise BadInput("there is no result of `memfactory eval` to draw")
    lines = []
    for label, own in found.items():
        agent, _, policy = label.partition(" · ")
        own.sort(key=lambda result: result.length or 0.0)
        lengths = tuple(int(result.length or 0) for result in own)
        scores = tuple(result.scores[result.metric] for result in own)
        lines.append(Line(agent, policy, lengths, scores, own[0].metric))
    first = lines[0].lengths
    for line in lines:
        if line.lengths != first or len(set(first)) != len(first) or any(n % first[0] for n in first):
            raise BadInput(
                f"{line.agent} · {line.policy}: lengths {', '.join(map(str, line.lengths))} are not those of the "
                f"first line, each once and a multiple of the shortest: {', '.join(map(str, first))}"
            )
    return lines


def table(lines: Sequence[Line], names: Sequence[str]) -> str:
    """A Markdown table in percent with 95 % intervals, a row for each line; `names` says what its policy is."""
    first = lines[0].lengths
    rows = [
        "| agent | policy | " + " | ".join(f"{length // first[0]}x" for length in first) + " |",
        "|---|---|" + "---|" * len(first),
    ]
    for line, name in zip(lines, names, strict=True):
        cells = (
            f"{100 * s.mean:.1f} [{100 * (s.low or 0):.0f}, {100 * (s.high or 0):.0f}]" for s in line.scores
        )
        rows.append(f"| `{line.agent}` | {name} | " + " | ".join(cells) + " |")
    return "\n".join(rows)


def picture(lines: Sequence[Line], names: Sequence[str]) -> bytes:
    """The lines as PNG with their 95 % intervals as bands; those of baselines are dashed. `names` is their legend."""
    import matplotlib
    from matplotlib.figure import Figure

    style: Any = {
        "font.size": 9.5,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "text.parse_math": False,
    }
    with matplotlib.rc_context(style):
        figure = Figure(figsize=_SIZE, layout="constrained")
        axes = figure.add_subplot()
        for number, (line, name) in enumerate(zip(lines, names, strict=True)):
            _draw(axes, line, name, number)
        _label(axes, lines[0])
        figure.legend(
            *axes.get_legend_handles_labels(), loc="outside right upper", frameon=False, fontsize=8.5
        )
        data = io.BytesIO()
        figure.savefig(data, format="png", dpi=160)
    return data.getvalue()


def _draw(axes: Axes, line: Line, name: str, number: int) -> None:
    shade, times = COLOURS[number % len(COLOURS)], [length / line.lengths[0] for length in line.lengths]
    low, high = ([getattr(score, end) for score in line.scores] for end in ("low", "high"))
    axes.fill_between(times, low, high, color=shade, alpha=0.1 if line.baseline else 0.22, linewidth=0)
    axes.plot(
        times,
        [score.mean for score in line.scores],
        color=shade,
        marker=_MARKS[number % len(_MARKS)],
        markersize=3.5 if line.baseline else 5,
        linewidth=1.2 if line.baseline else 2.2,
        linestyle=(0, (3.5, 2)) if line.baseline else "-",
        label=name,
    )


def _label(axes: Axes, line: Line) -> None:
    times = [length // line.lengths[0] for length in line.lengths]
    axes.set_xscale("log", base=2)
    axes.set_xticks(times, [f"{n}x\n{length:,}" for n, length in zip(times, line.lengths, strict=True)])
    axes.set_xticks([], minor=True)
    axes.set_xlabel("context length, multiples of the trained length (below: tokens)")
    axes.set_ylim(-0.02, 1.02)
    axes.set_ylabel(line.metric.replace("_", " "))
    axes.grid(axis="y", color="#d9dce1", linewidth=0.6)
    axes.set_axisbelow(True)
