"""Which failure of which rank is shown, and when ranks are launched or joined."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from memfactory.core.errors import BadInput, ParityError, UserError
from memfactory.training import launch
from memfactory.training.launch import Failure, Layout, as_rank, describe, on_ranks


def record(error: Exception, folder: Path, rank: int, monkeypatch: pytest.MonkeyPatch) -> Failure:
    """The failure that a rank leaves behind when it raises `error`."""
    path = folder / f"{rank}.json"
    monkeypatch.setenv("TORCHELASTIC_ERROR_FILE", str(path))
    left: list[int] = []

    def leave(code: int) -> None:
        left.append(code)
        raise SystemExit(code)  # where the process would have ended

    monkeypatch.setattr(launch.os, "_exit", leave)
    with pytest.raises(SystemExit), as_rank(rank):
        raise error
    assert left == [getattr(error, "exit_code", 1)]
    value = json.loads(path.read_text())
    assert int(value["message"]["extraInfo"]["timestamp"]) > 0  # what torch's own launchers read
    kept = value["memfactory"]
    return Failure(rank, kept["exit_code"], kept["at"], kept)


def test_the_cause_comes_first_even_if_seen_last(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lost = record(RuntimeError("Gloo: Connection closed by peer [127.0.0.1]"), tmp_path, 0, monkeypatch)
    bug = record(ZeroDivisionError("a bug"), tmp_path, 1, monkeypatch)
    text, code = describe([lost, bug])
    assert code == 1
    assert text.startswith("Traceback") and text.endswith("error: rank 1: ZeroDivisionError: a bug")
    assert "Gloo" not in text


def test_a_users_error_is_one_line_with_its_exit_code(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    both = [record(BadInput("data.train: no\n  such file"), tmp_path, rank, monkeypatch) for rank in (0, 1)]
    assert describe(both) == ("error: data.train: no such file", 2)
    parity = record(ParityError("they disagree"), tmp_path, 2, monkeypatch)
    assert describe([parity]) == ("error: rank 2: they disagree", 1)
    assert issubclass(ParityError, UserError)


def test_a_killed_rank_is_named_before_those_that_lost_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lost = record(RuntimeError("[gloo] Connection reset by peer"), tmp_path, 0, monkeypatch)
    text, code = describe([lost, Failure(1, -9, lost.at + 1)])
    assert code == 1
    assert "rank 1 was killed by SIGKILL" in text and "memory" in text and "same command" in text
    assert "\n" not in text


def test_a_rank_that_the_launcher_ended_is_not_the_cause(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wrong = record(BadInput("learner.lr: no"), tmp_path, 1, monkeypatch)
    assert describe([Failure(0, -15, wrong.at - 0.5), wrong]) == ("error: learner.lr: no", 2)


def test_a_rank_without_a_record_shows_its_last_words() -> None:
    words = "\n".join(f"line {number}" for number in range(50))
    text, _ = describe([Failure(3, 7, 0.0, None, words)])
    assert "line 49" in text and "line 10" not in text
    assert text.endswith("rank 3 ended with exit code 7; run the same command again to go on")


@pytest.mark.parametrize(
    ("layout", "telling"),
    [({"nodes": 2}, "--master-addr"), ({"nodes": 2, "node_rank": 2, "master_addr": "a"}, "--node-rank 2")],
)
def test_impossible_layouts_are_refused(layout: dict[str, Any], telling: str) -> None:
    with pytest.raises(BadInput, match=telling):
        Layout(**layout)


TORCHRUN = {"RANK": "0", "WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2", "MASTER_ADDR": "a", "MASTER_PORT": "1"}
SRUN = {
    "SLURM_PROCID": "0",
    "SLURM_STEP_NUM_TASKS": "2",
    "SLURM_LOCALID": "0",
    "SLURM_STEP_TASKS_PER_NODE": "1(x2)",
    "SLURM_STEP_NODELIST": "n[1-2]",
    "SLURM_JOB_ID": "1",
}
TWO_NODES = {"nodes": 2, "master_addr": "a"}


@pytest.mark.parametrize(
    ("layout", "environment", "launches"),
    [
        ({}, {}, False),
        ({"nproc": 2}, {}, True),
        ({"nproc": 1, **TWO_NODES}, {}, True),
        ({"nproc": 2}, TORCHRUN, False),
        ({}, SRUN, False),
        ({"nproc": 8, **TWO_NODES}, SRUN, True),
        ({"nproc": 8}, {**SRUN, "SLURM_STEP_TASKS_PER_NODE": "2"}, False),
    ],
    ids=str,
)
def test_launched_only_where_nobody_launched(
    layout: dict[str, Any], environment: dict[str, str], launches: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    import memfactory.core.ranks as core

    done: list[str] = []
    monkeypatch.setattr(launch, "launch", lambda arguments, layout: done.append(f"launch {arguments}") or 0)
    monkeypatch.setattr(core, "join_ranks", lambda environment: core.ALONE)
    code = on_ranks(Layout(**layout), ["train", "x"], lambda ranks: done.append("work") or 0, environment)
    assert code == 0
    assert done == (["launch ['train', 'x']"] if launches else ["work"])
