"""The chat as a user meets it: in a terminal, through a pipe, killed, and with a bank that is not to be used."""

from __future__ import annotations

import io
import json
import re
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from memfactory.cli.main import run
from memfactory.memory.lance import LanceBank
from tests.integration.terminal import CTRL_C, CTRL_D, Terminal

READY = "you> "


@pytest.fixture(autouse=True)
def here(chat_recipe: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    project = chat_recipe.parent
    monkeypatch.chdir(project)
    yield project
    shutil.rmtree(project / "banks", ignore_errors=True)
    for name in ("down", "patient"):
        (project / name).unlink(missing_ok=True)


@pytest.fixture
def chat(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Any:
    """Chat through a pipe: lines in; exit code, standard output and standard error out."""

    def send(*lines: str, options: tuple[str, ...] = ()) -> tuple[int, str, str]:
        text = "".join(f"{line}\n" for line in lines)
        monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(text.encode())))
        capsys.readouterr()
        code = run(["infer", "talk.yaml", "--speaker", "Ana", *options])
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return send


def terminal(here: Path) -> Terminal:
    command = [sys.executable, "-m", "memfactory", "infer", "talk.yaml", "--speaker", "Ana"]
    return Terminal(command, here)


def texts(path: str = "banks/talk") -> list[str]:
    with LanceBank(path, mode="read") as bank:
        return [item.text for item in bank.items()]


def test_a_chat_in_a_terminal_killed_and_taken_up_again(here: Path) -> None:
    first = terminal(here)
    assert "banks/talk: 0 memories. You are Ana." in first.wait_for(READY)
    first.type("I moved to Oslo.\n")
    assert "+ [m1] Ana: I moved to Oslo." in first.wait_for(READY)
    first.type("Where do I live now?\n")
    assert "Ana: I moved to Oslo." in first.wait_for(READY)
    first.type("half a line" + CTRL_C)
    assert "Ctrl-D leaves" in first.wait_for(READY)
    first.type("Do I sing slowly?\n")
    first.wait_for("answering")
    first.type(CTRL_C)
    assert "(stopped)" in first.wait_for(READY), "the reply is cancelled, the chat goes on"
    first.type("I sing slowly.\n")
    first.wait_for("remembering")
    first.kill()
    assert texts() == ["Ana: I moved to Oslo."]
    said = json.loads((here / "banks/talk/pending.jsonl").read_text())
    assert said["text"] == "I sing slowly.", "what was said is on disk"

    (here / "banks/talk/pending.jsonl").write_text(json.dumps({**said, "text": "I sing."}) + "\n")
    second = terminal(here)
    begun = second.wait_for(READY)
    assert "1 memory." in begun and "1 message from before" in begun and "+ [m2] Ana: I sing." in begun
    for command, shown in (("/why", "nothing was asked yet"), ("/memory", "Ana: I sing.")):
        second.type(f"{command}\n")
        assert shown in second.wait_for(READY)
    second.type(CTRL_D)
    assert second.end() == 0
    assert texts() == ["Ana: I moved to Oslo.", "Ana: I sing."]


def test_commands_through_a_pipe(chat: Any) -> None:
    code, out, err = chat(
        "I moved to Oslo.",
        "hello",
        "/why",
        "Where do I live?",
        "/why",
        "/speaker Ben",
        "I sing. Who else sings?",
        "/memory oslo",
        "/memory",
        "/forget 1",
        "/ask anything",
        "/tell is this a question?",
        "/quit",
        "never read",
    )
    assert code == 0, err
    day = r"\(\d+ \w+ \d{4}\) "
    wanted = [
        r"  \+ \[m1\] Ana: I moved to Oslo\.",
        r"  \(nothing new to remember\)",
        r"  \(nothing was asked yet\)",
        r"Ana: I moved to Oslo\.",
        rf"  \[m1\] {day}Ana: I moved to Oslo\.   from chat-1",
        r"  you are Ben",
        r"  \+ \[m2\] Ben: I sing\. Who else sings\?",
        r"Ben: I sing\. Who else sings\?",
        rf"  \[m1\] {day}Ana: I moved to Oslo\.",
        r"  \(1 that fit, of 2\)",
        rf"  \[m1\] {day}Ana: I moved to Oslo\.",
        rf"  \[m2\] {day}Ben: I sing\. Who else sings\?",
        r"  - \[m1\] Ana: I moved to Oslo\.",
        r"Ben: I sing\. Who else sings\?",
        r"  \+ \[m3\] Ben: is this a question\?",
    ]
    lines = out.splitlines()
    assert len(lines) == len(wanted), out
    for line, pattern in zip(lines, wanted, strict=True):
        assert re.fullmatch(pattern, line), (line, pattern)
    assert err.startswith("banks/talk: 0 memories.")


def test_help_names_every_command_and_mistakes_are_one_line(chat: Any) -> None:
    code, out, err = chat("/help", "/forgt m1", "/forget", "/forget m7", "/speaker", "/ask", "after all")
    assert code == 1, "where nobody reads along, a failure shows in the exit code"
    for name in ("/memory", "/forget", "/why", "/help", "/quit", "/ask", "/tell", "/speaker", "Ctrl-C"):
        assert name in out
    errors = [line for line in err.splitlines() if line.startswith("error: ")]
    assert len(errors) == 5
    assert "did you mean 'forget'" in errors[0] and "there is no memory 'm7'" in errors[2]
    assert out.splitlines()[-1] == "  + [m1] Ana: after all", "the chat went on"


def test_a_server_that_is_down_loses_nothing(chat: Any, here: Path) -> None:
    (here / "down").touch()
    code, out, err = chat("I moved to Oslo.", "Where do I live?")
    assert (code, out) == (1, "")
    assert err.count("error: the server cannot be reached") == 2
    assert "what you said is kept" in err
    (here / "down").unlink()
    code, out, err = chat("Where do I live?")
    assert code == 0 and out.splitlines() == ["  + [m1] Ana: I moved to Oslo.", "Ana: I moved to Oslo."]


def test_what_was_not_understood_is_told_kept_and_asked_for_again(
    chat: Any, here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, out, err = chat("I talk gibberish.", "hello", "I sing.", "I dance.")
    assert code == 1 and out == "  (nothing new to remember)\n  + [m1] Ana: I sing.\n  + [m2] Ana: I dance.\n"
    why = "not understood: extractor: no JSON object with 'facts'"
    line = f"error: 'I talk gibberish.' {why}; it is kept and asked for again"
    assert err.splitlines()[1:] == [*[line] * 3, "1 message not in the bank yet; kept for the next start"]
    lines = [
        json.dumps({"speaker": "Ana", "text": text, "session": text}) for text in ("gibberish", "I ski.")
    ]
    (here / "odd.jsonl").write_text("\n".join(lines) + "\n")
    command = ["infer", "talk.yaml", "--input", "odd.jsonl", "-q", "Who?"]
    for again in (False, True):
        assert run(command) == 1
        out, err = capsys.readouterr()
        assert out.startswith("Ana: I ski.\n")
        assert ("1 session could not be understood before, asking again" in err) == again
        assert "odd/gibberish (1/2): not understood: extractor: no JSON object with 'facts'" in err
        assert ("odd/I ski. (2/2): add 1" in err) != again
        assert f"1 session of {1 if again else 2} could not be understood and is not in the bank" in err
    (here / "patient").touch()
    assert run(command) == 0
    out, err = capsys.readouterr()
    assert "taking in 1 message that waited" in err and "odd/gibberish (1/2): add 1" in err
    assert texts() == [
        f"Ana: {t}" for t in ("I sing.", "I dance.", "I ski.", "I talk gibberish.", "gibberish")
    ]
    assert run(command) == 0 and "everything in it is in the bank already" in capsys.readouterr().err


def test_a_bank_that_is_not_there_is_asked_nothing(
    chat: Any, here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert chat("I sing.")[0] == 0
    for arguments in (
        ["--bank", "banks/tolk", "-q", "Who?"],
        ["--bank", "banks/tolk", "-q", "Who?", "--json"],
    ):
        assert run(["infer", "talk.yaml", *arguments]) == 2
        out, err = capsys.readouterr()
        assert out == "" and err.count("\n") == 1
        assert "banks/tolk: no such memory bank; --input FILE reads" in err and "did you mean 'talk'" in err
    code, out, err = chat("Who sings?", "/memory", options=("--bank", "banks/tolk"))
    assert code == 1 and "nothing to answer from; tell it something first; did you mean 'talk'" in err
    assert sorted(path.name for path in (here / "banks").iterdir()) == ["talk"], "a typo makes no bank"
    assert chat("I dance.", options=("--bank", "banks/tolk"))[0] == 0 and texts("banks/tolk") == [
        "Ana: I dance."
    ]


def test_a_message_that_does_not_fit_is_told(chat: Any) -> None:
    code, out, err = chat("word " * 2000, "short")
    assert code == 1 and "exceeds the context" in err and "this was not remembered" in err
    assert out == "  + [m1] Ana: short\n"


def test_odd_bytes_are_no_traceback(chat: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    code, out, err = chat("caf\u00e9 \x00 \x1b[31m [red] \ud7ff")
    assert code == 0, err
    assert "[red]" in out


def test_banks_that_cannot_be_used_are_one_line(chat: Any, here: Path) -> None:
    assert chat("I sing.")[0] == 0

    def refused(part: str, *options: str) -> None:
        code, out, err = chat("hello", options=options)
        assert (code, out) == (2, "") and err.startswith("error: ") and err.count("\n") == 1, err
        assert part in err

    refused("built with embedder 'hashing_for_tests-64'", "agent.retriever.embedder.dim=32")
    refused("built with embedder", "agent.retriever.method=bm25")
    with LanceBank("banks/talk"):
        refused("is writing to this memory bank")
    info = json.loads((here / "banks/talk/bank.json").read_text())
    (here / "banks/talk/bank.json").write_text(json.dumps({**info, "version": 99}))
    refused("install a newer memfactory")
    refused("is a file; a memory bank is a folder", "--bank", "talk.yaml")
    refused("is no memory bank", "--bank", ".")
    refused("--conversation chooses", "--conversation", "x")
    refused("--json and --output are for answers", "--json")


def test_an_agent_without_a_bank_refuses_what_is_for_banks(capsys: pytest.CaptureFixture[str]) -> None:
    for option in ("--bank", "--conversation"):
        assert run(["infer", "memagent", option, "b"]) == 2
        assert "agent 'memagent' keeps no memory bank" in capsys.readouterr().err


def test_a_dialogue_file_is_read_and_asked_about(
    chat: Any, here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    said = [("Ana", "I live in Rome.", 1), ("Ben", "hello", 1), ("Ana", "I moved to Oslo.", 3)]
    lines = [json.dumps({"speaker": who, "text": text, "session": n}) for who, text, n in said]
    (here / "talk.jsonl").write_text("\n".join(lines) + "\n")

    def infer(*options: str) -> tuple[int, str, str]:
        capsys.readouterr()
        code = run(["infer", "talk.yaml", *options])
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    code, out, err = infer("--input", "talk.jsonl", "-q", "Where?", "-q", "Who?", "--output", "a.jsonl")
    assert (code, out) == (0, ""), err
    assert err.splitlines() == [
        "warning: talk.jsonl: dialogue 'talk': no session between '1' and '3'; reading what is there",
        "talk/1 (1/2): add 1",
        "talk/3 (2/2): add 1",
        "banks/talk: 2 memories",
    ]
    results = [json.loads(line) for line in (here / "a.jsonl").read_text().splitlines()]
    assert [(r["question"], r["answer"], r["error"]) for r in results] == [
        ("Where?", "Ana: I moved to Oslo.", None),
        ("Who?", "Ana: I moved to Oslo.", None),
    ]
    assert results[0]["used"] == [
        {"id": "m2", "text": "Ana: I moved to Oslo.", "time": "", "sources": ["talk/3:1"]}
    ]
    assert results[0]["retrieved"] == ["m1", "m2"]
    assert "1 answer is there already" in infer("-q", "Where?", "--output", "a.jsonl")[2]
    assert len((here / "a.jsonl").read_text().splitlines()) == 2, "it was answered before"
    assert chat("I ski.")[0] == 0
    err = infer("-q", "Where?", "--output", "a.jsonl")[2]
    assert "1 answer is of another question, text, model, recipe, program or bank; asking again" in err
    assert [json.loads(line)["answer"] for line in (here / "a.jsonl").read_text().splitlines()] == [
        "Ana: I moved to Oslo.",
        "Ana: I ski.",
    ]
    assert chat("/forget m3")[0] == 0
    code, out, err = infer("--input", "talk.jsonl", "-q", "Where?")
    assert out == "Ana: I moved to Oslo.\n  [m2] Ana: I moved to Oslo.\n"
    assert "everything in it is in the bank already" in err
    code, out, err = infer("-q", "Where?", "--json")
    assert json.loads(out)["answer"] == "Ana: I moved to Oslo."
    code, out, _ = chat("/memory")
    assert out.splitlines() == ["  [m1] Ana: I live in Rome.", "  [m2] Ana: I moved to Oslo."]
    for part, options in {
        "no such file": ("--input", "none.jsonl"),
        "a dialogue is read from a file": ("--input", "-"),
        "no conversation 'tlk'; did you mean 'talk'": ("--input", "talk.jsonl", "--conversation", "tlk"),
    }.items():
        code, out, err = infer(*options)
        assert code == 2 and part in err and err.count("\n") == 1


def test_a_session_too_long_stops_with_a_line_and_is_gone_on_with(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lines = [
        json.dumps({"speaker": "Ana", "text": text, "session": n}) for n, text in enumerate(["a", "b " * 999])
    ]
    (here / "long.jsonl").write_text("\n".join(lines) + "\n")
    command = ["infer", "talk.yaml", "--input", "long.jsonl", "--show-memory"]
    for _ in range(2):
        assert run(command) == 2
        captured = capsys.readouterr()
        assert "session 'long/1'" in captured.err and "1 session before it in the bank" in captured.err
        assert texts() == ["Ana: a"]
    assert "going on after session 1 of 2" in captured.err
