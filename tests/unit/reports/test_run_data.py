"""Reading run folders: finished, killed half-way, of `eval` only, and folders that are none."""

from __future__ import annotations

from pathlib import Path

import pytest

from memfactory.cli.main import run
from memfactory.core.errors import BadInput
from memfactory.reports.rollouts import count_training_rollouts, held_out_rollouts, thin, training_rollouts
from memfactory.reports.run_data import read_run, read_runs
from memfactory.reports.tables import main_figures, recipe_differences, results_table
from tests.unit.reports.folders import call, make_run, rollout, write_evaluation, write_result


def test_a_run_has_curves_scores_and_lengths(tmp_path: Path) -> None:
    data = read_run(make_run(tmp_path / "demo", rewards=[0.0, 0.5, 1.0]))
    assert data.curve("reward") == ([1.0, 2.0, 3.0], [0.0, 0.5, 1.0])
    assert data.curve("entropy") == ([], [])  # a figure that was not finite is null
    assert [(e.label, e.set, e.step, e.length, e.scores["exact_match"].mean) for e in data.evaluations] == [
        ("before", "1x", 0, 120.0, 0.25),
        ("before", "4x", 0, 480.0, 0.0),
        ("after", "1x", 10, 120.0, 0.75),
        ("after", "4x", 10, 480.0, 0.5),
    ]


def test_evaluations_in_between_lie_between(tmp_path: Path) -> None:
    path = make_run(tmp_path / "demo")
    write_evaluation(path, "step-5", 5, {"1x": 0.6})
    assert [e.step for e in read_run(path).evaluations if e.set == "1x"] == [0, 5, 10]


def test_results_of_eval_have_the_metric_of_their_benchmark_and_its_interval(tmp_path: Path) -> None:
    write_result(tmp_path, "a", "rag_bm25", {4096: 0.5})
    [result] = read_run(tmp_path).results
    assert (result.label, result.set, result.length) == (
        "rag_bm25 · tiny",
        "ruler / niah_single_1_4096",
        4096.0,
    )
    score = result.scores[result.metric]
    assert (result.metric, score.mean, score.low, score.high) == ("string_match_all", 0.5, 0.4, 0.6)
    assert results_table([read_run(tmp_path)]).rows == [
        ["ruler / niah_single_1_4096 (string match all)", "50.0 [40.0, 60.0]"]
    ]
    [seen] = held_out_rollouts(read_run(tmp_path), result)
    assert [(c.module, c.prompt, c.reply) for c in seen.calls] == [("answer", "hay", "pin")]


def test_what_a_kill_left_half_written_is_left_out_and_said(tmp_path: Path) -> None:
    path = make_run(tmp_path / "demo")
    with open(path / "metrics.jsonl", "a") as file:
        file.write('{"step": 11, "rew')
    with open(path / "rollouts" / "step-2.jsonl", "a") as file:
        file.write('{"task": "t1", "in')
    (path / "evaluation" / "after.json").write_text("{")
    data = read_run(path)
    assert len(data.metrics) == 10
    assert [e.label for e in data.evaluations] == ["before", "before"]
    assert len(list(training_rollouts(data))) == 8
    assert [note.split(" ", 1)[0].rsplit("/", 1)[1] for note in data.notes] == ["after.json", "step-2.jsonl:"]


def test_a_call_knows_what_the_memory_held_before_it(tmp_path: Path) -> None:
    first = next(training_rollouts(read_run(make_run(tmp_path / "demo"))))
    assert first.memory == "nothing yet"
    assert [c.memory for c in first.calls] == ["Ada lives in Rome", "Ada lives in Oslo", None]
    assert [c.advantage for c in first.calls] == [-0.5, -0.5, -0.5]


def test_memories_listed_beside_the_calls_belong_to_the_module_that_fits(tmp_path: Path) -> None:
    calls = [call("update", "p", "a"), call("answer", "p", "b"), call("update", "p", "c")]
    line = rollout("t", 0, 1.0, calls=calls, memory=None, memories=["one", "two"])
    seen = next(training_rollouts(read_run(make_run(tmp_path / "demo", rollouts={1: [line]}))))
    assert [c.memory for c in seen.calls] == ["one", None, "two"]


def test_values_of_any_kind_are_read(tmp_path: Path) -> None:
    wild = {
        "task": 7,
        "index": None,
        "reward": float("nan"),
        "rewards": [1],
        "golds": "x",
        "calls": [3, {}],
        "info": 1,
    }
    seen = next(training_rollouts(read_run(make_run(tmp_path / "demo", rollouts={1: [wild]}))))
    assert (seen.task, seen.index, seen.reward, seen.rewards, seen.golds) == ("7", 0, None, {}, [])
    assert len(seen.calls) == 1


def test_thinning_keeps_whole_groups_with_the_first_and_the_last(tmp_path: Path) -> None:
    kept = {step: [rollout(f"t{step}", i, 1.0) for i in range(4)] for step in range(1, 101)}
    everything = list(training_rollouts(read_run(make_run(tmp_path / "demo", rollouts=kept))))
    some = thin(everything, 41)
    assert len(some) == 40
    assert {len([r for r in some if r.step == step]) for step in {r.step for r in some}} == {4}
    assert (some[0].step, some[-1].step) == (1, 100)
    assert thin(everything, 400) == everything
    assert len(thin(everything, 3)) == 3


def test_of_a_long_run_only_evenly_spaced_steps_are_read(tmp_path: Path) -> None:
    kept = {step: [rollout(f"t{step}", i, 1.0) for i in range(4)] for step in range(1, 101)}
    data = read_run(make_run(tmp_path / "demo", rollouts=kept))
    for step in range(2, 100):  # would be counted as broken if they were read
        if step not in (34, 67):
            (tmp_path / "demo" / "rollouts" / f"step-{step}.jsonl").write_text("no rollout\n" * 4)
    assert [r.step for r in training_rollouts(data, 16)] == [
        step for step in (1, 34, 67, 100) for _ in range(4)
    ]
    assert data.notes == []
    assert count_training_rollouts(data) == 400


def test_tables_compare_runs(tmp_path: Path) -> None:
    runs = read_runs([make_run(tmp_path / "a", seed=1), make_run(tmp_path / "b", seed=2, steps=5)])
    figures = {row[0]: row[1:] for row in main_figures(runs).rows}
    assert figures["Steps"] == ("10", "5 of 10")
    assert figures["Held out: 1x (exact match)"] == ("0.250 → 0.750 (+0.500)",) * 2
    assert figures["Reward, first → last 5 steps"] == ("0.300 → 0.800 (+0.500)", "0.300 → 0.300 (+0.000)")
    assert figures["Time"] == ("30 s", "15 s")
    assert recipe_differences(runs).rows == [["seed", "1", "2"]]


def test_a_block_that_only_one_recipe_has_is_one_difference(tmp_path: Path) -> None:
    first, second = make_run(tmp_path / "a"), make_run(tmp_path / "b")
    with open(second / "recipe.yaml", "a") as file:
        file.write("reward: {answer: {type: f1, weight: 0.5}}\nsampler: null\n")
    assert recipe_differences(read_runs([first, second])).rows == [
        ["reward", "–", "{answer: {type: f1, weight: 0.5}}"],
        ["sampler", "–", "null"],
    ]


def test_runs_of_the_same_name_are_told_apart(tmp_path: Path) -> None:
    paths = [make_run(tmp_path / part / "demo") for part in ("x", "y")]
    assert [data.name for data in read_runs(paths)] == [str(path) for path in paths]


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["missing"], "no such folder"),
        (["empty"], "not a run folder"),
        (["demo", "demo"], "named twice"),
        (["broken"], "not readable as YAML"),
        (["binary"], "not a text file"),
    ],
)
def test_what_is_no_run_is_said_in_one_line(
    names: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    make_run(tmp_path / "demo")
    (tmp_path / "empty").mkdir()
    (make_run(tmp_path / "broken") / "recipe.yaml").write_text("a: [")
    (make_run(tmp_path / "binary") / "metrics.jsonl").write_bytes(b"\xff\xfe\x00")
    assert run(["report", *(str(tmp_path / name) for name in names)]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
    assert not list(tmp_path.rglob("*.html"))


def test_view_needs_a_terminal(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = make_run(tmp_path / "demo")
    assert run(["view", str(path)]) == 2
    assert "view needs a terminal" in capsys.readouterr().err
    with pytest.raises(BadInput):
        read_run(tmp_path / "demo" / "recipe.yaml")
