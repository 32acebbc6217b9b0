"""The linear reranker through the whole command: it learns, its run resumes bit for bit, and what it learned serves.

It also learns while it serves: what it learned lies beside the bank, survives a kill, and belongs to that bank.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from memfactory.cli.main import run
from memfactory.core.types import Task
from memfactory.data.dialogue import Dialogue
from memfactory.data.synthetic.reranking import make_reranking_task
from memfactory.learners.linear_reranker import LinearReranker
from tests.integration.launching import Strike, launch

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


def test_beside_the_update_it_learns_the_same(finished: Path, tmp_path: Path) -> None:
    """Only the policy's rollouts can be stale: the reranker that draws has always learned from all draws before.

    Killed with a batch ahead: the checkpoint has the reranker that has learned from it, and does not again.
    """
    ahead = ["trainer.max_staleness=1", "algorithm.tis_cap=2", "trainer.eval_before=false"]
    command = ["train", "rmm", "--output-dir", str(tmp_path / "run"), *SMALL, *ahead]
    killed = launch(command, tmp_path / "log", Strike("metrics", "step-8"))
    assert killed.code == -9, killed.err
    (newest,) = (tmp_path / "run" / "checkpoints").glob("step-6")
    assert (newest / "ahead.json").exists()
    assert run(command) == 0
    for mine, theirs in zip(maps(tmp_path / "run" / "final"), maps(finished / "final"), strict=True):
        # The killed process had as many threads as it liked, which decides the last bits; a step moves them by 1e-2.
        torch.testing.assert_close(mine, theirs, rtol=0, atol=1e-4)


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


# -- while it serves -------------------------------------------------------------------------------------------------

QUESTIONS = 3


def asked(index: int) -> Task:
    return make_reranking_task(index, seed=7, split="heldout", sessions=2, turns_per_session=6, asides=5)


def serving(folder: Path, bank: str, task: Task, *overrides: str) -> list[str]:
    """Arguments that read the task's dialogue into `bank`, if it is not there yet, and ask its question."""
    assert isinstance(task.evidence, Dialogue)
    file = folder / f"{task.id.replace('/', '-')}.jsonl"
    turns = [(turn, n) for n, session in enumerate(task.evidence.sessions) for turn in session.turns]
    said = [{"speaker": turn.speaker, "text": turn.text, "session": n} for turn, n in turns]
    file.write_text("".join(json.dumps(line) + "\n" for line in said))
    command = [
        "infer",
        "rmm",
        "--bank",
        str(folder / bank),
        "--input",
        str(file),
        "-q",
        task.question,
        "--json",
    ]
    return [*command, *SERVED, *overrides]


#: Of the settings above, those of the agent.
SERVED = tuple(setting for setting in SMALL if setting.startswith(("agent.", "~agent.")))
ONLINE = "agent.reranker.online=true"


@pytest.fixture
def infer(capsys: pytest.CaptureFixture[str]) -> Callable[..., Any]:
    """Ask as `serving` says; the result."""

    def ask(*arguments: Any) -> Any:
        capsys.readouterr()
        assert run(serving(*arguments)) == 0
        captured = capsys.readouterr()
        ask.said = captured.err  # type: ignore[attr-defined]
        return json.loads(captured.out)

    return ask


def learned(bank: Path) -> tuple[int, list[torch.Tensor]]:
    """How often the reranker of a bank has learned, and its maps."""
    state = torch.load(bank / "components" / "reranker" / "reranker.pt", weights_only=True)
    return state["updates"], state["maps"]


def test_what_is_learned_online_is_the_banks_and_survives_kills(
    tmp_path: Path, infer: Callable[..., Any]
) -> None:
    tasks = [asked(index) for index in range(QUESTIONS)]
    answers = [infer(tmp_path, "whole", task, ONLINE)["retrieved"] for task in tasks]
    updates, whole = learned(tmp_path / "whole")
    assert updates == QUESTIONS and all(w.abs().max() > 0 for w in whole)

    assert infer(tmp_path, "killed", tasks[0], ONLINE)["retrieved"] == answers[0]
    strike = Strike("replace", "reranker.pt")  # the answer is learned from, and not yet on the disk
    killed = launch(serving(tmp_path, "killed", tasks[1], ONLINE), tmp_path / "log", strike)
    assert killed.code == -9, killed.err
    assert learned(tmp_path / "killed")[0] == 1, "the state of the first answer, whole"
    again = [infer(tmp_path, "killed", task, ONLINE)["retrieved"] for task in tasks[1:]]
    assert again == answers[1:], "it draws as if it had never been killed"
    updates, maps_after = learned(tmp_path / "killed")
    assert updates == QUESTIONS
    assert all(torch.equal(mine, theirs) for mine, theirs in zip(maps_after, whole, strict=True))

    infer(
        tmp_path, "killed", tasks[0]
    )  # without online=true it serves with what it learned, and learns no more
    assert learned(tmp_path / "killed")[0] == QUESTIONS


def test_a_bank_is_served_by_its_own_reranker(
    finished: Path, tmp_path: Path, infer: Callable[..., Any]
) -> None:
    """A question that plain retrieval cannot answer, and a trained reranker beside the bank can."""
    task, answer = asked(0), asked(0).answers[0]
    assert infer(tmp_path, "bank", task)["answer"] != answer
    assert "goes on" not in infer.said  # type: ignore[attr-defined]
    shutil.copytree(finished / "final" / "components", tmp_path / "bank" / "components")
    assert infer(tmp_path, "bank", task)["answer"] == answer
    assert "The reranker goes on from what it learned here; without " in infer.said  # type: ignore[attr-defined]
    assert infer(tmp_path, "other", task)["answer"] != answer, "another bank has a reranker of its own"


@pytest.mark.parametrize("place", ["beside the bank", "named by path"])
def test_a_reranker_of_another_embedder_is_one_line(
    place: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = LinearReranker()
    other._begin(32)
    folder = tmp_path / ("bank/components/reranker" if place == "beside the bank" else "other")
    task = asked(0)
    assert run(serving(tmp_path, "bank", task)) == 0
    folder.mkdir(parents=True)
    other.save_state(folder)
    capsys.readouterr()
    named = [f"agent.reranker.path={folder}"] if place == "named by path" else []
    before = (folder / "reranker.pt").read_bytes()
    assert run(serving(tmp_path, "bank", task, ONLINE, *named)) == 2
    captured = capsys.readouterr()
    lines = [line for line in captured.err.splitlines() if line.startswith("error: ")]
    assert captured.out == "" and len(lines) == 1 and "Traceback" not in captured.err
    assert "reranker.pt" in lines[0], "the file is named"
    assert "trained on embeddings of 32 numbers" in lines[0] and "use the embedder" in lines[0]
    assert (folder / "reranker.pt").read_bytes() == before, "nothing is written over it"
