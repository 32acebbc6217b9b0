"""Two results are compared task by task, and only where that means something."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from memfactory.core.errors import BadInput
from memfactory.core.types import Task, Verdict
from memfactory.evaluation.compare import compare_runs, differences_table, read_run
from memfactory.evaluation.cost import Cost
from memfactory.evaluation.predictions import finish, score
from memfactory.evaluation.report import Entry, cost_table, group_tables, score_tables, write_results
from memfactory.evaluation.scores import summarise_set
from tests.unit.fakes import rollout

COST = Cost(4, 10, 20, 1.5, 2**30, None)


def entry(
    right: str,
    *,
    set_name: str = "s",
    benchmark: str | None = "b",
    model: str = "m",
    agent: str = "a",
    text: str = "text",
    metrics: Sequence[str] = ("exact_match", "f1"),
    judged: str = "",
    judge: str = "gpt-x",
) -> Entry:
    """A result with one task for each character of `right`: `1` is answered right, `0` wrong.

    `judged` is the same as the judge sees it; there `?` is unjudged, and `x` is a rollout that failed.
    """
    predictions = []
    for number, mark in enumerate(right):
        task = Task(f"t{number}", "Who?", text, ("gold",))
        finished = replace(finish(rollout("gold" if mark == "1" else "no")), seconds=0.0)
        if judged:
            finished = replace(finished, **seen(judged[number], judge))
        predictions.append(score(task, 0, finished, metrics))
    result = summarise_set(set_name, predictions, repeats=1, metrics=metrics, cost=COST)
    return Entry("id", "recipe", model, agent, benchmark, result)


def seen(mark: str, judge: str) -> dict[str, Any]:
    """The fields of a finished rollout that tell what the judge made of it."""
    if mark == "x":
        return {"error": "too long", "verdicts": {}, "rewards": {}}
    value = None if mark == "?" else float(mark)
    return {
        "verdicts": {"judge": Verdict(judge, value, "said")},
        "rewards": {} if value is None else {"judge": value},
    }


@pytest.fixture
def written(tmp_path: Path) -> Callable[..., str]:
    def write(*entries: Entry) -> str:
        return str(write_results(tmp_path / "eval", entries, {"id": {"seed": 1}}, {"memfactory": "0"}))

    return write


def test_a_difference_in_every_task_is_shown_and_its_interval_is_exact(written: Any) -> None:
    before, after = read_run(written(entry("000000"))), read_run(written(entry("111111", model="n")))
    found = compare_runs(before, after)
    assert [(d.metric, d.before, d.after, d.paired.difference) for d in found] == [
        ("exact_match", 0.0, 1.0, 1.0),
        ("f1", 0.0, 1.0, 1.0),
    ]
    assert (found[0].paired.low, found[0].paired.high) == (1.0, 1.0)
    table = differences_table(found, before, after)
    assert "n a is higher" in table and "+100.0" in table


def test_a_difference_that_may_be_luck_is_not_shown(written: Any) -> None:
    before, after = read_run(written(entry("0110"))), read_run(written(entry("1110", agent="b")))
    found = compare_runs(before, after)
    assert found[0].paired.difference == pytest.approx(0.25) and found[0].paired.low == 0.0
    assert "no difference shown" in differences_table(found, before, after)


def test_only_tasks_that_both_have_are_compared(written: Any) -> None:
    [found, _] = compare_runs(read_run(written(entry("0011"))), read_run(written(entry("01"))))
    assert (found.paired.tasks, found.before, found.after) == (2, 0.0, 0.5)


@pytest.mark.parametrize(
    ("other", "message"),
    [
        (entry("11", benchmark="c"), "no set in common: b/s against c/s"),
        (entry("11", text="another"), "another question, text or gold answer"),
        (entry("", set_name="s"), "no task in common"),
        (entry("11", metrics=["rouge_l"]), "no metric in common"),
    ],
)
def test_what_cannot_be_compared_is_one_line(other: Entry, message: str, written: Any) -> None:
    before = read_run(written(entry("10")))
    with pytest.raises(BadInput, match=message):
        compare_runs(before, read_run(written(other)))


def test_one_run_of_a_file_is_named_by_agent_or_model(written: Any) -> None:
    path = written(entry("1", agent="memagent"), entry("0", agent="oracle"), entry("1", model="n"))
    assert read_run(f"{path}#memagent").label == "m memagent"
    assert read_run(f"{path}#m/oracle").label == "m oracle"
    assert read_run(f"{path}#n").label == "n a"
    for wanted, message in (("", "several runs"), ("#m", "several runs"), ("#gone", "no run 'gone'")):
        with pytest.raises(BadInput, match=rf"{message}.*m/memagent, m/oracle, n/a"):
            read_run(path + wanted)


@pytest.mark.parametrize(
    "content", ["", "[]", "{}", '{"schema_version": 2}', '{"sets": 3}', "x" * 10, "\x00"]
)
def test_a_file_that_is_no_result_is_one_line(content: str, tmp_path: Path) -> None:
    (tmp_path / "x.json").write_text(content)
    with pytest.raises(BadInput, match=r"x\.json: not a result of `memfactory eval`"):
        read_run(str(tmp_path / "x.json"))


def test_folders_hold_one_result_or_say_so(written: Any, tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="no such file"):
        read_run(str(tmp_path / "gone"))
    (tmp_path / "empty").mkdir()
    with pytest.raises(BadInput, match="no result"):
        read_run(str(tmp_path / "empty"))
    written(entry("1"))
    assert read_run(str(tmp_path)).label == "m a"
    written(entry("11"))
    with pytest.raises(BadInput, match="several results"):
        read_run(str(tmp_path))


def test_what_training_measured_can_be_compared(tmp_path: Path) -> None:
    for name, right in (("before", "000"), ("after", "111")):
        sets = {"held": entry(right).result.as_json()}
        (tmp_path / f"{name}.json").write_text(json.dumps({"step": 0, "sets": sets}))
    before, after = (read_run(str(tmp_path / f"{name}.json")) for name in ("before", "after"))
    assert (before.label, after.label) == ("before", "after")
    assert compare_runs(before, after)[0].paired.shown


def test_results_are_written_whole_and_another_evaluation_is_another_file(written: Any) -> None:
    first, again, other = written(entry("10")), written(entry("10")), written(entry("101"))
    assert first == again != other
    value = json.loads(Path(first).read_text())
    assert value["schema_version"] == 2 and value["recipes"] == {"id": {"seed": 1}}
    [result] = value["results"]
    assert (result["model"], result["agent"], result["benchmark"], result["set"]) == ("m", "a", "b", "s")
    assert result["metrics"]["exact_match"]["mean"] == 0.5
    assert result["cost"]["peak_memory_bytes"] == 2**30
    assert result["predictions"][0]["task_id"] == "t0"


def test_tables_are_markdown_with_a_mean_over_several_sets() -> None:
    entries = [entry("10"), entry("11", set_name="z"), entry("11", agent="pi|pe", set_name="z")]
    lines = score_tables(entries).splitlines()
    assert lines[0].startswith("b: %")
    rows = [[cell.strip() for cell in line.strip("|").split(" | ")] for line in lines[2:]]
    assert rows[0][:6] == ["model", "agent", "set", "tasks", "EM", "F1"]
    assert rows[2][:5] == ["m", "a", "s", "2", "50.0 [0.0, 100.0]"]
    assert rows[4][2:5] == ["mean", "", "75.0"]
    assert rows[5][1] == "pi\\|pe"
    assert len({len(line) for line in lines[2:]}) == 1, "columns line up"
    assert "1.00" in cost_table(entries)
    assert group_tables(entries) == ""


def test_judges_are_compared_on_what_both_could_judge(written: Any) -> None:
    before = read_run(written(entry("000000", judged="0?01x0")))
    after = read_run(written(entry("000000", agent="b", judged="11?1x1")))
    [_, _, found] = compare_runs(before, after)
    # Both judged tasks 0, 3 and 5; task 4 failed in both, and counts as wrong.
    assert (found.metric, found.paired.tasks) == ("judge by gpt-x", 4)
    assert (found.before, found.after, found.paired.difference) == (1 / 4, 3 / 4, 2 / 4)
    assert "judge by gpt-x" in differences_table([found], before, after)


def test_two_judges_are_both_named(written: Any) -> None:
    runs = [read_run(written(entry("01", judged="01", judge=judge))) for judge in ("gpt-x", "gpt-y")]
    assert [d.metric for d in compare_runs(*runs)][2] == "judge by gpt-x / gpt-y"


def test_a_judge_that_only_one_asked_or_that_judged_no_common_task_is_no_row(written: Any) -> None:
    asked = read_run(written(entry("01", judged="?1")))
    for other in (entry("01"), entry("01", judged="1?")):
        assert [d.metric for d in compare_runs(asked, read_run(written(other)))] == ["exact_match", "f1"]


def test_a_judge_has_a_column_for_its_score_and_one_for_what_it_could_not_judge() -> None:
    def cells(table: str) -> list[dict[str, str]]:
        lines = [[cell.strip() for cell in line.strip("| ").split("|")] for line in table.splitlines()[2:]]
        return [dict(zip(lines[0], line, strict=True)) for line in lines[2:]]

    entries = [entry("0000", judged="1?1x"), entry("00", set_name="none", judged="?x"), entry("1", agent="b")]
    some, none, mean, unasked = cells(score_tables(entries))
    assert (some["judge"].split(" [")[0], some["judge unjudged"]) == ("66.7", "1")
    assert (none["judge"], none["judge unjudged"]) == ("–", "1"), "a failed rollout alone makes no score"
    assert (mean["judge"], mean["judge unjudged"]) == ("–", "")
    assert (unasked["judge"], unasked["judge unjudged"]) == ("–", "–")
