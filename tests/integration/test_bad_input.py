"""Whatever the user gets wrong is one line that says where, an exit code, and nothing half-written."""

from __future__ import annotations

import gzip
import json
import os
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

import pytest

from memfactory.cli.main import run
from tests.integration.launching import fingerprint, launch
from tests.integration.projects import write_project

GOOD_TASK = {"question": "Who?", "text": "Ann did.", "answers": ["Ann"]}


@pytest.fixture
def recipe(tmp_path: Path, policy_folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return write_project(tmp_path / "project", policy_folder, plugin=False)


def refused(
    capsys: pytest.CaptureFixture[str], arguments: Sequence[object], code: int = 2, output: Path | None = None
) -> str:
    """Run the command line; check exit code and that there is one line; return it."""
    capsys.readouterr()
    assert run([str(argument) for argument in arguments]) == code
    lines = [line for line in capsys.readouterr().err.splitlines() if line.strip()]
    assert len(lines) == 1, lines
    assert lines[0].startswith("error: ")
    assert not Path(output or "out").exists()
    return lines[0]


@pytest.mark.parametrize(
    ("override", "says"),
    [
        ("trainer.stepz=3", ["trainer.stepz", "did you mean 'steps'?"]),
        ("trainr.steps=3", ["trainr", "did you mean 'trainer'?"]),
        ("trainer.steps=many", ["trainer.steps", "many"]),
        ("trainer.steps=0", ["trainer.steps"]),
        ("algorithm.loss=gsop", ["algorithm.loss", "gspo"]),
        ("sampler.type=vlm", ["sampler", "'vlm'", "did you mean 'vllm'?"]),
        ("sampler=hff", ["sampler", "hff", "'hf'"]),
        ("reward.letters.type=exct_match", ["reward.letters", "did you mean 'exact_match'?"]),
        ("agent.block_tokens=0", ["agent", "block_tokens"]),
        ("agent.blok_tokens=3", ["agent", "did you mean 'block_tokens'?"]),
        ("data.train.path=x", ["data.train.path"]),
        ("model.path=nowhere/model", ["nowhere/model"]),
        ("model.max_model_len=100000", ["model.max_model_len", "1024"]),
        ("prompts.update=nothing", ["prompts.update", "{question}"]),
        ("learner.schedule=sinus", ["schedule", "sinus"]),
        ("plugins=[missing.py]", ["missing.py"]),
    ],
)
@pytest.mark.parametrize("command", ["train", "eval"])
def test_a_mistake_in_the_recipe(
    command: str,
    override: str,
    says: list[str],
    recipe: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    if command == "eval" and override.startswith("learner"):
        pytest.skip("eval has no learner")
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    line = refused(capsys, [command, recipe, "-o", "out", override], code=1 if "nowhere/" in override else 2)
    for part in says:
        assert part in line


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (None, "no such data file"),
        ("", "the file is empty"),
        ("\n\n", ":1: "),
        (json.dumps(GOOD_TASK) + "\n{broken\n", ":2: not valid JSON"),
        (json.dumps(GOOD_TASK) + "\n\n" + json.dumps(GOOD_TASK) + "\n", ":2: empty line"),
        (json.dumps(GOOD_TASK) + "\n[1]\n", ":2: expected an object"),
        (
            json.dumps(GOOD_TASK) + '\n{"question": "q", "text": "t", "anwsers": ["a"]}\n',
            ":2: no field 'answers'",
        ),
        (
            json.dumps(GOOD_TASK) + '\n{"question": 3, "text": "t", "answers": ["a"]}\n',
            ":2: field 'question'",
        ),
        (json.dumps(GOOD_TASK) + '\n{"question": "q", "text": "t", "answers": []}\n', ":2: no gold answer"),
        ('{"id": 1, "question": "q", "text": "t", "answers": "a"}\n' * 2, ":2: id '1' was used before"),
        (b"caf\xe9 broken", ":1: not UTF-8"),
        (gzip.compress(b'{"question": "q"', mtime=0)[:-6], "gzip"),
    ],
)
@pytest.mark.parametrize("command", ["train", "eval", "infer"])
def test_a_mistake_in_a_data_file(
    command: str, content: str | bytes | None, says: str, recipe: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = Path("tasks.jsonl.gz" if says == "gzip" else "tasks.jsonl")
    if content is not None:
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
    source = f"{{type: jsonl, path: {path}}}"
    if command == "infer":
        if says in ("no such data file", ":2: no gold answer", ":2: no field 'answers'"):
            pytest.skip("said otherwise, or no mistake for infer")
        arguments = ["infer", recipe, "--tasks", path, "--output", "answers.jsonl"]
    elif command == "train":
        arguments = ["train", recipe, "-o", "out", "~data.train", f"+data.train={source}"]
    else:
        arguments = ["eval", recipe, "-o", "out", "~data.eval", f"+data.eval.mine={source}"]
    line = refused(capsys, arguments)
    assert says in line
    assert path.name in line
    assert not Path("answers.jsonl").exists()


@pytest.mark.parametrize(
    ("damage", "says"),
    [
        (["tokenizer.json", "tokenizer_config.json"], "no tokenizer"),
        (["model.safetensors"], "no weights"),
        (["config.json"], "no config.json"),
    ],
)
@pytest.mark.parametrize("command", ["train", "eval", "infer"])
def test_a_model_folder_that_lacks_something(
    command: str,
    damage: list[str],
    says: str,
    recipe: Path,
    policy_folder: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    shutil.copytree(policy_folder, "broken")
    for name in damage:
        (Path("broken") / name).unlink()
    Path("book.txt").write_text("text")
    extra = ["--input", "book.txt", "--question", "Who?"] if command == "infer" else ["-o", "out"]
    line = refused(capsys, [command, recipe, *extra, "model.path=broken"])
    assert says in line and "broken" in line


def test_weights_that_are_cut_off(
    recipe: Path, policy_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(policy_folder, "broken")
    with open("broken/model.safetensors", "r+b") as file:
        file.truncate(5000)
    line = refused(capsys, ["train", recipe, "-o", "out", "model.path=broken"])
    assert "broken" in line


@pytest.mark.parametrize("command", ["eval", "infer"])
def test_a_server_that_cannot_be_reached(
    command: str, recipe: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("book.txt").write_text("Ann did it.")
    extra = ["--input", "book.txt", "--question", "Who?"] if command == "infer" else ["-o", "out"]
    server = [
        "sampler=openai",
        "sampler.base_url=http://127.0.0.1:9/v1",
        "sampler.max_retries=0",
        "sampler.model=m",
    ]
    line = refused(capsys, [command, recipe, *extra, *server], code=1)
    assert "http://127.0.0.1:9/v1 cannot be reached" in line


def test_a_server_cannot_be_trained(recipe: Path, capsys: pytest.CaptureFixture[str]) -> None:
    capsys.readouterr()
    assert run(["train", str(recipe), "-o", "out", "sampler=openai"]) == 2
    error = capsys.readouterr().err
    assert len(error.splitlines()) == 1 and "cannot take weights; use sampler=vllm or sampler=hf" in error


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ([], "--input"),
        (["--input", "book.txt"], "--question"),
        (["--input", "none.txt", "--question", "q"], "none.txt: no such file"),
        (["--input", ".", "--question", "q"], "."),
        (["--input", "latin1.txt", "--question", "q"], "latin1.txt: not UTF-8 text (byte 3)"),
        (["--input", "book.txt", "--tasks", "tasks.jsonl", "--question", "q"], "--tasks"),
        (["--tasks", "none.jsonl"], "none.jsonl"),
        (["--tasks", "tasks.jsonl", "--output", "book.txt"], "book.txt: exists and does not hold answers"),
        (
            ["--tasks", "tasks.jsonl", "--output", "tasks.jsonl"],
            "tasks.jsonl: exists and does not hold answers",
        ),
        (["--tasks", "tasks.jsonl", "--output", "."], "choose another --output"),
        (["--tasks", "tasks.jsonl", "--output", "book.txt/answers.jsonl"], "book.txt"),
    ],
)
def test_a_mistake_in_what_infer_is_asked(
    arguments: list[str], says: str, recipe: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("book.txt").write_text("a text without a newline at its end")
    Path("latin1.txt").write_bytes(b"caf\xe9")
    Path("tasks.jsonl").write_text(json.dumps({"id": "a", **GOOD_TASK}) + "\n")
    before = {path.name: path.read_bytes() for path in Path().iterdir() if path.is_file()}
    code = 1 if "book.txt/" in str(arguments) else 2
    assert says in refused(capsys, ["infer", recipe, *arguments], code=code)
    assert {path.name: path.read_bytes() for path in Path().iterdir() if path.is_file()} == before


def test_a_question_longer_than_a_block(recipe: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Path("book.txt").write_text("Ann did it.")
    line = refused(capsys, ["infer", recipe, "--input", "book.txt", "--question", "why " * 300], code=1)
    assert "the question has" in line and "agent.block_tokens=40" in line


@pytest.mark.parametrize("command", ["train", "eval"])
def test_an_output_folder_that_cannot_be_made(
    command: str, recipe: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("taken").write_text("a file")
    capsys.readouterr()
    assert run([command, str(recipe), "-o", "taken/run"]) == 1
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1 and "taken" in lines[0] and "--output-dir" in lines[0]
    assert Path("taken").read_text() == "a file"


@pytest.mark.parametrize("command", ["train", "eval", "infer"])
def test_a_dry_run_writes_nothing(command: str, recipe: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Path("book.txt").write_text("Ann did it.")
    before = sorted(Path().rglob("*"))
    extra = ["--input", "book.txt", "--question", "Who?"] if command == "infer" else []
    assert run([command, str(recipe), "-o", "out", "--dry-run", "sampler=vllm", *extra]) == 0
    out = capsys.readouterr().out
    assert "nothing was started" in out and "parameters" in out
    assert [path for path in sorted(Path().rglob("*")) if "__pycache__" not in str(path)] == before


@pytest.mark.parametrize(
    "where",
    [
        "/recipe.yaml",
        "evaluation/before.json",
        "rollouts/step-2.jsonl",
        "step-2.*.partial/policy/model.safetensors",
        "step-3.*.partial",
        "/final.*.partial",
        "/report.md",
    ],
)
def test_a_full_disk_is_one_line_and_the_run_goes_on_when_there_is_room(
    where: str, tmp_path: Path, learning_recipe: Path, whole_run: dict[str, object]
) -> None:
    command = ["train", str(learning_recipe), "-o", str(tmp_path / "run")]
    full = launch(command, tmp_path, full_disk=where)
    assert full.code == 1, full.err
    assert len(full.error_lines) == 1, full.err
    assert "the disk is full" in full.err and str(tmp_path / "run") in full.err
    assert not list((tmp_path / "run").rglob("*.partial"))
    again = launch(command, tmp_path)
    assert again.code == 0, again.err
    assert fingerprint(tmp_path / "run") == whole_run


@pytest.fixture(scope="module")
def learning_recipe(tmp_path_factory: pytest.TempPathFactory, policy_folder: Path) -> Path:
    """Weights really change under this one; it has a plugin, so it is for processes of their own."""
    return write_project(tmp_path_factory.mktemp("project"), policy_folder)


@pytest.fixture(scope="module")
def whole_run(tmp_path_factory: pytest.TempPathFactory, learning_recipe: Path) -> dict[str, object]:
    folder = tmp_path_factory.mktemp("whole")
    assert launch(["train", str(learning_recipe), "-o", str(folder / "run")], folder).code == 0
    return fingerprint(folder / "run")


@pytest.mark.skipif(os.geteuid() != 0, reason="mounts a small file system")
def test_a_disk_that_is_really_full(
    tmp_path: Path, learning_recipe: Path, whole_run: dict[str, object]
) -> None:
    """A file system of a few hundred KB: weights do not fit; a bigger one later, and the run goes on."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=300k", "tmpfs", str(disk)]
    if subprocess.run(mount, check=False, capture_output=True).returncode != 0:
        pytest.skip("cannot mount here")
    try:
        command = ["train", str(learning_recipe), "-o", str(disk / "run")]
        full = launch(command, tmp_path)
        assert full.code == 1
        assert len(full.error_lines) == 1, full.err
        assert "full" in full.err or "No space left" in full.err
        subprocess.run(["mount", "-o", "remount,size=200M", str(disk)], check=True)
        again = launch(command, tmp_path)
        assert again.code == 0, again.err
        assert fingerprint(disk / "run") == whole_run
    finally:
        subprocess.run(["umount", str(disk)], check=True)
