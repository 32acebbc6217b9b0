"""The linear reranker through the whole command: it learns, its run resumes bit for bit, and what it learned serves."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch

from memfactory.cli.main import run

SMALL = (
    "agent.retriever.embedder={type: hashing_for_tests}",
    "~agent.retriever.embedder.cache_path",
    "agent.reranker.lr=0.01",
    "agent.top_k=12",
    "agent.top_m=3",
    *(f"data.{part}.sessions=2" for part in ("train", "eval.heldout")),
    *(f"data.{part}.turns_per_session=6" for part in ("train", "eval.heldout")),
    "data.eval.heldout.size=40",
    "reward.recall_at_5.top=3",
    "trainer.steps=12",
    "trainer.save_every=3",
    "trainer.keep_last=9",
)


def maps(folder: Path) -> list[torch.Tensor]:
    state = torch.load(folder / "components" / "reranker" / "reranker.pt", weights_only=True)
    found: list[torch.Tensor] = state["maps"]
    return found


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("rmm") / "whole"
    assert run(["train", "rmm", "--output-dir", str(folder), *SMALL]) == 0
    return folder


def test_recall_rises_and_the_summary_says_so(finished: Path) -> None:
    summary = json.loads((finished / "summary.json").read_text())
    before, after = (summary["rewards"][label]["heldout"] for label in ("before", "after"))
    assert before["recall_at_5"] < after["recall_at_5"] - 0.15
    assert (
        summary["after"]["heldout"] == after["answer"] == after["recall_at_5"]
    )  # the reader answers what it is shown
    assert "heldout: reward recall_at_5" in (finished / "report.md").read_text()
    assert (finished / "reward.png").exists() and not list(finished.glob("final/*.safetensors"))
    record = json.loads((finished / "metrics.jsonl").read_text().splitlines()[-1])
    assert record["rows"] == 0 and record["reranker/draws"] == 32.0


def test_a_killed_run_ends_in_the_same_state(finished: Path, tmp_path: Path) -> None:
    """A kill in the fifth step leaves the checkpoint of the third; everything after it is made again."""
    killed = tmp_path / "killed"
    shutil.copytree(finished, killed)
    for gone in ("final", "checkpoints/step-12", "checkpoints/step-9", "checkpoints/step-6"):
        shutil.rmtree(killed / gone)
    for gone in ("summary.json", "evaluation/after.json"):
        (killed / gone).unlink()
    assert run(["train", "rmm", "--output-dir", str(killed), *SMALL]) == 0
    for mine, theirs in zip(maps(killed / "final"), maps(finished / "final"), strict=True):
        assert torch.equal(mine, theirs)
    old, new = (json.loads((path / "summary.json").read_text()) for path in (finished, killed))
    assert {**old, "seconds": 0} == {**new, "seconds": 0}


def test_a_trained_one_serves_in_eval(
    finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = f"agent.reranker.path={finished / 'final' / 'components' / 'reranker'}"
    assert run(["eval", "rmm", "--output-dir", str(tmp_path / "eval"), *SMALL, path]) == 0
    (file,) = (tmp_path / "eval" / "eval").glob("*.json")
    result = json.loads(file.read_text())["results"][0]
    summary = json.loads((finished / "summary.json").read_text())
    assert result["rewards"]["recall_at_5"]["mean"] == pytest.approx(
        summary["rewards"]["after"]["heldout"]["recall_at_5"], abs=1e-4
    )
    missing = run(
        ["eval", "rmm", "--output-dir", str(tmp_path / "none"), *SMALL, f"agent.reranker.path={tmp_path}"]
    )
    assert missing == 2 and "holds no trained reranker" in capsys.readouterr().err
