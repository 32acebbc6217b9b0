"""`memfactory infer` and `memfactory eval` through the command line, on a random policy."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from memfactory.cli.main import run
from tests.integration.projects import write_project

TEXT = "Ann lives in Rome. " * 30


@pytest.fixture
def recipe(tmp_path: Path, policy_folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    Path("book.txt").write_text(TEXT)
    return write_project(tmp_path / "project", policy_folder, plugin=False)


@pytest.fixture
def call(recipe: Path, capsys: pytest.CaptureFixture[str]) -> Any:
    """Run `memfactory <command> recipe <arguments>`; return (exit code, standard output, standard error)."""

    def run_it(command: str, *arguments: object) -> tuple[int, str, str]:
        capsys.readouterr()
        code = run([command, str(recipe), *map(str, arguments)])
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return run_it


def write_tasks(path: Path, count: int, *, golds: bool = False) -> None:
    lines = [
        {
            "id": f"t{i}",
            "question": f"Where does person {i} live?",
            "text": "Ann lives in Rome. " * (3 * (i + 1)),
        }
        | ({"answers": ["Rome"]} if golds else {})
        for i in range(count)
    ]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))


def scripted(*replies: str) -> Sequence[str]:
    return ["sampler=scripted", f"sampler.replies={json.dumps(list(replies))}"]


def test_a_question_about_a_file_answers_and_prints_the_memory(call: Any) -> None:
    code, out, err = call("infer", "-i", "book.txt", "-q", "Where?", *scripted("so \\boxed{Rome}"))
    assert code == 0, err
    assert out == "Rome\n"
    assert "block" in err, "progress belongs on standard error"


def test_show_memory_prints_it_after_every_block(call: Any) -> None:
    code, out, _ = call("infer", "-i", "book.txt", "-q", "Where?", "--show-memory", *scripted("[Rome]"))
    assert code == 0
    blocks = out.count("[memory after block ")
    assert blocks > 3
    assert f"[memory after block {blocks}]\n[Rome]\n" in out


def test_several_questions_are_answered_in_order(call: Any) -> None:
    code, out, _ = call("infer", "-i", "book.txt", "-q", "Where?", "-q", "Who?", *scripted("\\boxed{Rome}"))
    assert code == 0
    assert out.splitlines() == ["Q: Where?", "Rome", "Q: Who?", "Rome"]


@pytest.mark.parametrize("questions", [1, 2])
def test_json_is_one_parseable_value_and_nothing_else(questions: int, call: Any) -> None:
    asked = ["-q", "Where?", "-q", "Who?"][: 2 * questions]
    code, out, _ = call("infer", "-i", "book.txt", *asked, "--json", "--show-memory")
    assert code == 0
    value = json.loads(out)
    results = [value] if questions == 1 else value
    assert len(results) == questions
    for result in results:
        assert result["error"] is None
        assert result["calls"] == len(result["memories"]) + 1 > 3
        assert result["completion_tokens"] <= 6 * result["calls"]
    assert results[0]["question"] == "Where?"


@pytest.mark.parametrize("flags", [["--json"], ["--show-memory"]])
def test_replies_with_broken_unicode_are_printed_not_raised(flags: list[str], call: Any) -> None:
    code, out, err = call(
        "infer", "-i", "book.txt", "-q", "Where?", *flags, *scripted("a \ud800 b \x1b [/red] \\boxed{{x}}")
    )
    assert code == 0, err
    assert out


def test_text_comes_from_standard_input(call: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def given(data: bytes) -> Any:
        monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(data)))
        code, out, _ = call("infer", "-i", "-", "-q", "Where?", "--json", *scripted("m"))
        assert code == 0
        return json.loads(out)

    assert given(TEXT.encode())["calls"] > 3
    assert given(b"caf\xe9 \xff")["error"] is None
    assert given(b"")["calls"] == 1, "an empty text is answered from the empty memory"


def test_the_same_question_is_answered_the_same_way_whatever_runs_beside_it(call: Any) -> None:
    write_tasks(Path("tasks.jsonl"), 6)
    options = ["sampling.eval.temperature=1.0", "--output"]
    assert call("infer", "--tasks", "tasks.jsonl", *options, "wide.jsonl")[0] == 0
    assert (
        call("infer", "--tasks", "tasks.jsonl", *options, "narrow.jsonl", "evaluation.concurrency=1")[0] == 0
    )
    wide, narrow = (
        {r["id"]: r for r in map(json.loads, Path(name).read_text().splitlines())}
        for name in ("wide.jsonl", "narrow.jsonl")
    )
    assert len(wide) == 6
    assert wide == narrow


def test_tasks_in_answers_out_and_an_interrupted_file_is_gone_on_with(call: Any) -> None:
    write_tasks(Path("tasks.jsonl"), 5)
    command = ["infer", "--tasks", "tasks.jsonl", "--output", "new/answers.jsonl", "evaluation.concurrency=1"]
    assert call(*command)[0] == 0
    path = Path("new/answers.jsonl")
    whole = path.read_bytes()
    lines = whole.splitlines(keepends=True)
    assert [json.loads(line)["id"] for line in lines] == [f"t{i}" for i in range(5)]
    start = len(lines[0]) + len(lines[1])
    for cut in (start + 7, start + len(lines[2]) - 1, len(whole) - 1, 3):
        path.write_bytes(whole[:cut])
        code, _, err = call(*command)
        assert code == 0
        assert path.read_bytes() == whole, f"cut at {cut}"
        assert ("are there already" in err) == (cut >= len(lines[0]))
    code, _, err = call(*command)
    assert code == 0 and "nothing left to do" in err
    assert path.read_bytes() == whole


def test_answers_to_what_has_changed_are_made_again_and_it_is_said(call: Any) -> None:
    def infer(*changes: str, reply: str = "m") -> tuple[str, dict[str, Any]]:
        options = ["--tasks", "tasks.jsonl", "--output", "answers.jsonl"]
        code, _, err = call("infer", *options, *scripted(reply), *changes)
        assert code == 0, err
        lines = [json.loads(line) for line in Path("answers.jsonl").read_text().splitlines()]
        assert len({line["id"] for line in lines}) == len(lines)
        return err, {line["id"]: line for line in lines}

    write_tasks(Path("tasks.jsonl"), 4)
    _, first = infer()
    tasks = [json.loads(line) for line in Path("tasks.jsonl").read_text().splitlines()]
    tasks[1]["question"], tasks[2]["text"], tasks[3]["answers"] = "Who?", "Ben lives in Oslo.", ["Rome"]
    Path("tasks.jsonl").write_text("".join(json.dumps(task) + "\n" for task in tasks[1:]))
    err, second = infer()
    assert "1 answer is there already" in err and "2 answers are of another question" in err
    assert second["t1"]["question"] == "Who?" and second["t1"]["key"] != first["t1"]["key"]
    assert second["t3"] == first["t3"], "what would be right changes no answer"
    assert second["t0"] == first["t0"], "a task that is not asked now stays"
    err, third = infer(reply="other")
    assert "3 answers are of another" in err and {third[f"t{n}"]["reply"] for n in (1, 2, 3)} == {"other"}
    assert (
        "1 answer" not in (err := infer("sampling.eval.top_p=0.5", reply="other")[0])
        and "3 answers are of" in err
    )
    assert "nothing left to do" in infer("sampling.eval.top_p=0.5", reply="other")[0]
    Path("answers.jsonl").write_text(
        "".join(json.dumps({**line, "key": ""}) + "\n" for line in third.values())
    )
    assert "3 answers are of another" in infer(reply="other")[0], "whose they are is not known"


@pytest.mark.parametrize(
    "foreign",
    [
        "my notes",
        "my notes\n",
        '{"id": 1}\n',
        '{"id": "t0", "question": "q", "text": "t"}',
        "[]\n",
        '{"a": 1}',
        "\n",
    ],
)
def test_a_file_that_is_something_else_is_never_touched(foreign: str, call: Any) -> None:
    write_tasks(Path("tasks.jsonl"), 2)
    Path("notes").write_text(foreign)
    code, out, err = call("infer", "--tasks", "tasks.jsonl", "--output", "notes", *scripted("m"))
    assert code == 2, out
    assert len(err.splitlines()) == 1
    assert Path("notes").read_text() == foreign


def test_a_task_that_cannot_be_done_leaves_the_others_done_and_is_tried_again(call: Any) -> None:
    write_tasks(Path("tasks.jsonl"), 3)
    with open("tasks.jsonl", "a") as file:
        file.write(json.dumps({"id": "long", "question": "why " * 500, "text": "t"}) + "\n")
    for _ in range(2):
        code, _, err = call("infer", "--tasks", "tasks.jsonl", "--output", "answers.jsonl", *scripted("m"))
        assert code == 1
        assert "the question has" in err and "Traceback" not in err
        assert len(Path("answers.jsonl").read_text().splitlines()) == 3


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "utf-8"])
def test_output_that_the_terminal_cannot_show_does_not_end_the_program(encoding: str) -> None:
    code = "from memfactory.cli import main\nmain.run = lambda: print('\\ud800 \\u2588 ok') or 0\nmain.main()"
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "PYTHONIOENCODING": encoding},
        capture_output=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert b"ok" in done.stdout
