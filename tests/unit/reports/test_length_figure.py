"""The picture of score against context length: which lines, which ends of intervals, and what is refused."""

from __future__ import annotations

import runpy
from pathlib import Path
from typing import Any

import pytest

from memfactory.core.errors import BadInput
from memfactory.reports import length_figure
from memfactory.reports.length_figure import lines_of, picture, table
from memfactory.reports.run_data import HeldOut, Score

SCRIPTS = Path(__file__).resolve().parents[3] / "scripts"


def result(label: str, length: float | None, mean: float, low: float | None = None) -> HeldOut:
    score = Score(mean, mean - 0.1 if low is None else low, mean + 0.05)
    return HeldOut(label, f"facts / {length}", {"exact_match": score, "f1": Score(0.0)}, length=length)


RESULTS = [
    result("memagent · tiny", 480, 0.25),
    result("memagent · tiny", 120, 0.5),
    result("rag_bm25 · run/final", 120, 0.125),
    result("rag_bm25 · run/final", 480, 0.75),
]


def test_lines_and_table() -> None:
    lines = lines_of(RESULTS)
    assert [(line.agent, line.policy, line.lengths, line.baseline) for line in lines] == [
        ("memagent", "tiny", (120, 480), False),
        ("rag_bm25", "run/final", (120, 480), True),
    ]
    assert table(lines, ["before", "after"]).splitlines() == [
        "| agent | policy | 1x | 4x |",
        "|---|---|---|---|",
        "| `memagent` | before | 50.0 [40, 55] | 25.0 [15, 30] |",
        "| `rag_bm25` | after | 12.5 [2, 18] | 75.0 [65, 80] |",
    ]


def test_the_picture_shows_every_line_with_its_interval(monkeypatch: pytest.MonkeyPatch) -> None:
    drawn: list[Any] = []
    label = length_figure._label
    monkeypatch.setattr(length_figure, "_label", lambda axes, line: (label(axes, line), drawn.append(axes)))
    data = picture(lines_of(RESULTS), ["before training", "rag_bm25"])
    assert data.startswith(b"\x89PNG")
    [axes] = drawn
    assert [(line.get_label(), list(line.get_xdata()), list(line.get_ydata())) for line in axes.lines] == [
        ("before training", [1, 4], [0.5, 0.25]),
        ("rag_bm25", [1, 4], [0.125, 0.75]),
    ]
    [band, _] = axes.collections
    corners = {(float(x), round(float(y), 6)) for x, y in band.get_paths()[0].vertices}
    assert corners == {(1, 0.4), (1, 0.55), (4, 0.15), (4, 0.3)}
    assert [tick.get_text() for tick in axes.get_xticklabels()] == ["1x\n120", "4x\n480"]


@pytest.mark.parametrize(
    ("results", "message"),
    [
        ([], "no result"),
        ([result("a · b", None, 0.5)], "a · b, facts / None: has no length"),
        ([HeldOut("a · b", "s", {"f1": Score(0.5)}, length=8)], "no length, score or interval"),
        (
            [*RESULTS, result("memagent · x", 120, 0.5)],
            "memagent · x: lengths 120 are not those of the first",
        ),
        ([result("a · b", 120, 0.5), result("a · b", 300, 0.5)], "a multiple of the shortest: 120, 300"),
    ],
)
def test_what_cannot_be_drawn_is_one_line(results: list[HeldOut], message: str) -> None:
    with pytest.raises(BadInput, match=message) as error:
        lines_of(results)
    assert "\n" not in str(error.value)


def test_the_script_writes_page_and_picture(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(SCRIPTS))
    write = runpy.run_path(str(SCRIPTS / "length_figure.py"))["write"]
    page, image = tmp_path / "page.md", tmp_path / "images" / "x.png"
    page.write_text("above\n<!-- lengths:start -->\nold\n<!-- lengths:end -->\nbelow\n")
    write(lines_of(RESULTS), {"tiny": "before", "run/final": "after"}, page, image)
    text = page.read_text()
    assert text.startswith("above\n") and text.endswith("below\n") and "old" not in text
    assert "| `memagent` | before | 50.0 [40, 55] |" in text and image.stat().st_size > 5000
    with pytest.raises(BadInput, match="a policy 'tiny', which is neither --before nor --after"):
        write(lines_of(RESULTS), {"run/final": "after"}, page, image)
