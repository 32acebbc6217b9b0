"""The recipes for GPUs: their plan on small stand-ins for model and data, and what is said where there are no data."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from itertools import groupby
from pathlib import Path

import pytest

from memfactory import assets
from memfactory.cli.main import run
from memfactory.data.banks import BankWriter
from memfactory.data.dialogue import Memory
from memfactory.data.readers.longmemeval import longmemeval
from tests.docs.test_readme import hotpotqa_example, locomo_example
from tests.unit.data.test_longmemeval import record

RECIPES = [name for name in assets.recipe_names() if name.startswith("gpu/")]
#: Where recipes look for their data, and the command that the one line must name.
MISSING = {
    "gpu/memagent": "data/hotpotqa_long/train.parquet: no such data file; make it with: memfactory data make",
    "gpu/memory_r1": "data/locomo/locomo10.json: no such data file; get it with: memfactory data fetch locomo",
    "gpu/rmm_linear": "longmemeval_s_cleaned.json: no such data file; get it with: memfactory data fetch longmemeval s",
    "gpu/rmm_policy": "data/locomo/locomo10.json: no such data file; get it with: memfactory data fetch locomo",
}


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory, policy_folder: Path) -> Path:
    """A small policy that claims the context of the large ones: a plan reads no weights."""
    folder = tmp_path_factory.mktemp("model") / "claims"
    shutil.copytree(policy_folder, folder)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "max_position_embeddings": 32768}))
    return folder


@pytest.fixture(scope="module")
def with_data(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A working folder with a small file under each name that a recipe asks for, made as its head says."""
    folder = tmp_path_factory.mktemp("data")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        Path("hotpot.json").write_text(json.dumps([hotpotqa_example(number) for number in range(20)]))
        for name in ("train", "eval_50", "eval_100"):
            made = ["--paragraphs", "4", "--output", f"data/hotpotqa_long/{name}.parquet"]
            assert run(["data", "make", "hotpotqa-long", "--source", "hotpot.json", *made]) == 0
        Path("data/locomo").mkdir(parents=True)
        talks = [locomo_example(f"conv-{number}") for number in (26, 30, 41)]
        Path("data/locomo/locomo10.json").write_text(json.dumps(talks))
        chats = [record(f"q{number}") for number in range(260)]
        Path("longmemeval_s_cleaned.json").write_text(json.dumps(chats))
        banks = BankWriter(Path("banks.jsonl"), {})
        for name, tasks in groupby(longmemeval("longmemeval_s_cleaned.json"), lambda task: task.evidence.id):
            sessions = next(tasks).evidence.sessions
            banks.write(name, {session.id: (Memory("A plant was bought."),) for session in sessions})
        yield folder


@pytest.mark.parametrize("name", RECIPES)
def test_with_its_data_there_is_a_plan(
    name: str,
    model: Path,
    with_data: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(with_data)
    assert run(["train", name, "--dry-run", f"model.path={model}"]) == 0, capsys.readouterr().err
    out = capsys.readouterr().out
    assert "the plan, nothing was started" in out and "to train on" in out
    assert not (with_data / "runs").exists()


@pytest.mark.parametrize("name", RECIPES)
def test_without_its_data_one_line_says_what_to_do_and_the_estimate_needs_none(
    name: str,
    model: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    assert run(["train", name, "--dry-run", f"model.path={model}"]) == 2
    captured = capsys.readouterr()
    wanted = next(line for start, line in MISSING.items() if name.startswith(start))
    assert captured.out == "" and captured.err.count("\n") == 1
    assert captured.err.startswith(f"error: {wanted}")
    assert run(["train", name, "--dry-run", "--gpus", "8xH100-80G"]) == 0
    assert "an estimate, nothing was" in " ".join(capsys.readouterr().out.split())
