"""`memfactory eval` through the command line: tables, results, comparison, killed and resumed, bad input."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from memfactory.cli.main import run
from memfactory.rollouts.collect import Collector
from tests.integration.projects import write_project

#: The words of the tiny policy only: its tokenizer knows no others.
TASK = {"question": "Where does Ben live?", "answers": ["Rome"]}


@pytest.fixture
def recipe(tmp_path: Path, policy_folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    write_tasks("tasks.jsonl", 4)
    Path("mine.yaml").write_text(
        "sets:\n  mine: {type: jsonl, path: tasks.jsonl}\nmetrics: [exact_match, f1]\n"
    )
    return write_project(tmp_path / "project", policy_folder, plugin=False)


@pytest.fixture
def evaluate(recipe: Path, capsys: pytest.CaptureFixture[str]) -> Any:
    """Run `memfactory eval recipe <arguments>`; return (exit code, standard output, standard error)."""

    def run_it(*arguments: object) -> tuple[int, str, str]:
        capsys.readouterr()
        code = run(["eval", str(recipe), *map(str, arguments)])
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return run_it


def write_tasks(path: str, count: int, text: str = "Ben lives in Rome. ") -> None:
    lines = [{"id": f"t{i}", **TASK, "text": text * (3 * (i + 1))} for i in range(count)]
    Path(path).write_text("".join(json.dumps(line) + "\n" for line in lines))


def scripted(*replies: str) -> list[str]:
    return ["sampler=scripted", f"sampler.replies={json.dumps(list(replies))}"]


def results(folder: str = "out") -> dict[str, Any]:
    """The only result in a folder."""
    (path,) = Path(folder, "eval").glob("*.json")
    value: dict[str, Any] = json.loads(path.read_text())
    return value


def rows_of(out: str, first: str) -> list[list[str]]:
    """Cells of the Markdown rows whose first cell is `first`."""
    rows = [[cell.strip() for cell in line.strip("| ").split(" | ")] for line in out.splitlines()]
    return [row for row in rows if row[0] == first]


def test_a_benchmark_of_ones_own_gives_a_table_and_a_result_with_all_that_is_needed(evaluate: Any) -> None:
    options = ["--benchmarks", "mine.yaml", "-o", "out", "evaluation.repeats=2"]
    code, out, err = evaluate(*options, *scripted("\\boxed{Rome}"))
    assert code == 0, err
    value = results()
    [mine] = value["results"]
    assert (mine["benchmark"], mine["set"], mine["agent"]) == ("mine", "mine", "memagent")
    assert (mine["tasks"], mine["repeats"], mine["failed"], mine["boxed"]) == (4, 2, 0, 1.0)
    assert mine["scores"] == {"exact_match": 1.0, "f1": 1.0}
    assert mine["metrics"]["exact_match"] == {
        "mean": 1.0,
        "low": 1.0,
        "high": 1.0,
        "tasks": 4,
        "unscored": 0,
        "pass_at_k": {"1": 1.0, "2": 1.0},
    }
    assert len(mine["predictions"]) == 8
    first = mine["predictions"][0]
    assert (first["task_id"], first["answer"], first["golds"]) == ("t0", "Rome", ["Rome"])
    assert first["memories"] == ["\\boxed{Rome}"] * (first["calls"] - 1)
    assert len(first["trace"]) == first["calls"] and mine["predictions"][2]["trace"] is None
    assert mine["cost"]["calls"] == sum(p["calls"] for p in mine["predictions"]) > 8
    assert value["recipes"][mine["recipe"]]["evaluation"]["repeats"] == 2
    assert value["versions"]["memfactory"]
    scores, _ = rows_of(out, mine["model"])
    assert scores[2:6] == ["mine", "4 x 2", "100.0 [100.0, 100.0]", "100.0 [100.0, 100.0]"]


def test_agents_and_models_share_one_table_and_one_engine(evaluate: Any, policy_folder: Path) -> None:
    agents = ["memagent", "no_memory", "full_context", "rag_bm25"]
    small = ["evaluation.limit=1", "evaluation.sets=[1x]", "agent.answer_tokens=6", "-o", "out"]
    code, out, err = evaluate("--agents", ",".join(agents), "--benchmarks", "facts", *small)
    assert code == 0, err
    value = results()
    assert [(entry["agent"], entry["set"]) for entry in value["results"]] == [(name, "1x") for name in agents]
    blocks = [value["recipes"][entry["recipe"]]["agent"] for entry in value["results"]]
    assert blocks[0]["block_tokens"] == 40, "the recipe's own agent is as the recipe has it"
    assert "block_tokens" not in blocks[1], "another has nothing of it"
    assert len(rows_of(out, str(policy_folder))) == 8, "four rows of scores and four of cost"


def test_the_same_evaluation_again_makes_no_call_and_another_overwrites_nothing(evaluate: Any) -> None:
    options = ["--benchmarks", "mine.yaml", "-o", "out"]
    assert evaluate(*options, *scripted("\\boxed{Rome}"))[0] == 0
    [first] = Path("out/eval").glob("*.json")
    written = first.read_bytes()
    [journal] = Path("out/eval/rollouts").iterdir()
    lines = journal.read_bytes()
    assert evaluate(*options, *scripted("\\boxed{Rome}"))[0] == 0
    assert first.read_bytes() == written and journal.read_bytes() == lines
    assert evaluate(*options, *scripted("\\boxed{Oslo}"))[0] == 0
    assert first.read_bytes() == written and journal.read_bytes() == lines
    assert len(list(Path("out/eval").glob("*.json"))) == 2
    assert evaluate(*options, *scripted("\\boxed{Rome}"), "evaluation.metrics=[rouge_l]")[0] == 0
    assert first.read_bytes() == written and journal.read_bytes() == lines, "metrics need no new rollouts"


def test_two_results_are_compared_without_a_model(evaluate: Any, capsys: pytest.CaptureFixture[str]) -> None:
    options = ["--benchmarks", "mine.yaml"]
    assert evaluate(*options, "-o", "a", *scripted("\\boxed{Rome}"))[0] == 0
    assert evaluate(*options, "-o", "b", *scripted("\\boxed{Oslo}"))[0] == 0
    capsys.readouterr()
    assert run(["eval", "--compare", "a", "b"]) == 0
    [row, _] = rows_of(capsys.readouterr().out, "mine/mine")
    assert row[1:3] + row[5:] == ["EM", "4", "-100.0", "[-100.0, -100.0]", "B is lower"]
    assert run(["eval", "--compare", "a", "a"]) == 0
    assert "no difference shown" in capsys.readouterr().out
    assert run(["eval", "--compare", "a", "gone"]) == 2
    assert run(["eval", "memagent", "--compare", "a", "b"]) == 2
    assert capsys.readouterr().err.count("\n") == 2


def test_eval_without_a_box_scores_the_whole_reply_and_counts(evaluate: Any) -> None:
    options = ["~data.eval", "+data.eval.mine={type: jsonl, path: tasks.jsonl}", "-o", "out"]
    assert evaluate(*options, *scripted("in Rome it is"))[0] == 0
    [mine] = results()["results"]
    assert mine["boxed"] == 0 and mine["benchmark"] is None
    assert (mine["scores"]["exact_match"], mine["scores"]["sub_exact_match"]) == (0, 1)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('{"question": "Who?", "text": "t"}', r"tasks.jsonl:1: no field 'answers'"),
        (
            '{"question": "Who?", "text": "t", "answers": []}',
            "tasks.jsonl:1: no gold answer in field 'answers'",
        ),
        ('{"qestion": "Who?", "text": "t", "answers": ["a"]}', "tasks.jsonl:1: no field 'question'"),
        (
            '{"question": 3, "text": "t", "answers": ["a"]}',
            "tasks.jsonl:1: field 'question' must be a string",
        ),
        ("[]", "tasks.jsonl: the file is empty"),
        ("not json", "tasks.jsonl:1: not valid JSON"),
    ],
)
def test_a_benchmark_file_of_another_schema_is_one_line(line: str, message: str, evaluate: Any) -> None:
    Path("tasks.jsonl").write_text(line + "\n")
    code, _, err = evaluate("--benchmarks", "mine.yaml", "-o", "out", *scripted("x"))
    assert code == 2 and message in err and err.count("\n") == 1
    assert not Path("out").exists()


def test_an_unknown_set_is_one_line(evaluate: Any) -> None:
    code, _, err = evaluate("--benchmarks", "mine.yaml", "evaluation.sets=[mne]")
    assert code == 2 and "there is no set 'mne'; did you mean 'mine'" in err


def test_an_evaluation_in_which_everything_fails_is_no_score(evaluate: Any) -> None:
    code, _, err = evaluate("--benchmarks", "mine.yaml", "-o", "out", "agent.block_tokens=2")
    assert code == 2 and "all 4 rollouts failed; first" in err
    assert not list(Path("out/eval").glob("*.json"))


def test_killed_at_any_moment_it_goes_on_where_it_was(recipe: Path, evaluate: Any) -> None:
    write_tasks("tasks.jsonl", 24)
    options = ["--benchmarks", "mine.yaml", "sampling.eval.temperature=1.0", "evaluation.concurrency=2"]
    killed = [sys.executable, "-m", "memfactory", "eval", str(recipe), *options, "-o", "killed"]
    journals = Path("killed/eval/rollouts")
    with subprocess.Popen(killed, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        deadline = time.monotonic() + 300
        while lines_in(journals) < 5:
            assert process.poll() is None and time.monotonic() < deadline, "it never got so far"
            time.sleep(0.005)
        os.kill(process.pid, signal.SIGKILL)
    assert lines_in(journals) < 25, "killed too late to test anything"
    assert not list(Path("killed/eval").glob("*.json"))
    [journal] = journals.iterdir()
    kept = journal.read_bytes().rpartition(b"\n")[0] + b"\n"
    assert evaluate(*options, "-o", "killed")[0] == 0
    assert journal.read_bytes().startswith(kept), "what was finished is not made again"
    assert lines_in(journals) == 25
    assert evaluate(*options, "-o", "whole")[0] == 0
    [resumed], [whole] = results("killed")["results"], results("whole")["results"]
    assert replies(resumed) == replies(whole)
    assert resumed["metrics"] == whole["metrics"] and resumed["rewards"] == whole["rewards"]
    tokens = ("calls", "prompt_tokens", "completion_tokens")
    assert [resumed["cost"][name] for name in tokens] == [whole["cost"][name] for name in tokens]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_stops_it_at_once_and_nothing_is_lost(
    number: int, evaluate: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_tasks("tasks.jsonl", 24)
    options = [
        "--benchmarks",
        "mine.yaml",
        "evaluation.concurrency=1",
        "-o",
        "out",
        *scripted("\\boxed{Rome}"),
    ]
    rollout, begun = Collector.rollout, [0]

    async def strike(self: Any, *arguments: Any, **named: Any) -> Any:
        begun[0] += 1
        if begun[0] == 7:
            os.kill(os.getpid(), number)
        await asyncio.sleep(0)  # as a sampler does
        return await rollout(self, *arguments, **named)

    monkeypatch.setattr(Collector, "rollout", strike)
    before = signal.getsignal(signal.SIGTERM)
    code, _, error = evaluate(*options)
    assert code == 128 + number and signal.getsignal(signal.SIGTERM) is before
    name = signal.Signals(number).name
    assert error.splitlines()[-1] == f"stopped by {name}; run the same command to go on"
    done = lines_in(Path("out/eval/rollouts")) - 1
    assert 0 < done < 8 and not list(Path("out/eval").glob("*.json"))
    assert evaluate(*options)[0] == 0
    assert begun[0] <= 24 + 2, "what was finished is not made again"


def lines_in(folder: Path) -> int:
    """Whole lines of the journals in a folder."""
    return sum(path.read_bytes().count(b"\n") for path in folder.glob("*.jsonl")) if folder.is_dir() else 0


def replies(result: dict[str, Any]) -> list[tuple[str, str, list[str]]]:
    return [(p["task_id"], p["reply"], p["memories"]) for p in result["predictions"]]


def test_an_engine_that_dies_leaves_what_is_finished_and_no_score(
    evaluate: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    from memfactory.samplers.hf import HfSampler

    options = ["--benchmarks", "mine.yaml", "-o", "out", "evaluation.concurrency=1"]
    sample, asked = HfSampler.sample, 0

    async def dying(self: HfSampler, request: Any) -> Any:
        nonlocal asked
        asked += 1
        if asked > 5:
            self._driver._fail(RuntimeError("out of memory"))
        return await sample(self, request)

    with monkeypatch.context() as patch:
        patch.setattr(HfSampler, "sample", dying)
        code, out, err = evaluate(*options)
    assert code == 1 and "rollouts of set 'mine' are not finished, so there is no score" in err
    assert err.count("\n") == 1 and "|" not in out
    finished = lines_in(Path("out/eval/rollouts")) - 1
    assert 0 < finished < 4 and not list(Path("out/eval").glob("*.json"))
    assert evaluate(*options)[0] == 0
    assert lines_in(Path("out/eval/rollouts")) == 5
