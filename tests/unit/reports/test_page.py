"""The page as a file: what is drawn, that it needs nothing else, and that model texts cannot break out of it."""

from __future__ import annotations

import base64
import gzip
import hashlib
import json
import re
import struct
from pathlib import Path
from typing import Any

import pytest

from memfactory.cli.main import run
from memfactory.reports.charts import charts
from memfactory.reports.page import write_report
from memfactory.reports.run_data import read_run, read_runs
from tests.unit.reports.folders import make_run, rollout, write_result

HOSTILE = "</script><script>hacked()</script><img src=x onerror=hacked()> \ud800 \u2028 ]]>"


def embedded(html: str) -> dict[str, Any]:
    """The data of a page, as its script reads it."""
    coded = re.search(r'id="data">([^<]*)<', html)
    assert coded
    value: dict[str, Any] = json.loads(gzip.decompress(base64.b64decode(coded[1])))
    return value


def test_a_report_replaces_only_a_report(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither a file of the user's, nor a page or picture that was changed since."""
    monkeypatch.setattr("memfactory.reports.page.charts", lambda runs: charts(runs)[:1])
    path = make_run(tmp_path / "a")
    mine = tmp_path / "mine.html"
    mine.write_text("<html>my page</html>")
    assert run(["report", str(path)]) == 0 and run(["report", str(path)]) == 0
    page, picture = path / "report.html", path / "report_png" / "reward.png"
    whole = page.read_bytes()
    for target, options, code in ((mine, ["-o", str(mine)], 1), (page, [], 1), (picture, [], 2)):
        target.write_bytes(target.read_bytes() + b"\n")
        before = target.read_bytes()
        capsys.readouterr()
        assert run(["report", str(path), *options]) == code
        error = capsys.readouterr().err
        assert error.count("\n") == 1 and "choose another --output" in error
        assert target.read_bytes() == before
        page.write_bytes(whole)


def test_one_run_has_its_components_in_one_chart(tmp_path: Path) -> None:
    found = {
        chart.slug: chart
        for chart in charts([read_run(make_run(tmp_path / "a", rewards=[0, 1, 1, 1, 1, 1]))])
    }
    assert list(found) == ["reward", "held-out", "context", "length", "truncated", "operations-a", "time"]
    total, answer, form = found["reward"].series
    assert (total.label, answer.label, form.label) == ("total", "answer", "format")
    assert list(total.raw) == [0, 1, 1, 1, 1, 1]
    assert list(total.y) == pytest.approx([0, 1 / 2, 2 / 3, 3 / 4, 4 / 5, 1])  # mean of at most 5 steps
    before, after = found["context"].series
    assert (before.label, list(before.x), list(before.y)) == ("before training", [120, 480], [0.25, 0.0])
    assert list(after.y) == [0.75, 0.5]
    assert [(s.label, list(s.y)[:1]) for s in found["operations-a"].series] == [
        ("ADD", [0.75]),
        ("DELETE", [0.25]),
    ]
    assert [s.label for s in found["time"].series] == ["collect", "update"]  # "step" is their sum


def test_several_runs_lie_over_each_other(tmp_path: Path) -> None:
    runs = read_runs([make_run(tmp_path / name) for name in ("a", "b")])
    found = {chart.slug: chart for chart in charts(runs)}
    assert [s.label for s in found["reward-answer"].series] == ["a", "b"]
    assert [s.label for s in found["held-out-4x"].series] == ["a", "b"]
    assert [(s.label, list(s.y)) for s in found["time"].series] == [
        ("collect", [10, 10]),
        ("update", [20, 20]),
    ]


def test_results_of_eval_make_curves_against_length_with_baselines_dashed(tmp_path: Path) -> None:
    for agent in ("memagent", "rag_bm25"):
        write_result(tmp_path, agent, agent, {4096: 0.9, 1024: 1.0})
    [chart] = charts([read_run(tmp_path)])
    assert chart.title == "Score against context length: ruler / niah_single_1"
    lines = {series.label: series for series in chart.series}
    assert list(lines["memagent · tiny"].x) == [1024, 4096]
    assert list(lines["memagent · tiny"].low) == pytest.approx([0.9, 0.8])
    assert [lines[f"{agent} · tiny"].dashed for agent in ("memagent", "rag_bm25")] == [False, True]


def test_a_family_of_lengths_has_a_name_without_them(tmp_path: Path) -> None:
    write_result(tmp_path, "one", "memagent", {120: 0.9, 240: 1.0}, sets="facts/{}x")
    [chart] = charts([read_run(tmp_path)])
    assert (chart.title, chart.slug) == ("Score against context length: facts", "length-facts")


def test_report_writes_a_page_and_pictures(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = make_run(tmp_path / "demo")
    assert run(["report", str(path)]) == 0
    assert "8 of 8 rollouts" not in capsys.readouterr().out  # four held-out ones are there too
    html = (path / "report.html").read_text(encoding="utf-8")
    assert len(embedded(html)["rollouts"]) == 12
    pictures = sorted((path / "report_png").glob("*.png"))
    assert [picture.stem for picture in pictures] == sorted(c.slug for c in charts([read_run(path)]))
    for picture in pictures:
        width, height = struct.unpack(">II", picture.read_bytes()[16:24])
        assert width > height > 300
    assert run(["report", str(path), "--output", str(tmp_path)]) == 2
    (tmp_path / "x.html").write_text("<title>mine</title>")
    assert run(["report", str(path), "--output", str(tmp_path / "x.html")]) == 1
    assert (tmp_path / "x.html").read_text() == "<title>mine</title>"
    assert run(["report", str(path), "--output", str(tmp_path / "x.pdf")]) == 2


def test_several_runs_are_reported_into_the_working_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    paths = [make_run(tmp_path / name) for name in ("a", "b")]
    monkeypatch.chdir(tmp_path)
    assert run(["report", *map(str, paths), "--max-rollouts", "4"]) == 0
    assert len(embedded((tmp_path / "report.html").read_text(encoding="utf-8"))["rollouts"]) == 4
    assert not (paths[0] / "report.html").exists()


def test_the_page_asks_nobody_for_anything(tmp_path: Path) -> None:
    output = tmp_path / "page.html"
    write_report(read_runs([make_run(tmp_path / "a"), make_run(tmp_path / "b")]), output)
    html = output.read_text(encoding="utf-8")
    assert not re.findall(r"""(?:src|href)\s*=\s*["'](?!#)""", re.sub(r'xlink:href="#[^"]*"', "", html))
    assert not re.findall(r"url\((?!#)|@import|<link|<iframe|fetch\(|XMLHttpRequest|WebSocket|import\(", html)
    script = html[html.rindex("<script>") + len("<script>") : html.rindex("</script>")]
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert f"default-src 'none'; style-src 'unsafe-inline'; script-src 'sha256-{digest}'" in html


def test_hostile_texts_are_nowhere_in_the_page_as_html(tmp_path: Path) -> None:
    line = rollout(HOSTILE, 0, 1.0, question=HOSTILE, reply=HOSTILE, golds=[HOSTILE], error=HOSTILE)
    line["calls"][0] |= {"module": HOSTILE, "prompt": HOSTILE, "memory": HOSTILE}
    path = make_run(tmp_path / "demo", rollouts={1: [line]})
    records = [
        {"step": s, "reward": 0.5, f"reward/{HOSTILE[:20]}": 1.0, f"length/{HOSTILE}": s} for s in (1, 2)
    ]
    (path / "metrics.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
    (path / "recipe.yaml").write_text(json.dumps({"name": HOSTILE[:60]}))
    output = tmp_path / "page.html"
    write_report([read_run(path, name=f"run {HOSTILE[:60]}")], output)
    html = output.read_text(encoding="utf-8")
    assert "<img" not in html
    assert html.count("<script") == html.count("</script") == 2
    assert "<script>hacked" not in html
    assert "&lt;img" in html  # they are there, as text
    data = embedded(html)["rollouts"][0]
    assert data["question"] == HOSTILE
    assert data["calls"][0]["memory"] == HOSTILE


def test_a_memory_that_was_emptied_is_not_one_that_stayed(tmp_path: Path) -> None:
    line = rollout("t", 0, 1.0, info={"operations": {"delete": 1}, "errors": ["manager: no such memory"]})
    line["calls"][1]["memory"] = ""
    output = tmp_path / "page.html"
    write_report([read_run(make_run(tmp_path / "demo", rollouts={1: [line]}, evaluate=False))], output)
    [seen] = embedded(output.read_text(encoding="utf-8"))["rollouts"]
    assert [call.get("memory") for call in seen["calls"]] == ["Ada lives in Rome", "", None]
    assert seen["operations"] == {"delete": 1}
    assert seen["problems"] == ["manager: no such memory"]


def test_thousands_of_long_rollouts_make_a_page_of_bounded_size_that_says_so(tmp_path: Path) -> None:
    def noise(seed: int) -> str:
        return " ".join(hashlib.sha256(f"{seed} {i}".encode()).hexdigest() for i in range(60))

    kept = {
        step: [rollout(f"t{step}", i, 0.0, reply=noise(8 * step + i)) for i in range(8)]
        for step in range(1, 501)
    }
    output = tmp_path / "page.html"
    path = make_run(tmp_path / "demo", rollouts=kept, evaluate=False)
    report = write_report([read_run(path)], output)
    assert output.stat().st_size < 5_000_000
    assert report.found == 4000
    assert 100 < report.shown < 4000
    html = output.read_text(encoding="utf-8")
    assert f"{report.shown:,} of 4,000 recorded rollouts are in this page" in html
    steps = [r["step"] for r in embedded(html)["rollouts"]]
    assert (steps[0], steps[-1]) == (1, 500)
    assert len(steps) % 8 == 0


def test_a_run_without_rollouts_or_metrics_still_makes_a_page(tmp_path: Path) -> None:
    path = make_run(tmp_path / "demo", rollouts={}, evaluate=False)
    (path / "metrics.jsonl").write_text("")
    output = tmp_path / "page.html"
    assert write_report([read_run(path)], output).shown == 0
    assert "No rollouts were recorded" in output.read_text(encoding="utf-8")
