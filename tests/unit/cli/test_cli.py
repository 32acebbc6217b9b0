"""The command line: exit codes, one line for each mistake, and an answer to --help at once."""

from __future__ import annotations

import errno
import json
import os
import resource
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from memfactory.cli import running
from memfactory.cli.main import run
from memfactory.core.errors import BadInput, DiskError, ServiceError, UserError
from memfactory.inference.options import InferOptions

HEAVY = ("torch", "transformers", "vllm", "hydra", "omegaconf", "datasets", "deepspeed", "numpy", "yaml")


@pytest.fixture(autouse=True)
def somewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


NOTHING_BUT_HELP = """
import typer
app = typer.Typer()
for name in ("one", "two"):
    app.command(name)(lambda: None)
app(["--help"])
"""


def test_help_answers_at_once_and_imports_nothing_heavy() -> None:
    code = (
        "import sys; from memfactory.cli.main import run; run(['--help'])\n"
        f"print([m for m in {HEAVY} if m in sys.modules])"
    )
    ours, least = [], []
    for _ in range(3):
        taken, shown = _processor_seconds(code)
        ours.append(taken)
        least.append(_processor_seconds(NOTHING_BUT_HELP)[0])
    assert "train" in shown
    assert shown.splitlines()[-1] == "[]"
    # A machine's speed and what else it does say nothing: an app of the same library without a command of substance
    # is the measure. It takes about three quarters of ours.
    assert min(ours) < 2 * min(least)


def _processor_seconds(code: str) -> tuple[float, str]:
    began = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    ended = resource.getrusage(resource.RUSAGE_CHILDREN)
    return ended.ru_utime + ended.ru_stime - began.ru_utime - began.ru_stime, done.stdout


@pytest.mark.parametrize(
    ("arguments", "code", "parts"),
    [
        (["train", "memagnt"], 2, ["memagnt", "did you mean 'memagent'"]),
        (["train", "memagent", "trainer.stps=2"], 2, ["trainer.stps", "did you mean 'steps'"]),
        (["train", "memagent", "--dryrun"], 2, ["--dryrun", "--dry-run"]),
        (["trian", "memagent"], 2, ["trian", "train"]),
        (["train"], 2, ["RECIPE"]),
        (["infer", "memagent"], 2, ["--input"]),
        (["infer", "memagent", "--input", "-"], 2, ["--question"]),
        (["infer", "memagent", "--input", "no.txt", "--question", "Who?"], 2, ["no.txt", "no such file"]),
        (["infer", "memagent", "--tasks", "no.jsonl"], 2, ["no.jsonl", "no such file"]),
        (["infer", "memagent", "--tasks", "x.jsonl", "--question", "Who?"], 2, ["--tasks"]),
        (["components", "rewrad"], 2, ["rewrad", "did you mean 'reward'"]),
        (["components", "reward", "fl"], 2, ["fl", "did you mean 'f1'"]),
        (["data", "make", "facts"], 2, ["--output"]),
        (["data", "make", "facts", "--output", "x.jsonl", "--count", "0"], 2, ["--count"]),
        (["data", "check", "jsnl", "x"], 2, ["jsnl", "did you mean 'jsonl'"]),
    ],
)
def test_a_mistake_is_one_line_on_stderr(
    capsys: pytest.CaptureFixture[str], arguments: Sequence[str], code: int, parts: Sequence[str]
) -> None:
    assert run(arguments) == code
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("error: ")
    assert err.count("\n") == 1
    for part in parts:
        assert part in err


@pytest.mark.parametrize(
    ("error", "code", "text"),
    [
        (BadInput("a\nb"), 2, "error: a b\n"),
        (ServiceError("gone"), 1, "error: gone\n"),
        (UserError("x"), 1, "error: x\n"),
        (DiskError("full"), 1, "error: full\n"),
        (KeyboardInterrupt(), 130, ""),
        (OSError(errno.ENOSPC, "No space left on device", "/x/y"), 1, "error: /x/y: the disk is full"),
    ],
)
def test_errors_of_a_command_become_exit_codes(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    error: BaseException,
    code: int,
    text: str,
) -> None:
    def fail(*arguments: Any) -> int:
        raise error

    monkeypatch.setattr(running, "_run", fail)
    assert run(["train", "memagent"]) == code
    assert text in capsys.readouterr().err


def test_a_bug_keeps_its_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*arguments: Any) -> int:
        raise RuntimeError("a bug")

    monkeypatch.setattr(running, "_run", fail)
    with pytest.raises(RuntimeError, match="a bug"):
        run(["train", "memagent"])


@pytest.mark.parametrize("code", [0, 1, 130])
def test_what_a_command_returns_is_the_exit_code(monkeypatch: pytest.MonkeyPatch, code: int) -> None:
    monkeypatch.setattr(running, "_run", lambda *arguments: code)
    assert run(["train", "memagent"]) == code


def test_options_reach_the_commands(monkeypatch: pytest.MonkeyPatch, somewhere: Path) -> None:
    import memfactory.commands.infer as command

    seen: list[Any] = []

    def infer(recipe: Any, options: InferOptions, *consoles: Any) -> int:
        seen.extend([recipe, options])
        return 0

    monkeypatch.setattr(command, "infer", infer)
    (somewhere / "book.txt").write_text("text")
    arguments = ["--input", "book.txt", "--question", "Who?", "-q", "Where?", "--show-memory", "--json"]
    assert run(["infer", "memagent", "sampler=hf", *arguments, "--output-dir", "out"]) == 0
    recipe, options = seen
    assert recipe.schema.sampler["type"] == "hf"
    assert recipe.schema.output_dir == "out"
    assert options == InferOptions("book.txt", ("Who?", "Where?"), show_memory=True, json=True)


def test_print_config_shows_values_and_where_they_come_from(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["train", "memagent_smollm2", "trainer.steps=2", "--print-config", "--output-dir", "o"]) == 0
    out = capsys.readouterr().out
    assert "  steps: 2  # from command line" in out
    assert "  path: smollm2  # from configs/model/smollm2.yaml" in out
    assert "    path: ???  # from configs/data/hotpotqa.yaml" in out


def test_listings_have_one_line_each(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["recipes"]) == 0
    assert any(line.startswith("gpu/memagent_qwen3_1.7b  ") for line in capsys.readouterr().out.splitlines())
    assert run(["components"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert any(line.split()[:2] == ["sampler", "vllm"] for line in lines)
    assert run(["components", "agent", "memagent"]) == 0
    assert "block_tokens: AtLeastOne = 5000" in capsys.readouterr().out
    assert run(["--version"]) == 0
    assert capsys.readouterr().out.startswith("memfactory ")


def test_data_are_made_and_checked(capsys: pytest.CaptureFixture[str], somewhere: Path) -> None:
    made = ["data", "make", "facts", "--output", "f.jsonl", "--count", "3", "--sections", "2"]
    Path("f.jsonl").write_text("mine")
    assert run(made) == 1 and Path("f.jsonl").read_text() == "mine"
    assert (
        "f.jsonl: is there already; choose another --output, or replace it with --force"
        in capsys.readouterr().err
    )
    assert run([*made, "--force"]) == 0
    assert "3 tasks" in capsys.readouterr().out
    assert len((somewhere / "f.jsonl").read_text().splitlines()) == 3
    assert run(["data", "check", "jsonl", "f.jsonl"]) == 0
    (somewhere / "bad.jsonl").write_text(json.dumps({"question": "q"}) + "\nnot json\n")
    assert run(["data", "check", "jsonl", "bad.jsonl"]) == 2
    assert "bad.jsonl" in capsys.readouterr().err


def test_a_reader_that_goes_away_is_no_traceback(tmp_path: Path) -> None:
    source = f"{sys.executable} -m memfactory train memagent --print-config | true"
    done = subprocess.run(["bash", "-c", source], capture_output=True, text=True, env=dict(os.environ))
    assert "Traceback" not in done.stderr
