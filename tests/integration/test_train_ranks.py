"""`memfactory train --nproc 2`: the run of one process, elastic checkpoints, and every way to be killed."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest
from safetensors.torch import load_file

from tests.integration.launching import Strike, launch
from tests.integration.projects import write_project
from tests.integration.test_quickstart import STEPS

#: The reward of `projects`, which on demand waits once a checkpoint is there, or fails on one rank.
PLUGIN = '''
import os
import time
from dataclasses import dataclass
from pathlib import Path

from memfactory.core.registry import register


@register("reward", "letters")
@dataclass(frozen=True)
class Letters:
    """Share of the letter e in all replies of a rollout."""

    async def __call__(self, rollout):
        if Path(os.environ.get("HOLD_AFTER", "/nowhere")).exists():
            Path(os.environ["HOLD_AFTER"] + f".held-{os.environ.get('RANK', 0)}").touch()
            time.sleep(600)
        if os.environ.get("FAIL_ON_RANK") == os.environ.get("RANK", "0"):
            raise ZeroDivisionError("a bug in a reward")
        text = "".join(call.text for call in rollout.calls)
        return text.count("e") / max(len(text), 1)
'''


class Started:
    """A command in a process of its own."""

    def __init__(self, arguments: list[str], program: list[str] | None = None, **environment: str) -> None:
        self.process = subprocess.Popen(
            [*(program or [sys.executable]), "-m", "memfactory", *arguments],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, "OMP_NUM_THREADS": "1", **environment},
        )
        self.out = self.err = ""

    def wait_for(self, condition: Callable[[], Any], seconds: float = 240) -> None:
        end = time.monotonic() + seconds
        while not condition():
            if self.process.poll() is not None:
                raise AssertionError(
                    f"ended with {self.process.returncode}:\n{self.process.communicate()[1]}"
                )
            assert time.monotonic() < end, "it never came"
            time.sleep(0.02)

    def ranks(self) -> list[psutil.Process]:
        return psutil.Process(self.process.pid).children()

    def end(self, seconds: float = 240) -> int:
        self.out, self.err = self.process.communicate(timeout=seconds)
        return self.process.returncode


def finish(arguments: list[str], program: list[str] | None = None) -> Started:
    run = Started(arguments, program)
    assert run.end() == 0, run.err
    return run


def none_left(processes: list[psutil.Process], seconds: float = 20) -> bool:
    _, alive = psutil.wait_procs(processes, timeout=seconds)
    return not [p for p in alive if p.is_running() and p.status() != psutil.STATUS_ZOMBIE]


def metrics(run: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


def difference(one: Path, other: Path) -> float:
    """The largest difference of the trained weights."""
    a, b = (load_file(run / "final" / "model.safetensors") for run in (one, other))
    assert a.keys() == b.keys()
    return max((a[name] - b[name]).abs().max().item() for name in a)


@pytest.fixture(scope="module")
def recipe(tmp_path_factory: pytest.TempPathFactory, policy_folder: Path) -> Path:
    folder = tmp_path_factory.mktemp("project")
    path = write_project(folder, policy_folder)
    (folder / "plugin.py").write_text(PLUGIN)
    return path


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory, recipe: Path) -> Path:
    """The same recipe trained by one process, with the local learner."""
    run = tmp_path_factory.mktemp("alone") / "run"
    ended = launch(["train", str(recipe), "-o", str(run)], run.parent / "log")
    assert ended.code == 0, ended.err
    return run


def same_end(run: Path, alone: Path) -> None:
    """Same rollouts and, to rounding, the same losses and weights."""
    mine, theirs = metrics(run), metrics(alone)
    assert len(mine) == len(theirs) == 3
    assert mine[-1]["loss"] == pytest.approx(theirs[-1]["loss"], abs=1e-4)
    assert mine[-1]["reward"] == pytest.approx(theirs[-1]["reward"], abs=1e-4)
    assert difference(run, alone) < 1e-4


def test_two_ranks_are_the_run_of_one_process(recipe: Path, alone: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    done = finish(["train", str(recipe), "-o", str(run), "--nproc", "2"])
    first, expected = metrics(run)[0], metrics(alone)[0]
    for key, value in expected.items():
        if key.startswith(("reward", "groups", "calls", "tokens/", "length/", "rollouts")) or key == "rows":
            assert first[key] == value, key
    assert (run / "rollouts" / "step-1.jsonl").read_text() == (
        alone / "rollouts" / "step-1.jsonl"
    ).read_text()
    same_end(run, alone)
    evaluation = [json.loads((r / "evaluation" / "after.json").read_text())["sets"] for r in (run, alone)]
    for name, whole in evaluation[1].items():
        tasks = [p["task_id"] for p in evaluation[0][name]["predictions"]]
        assert tasks == [p["task_id"] for p in whole["predictions"]]
    assert sorted(p.name for p in run.iterdir()) == sorted(p.name for p in alone.iterdir())
    assert done.out.count("step 3/3") == 1 and done.out.count("trained policy") == 1  # rank 0 alone prints
    assert "2 ranks, learner deepspeed" in done.out
    assert done.err == ""
    assert (
        " ".join(finish(["train", str(recipe), "-o", str(run), "--nproc", "2"]).out.split()).count(
            "this run is finished"
        )
        == 1
    )


def test_killed_launcher_leaves_no_orphan_and_one_process_goes_on(recipe: Path, tmp_path: Path) -> None:
    """`max_staleness=1`: two ranks under ZeRO-3 make rows ahead, one process with another learner goes on with them."""
    ahead = ["trainer.max_staleness=1", "algorithm.tis_cap=2", "trainer.steps=4", "trainer.eval_before=false"]
    alone, run = tmp_path / "alone" / "run", tmp_path / "run"
    ended = launch(["train", str(recipe), "-o", str(alone), *ahead], tmp_path / "log")
    assert ended.code == 0, ended.err
    checkpoint = run / "checkpoints" / "step-2"
    command = ["train", str(recipe), "-o", str(run), *ahead]
    sharded = ["learner=deepspeed", "learner.lr=1e-3", "learner.zero_stage=3"]
    started = Started([*command, *sharded, "--nproc", "2"], HOLD_AFTER=str(checkpoint))
    started.wait_for(
        lambda: len(list(checkpoint.parent.glob("step-2.held-*"))) == 2
    )  # beside the third update
    ranks = started.ranks()
    assert len(ranks) == 2
    started.process.kill()
    started.process.communicate()
    assert none_left(ranks)
    assert (checkpoint / "ahead.json").exists()
    for path in checkpoint.parent.glob("*.held-*"):
        path.unlink()
    mine, theirs = metrics(run), metrics(alone)
    assert [record["rows"] for record in mine] == [record["rows"] for record in theirs[:2]]
    ended = launch(command, tmp_path / "log")
    assert ended.code == 0 and "resuming after step 2 of 4" in ended.out, ended.err
    mine = metrics(run)
    for key in ("reward", "loss", "mismatch_kl", "tokens/completion"):
        assert [r[key] for r in mine] == pytest.approx([r[key] for r in theirs], abs=1e-4), key
    assert mine[1]["mismatch_kl"] > 1e-6, (
        "rows of the second step come from the weights before the first update"
    )
    assert difference(run, alone) < 1e-4


def test_killed_rank_ends_all_and_other_ranks_go_on(recipe: Path, alone: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    checkpoint = run / "checkpoints" / "step-2"
    command = ["train", str(recipe), "-o", str(run)]
    # written by one process ...
    single = launch(command, tmp_path / "log", Strike("replace", "checkpoints/step-2", after=True))
    assert single.code == -9, single.err
    double = Started(
        [*command, "--nproc", "2"], HOLD_AFTER=str(checkpoint)
    )  # ... gone on with by two, one killed ...
    double.wait_for(lambda: (checkpoint.parent / "step-2.held-1").exists())
    ranks = double.ranks()
    victim = next(p for p in ranks if p.environ()["RANK"] == "1")
    began = time.monotonic()
    victim.kill()
    assert double.end(60) == 1
    assert time.monotonic() - began < 60
    assert none_left(ranks)
    lines = double.err.strip().splitlines()
    assert len(lines) == 1 and "rank 1 was killed by SIGKILL" in lines[0]
    for path in checkpoint.parent.glob("*.held-*"):
        path.unlink()
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    done = finish(command, torchrun)  # ... and by two that somebody else's launcher starts
    assert done.out.count("resuming after step 2 of 3") == 1
    same_end(run, alone)


def test_a_signal_to_the_launcher_saves_and_stops(recipe: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    started = Started(["train", str(recipe), "-o", str(run), "trainer.steps=2000", "--nproc", "2"])
    started.wait_for(lambda: (run / "metrics.jsonl").exists())
    ranks = started.ranks()
    started.process.send_signal(signal.SIGTERM)
    assert started.end() == 143
    assert none_left(ranks)
    assert started.out.count("saved; run the same command to go on") == 1
    assert started.err == ""
    steps = metrics(run)[-1]["step"]
    assert (run / "checkpoints" / f"step-{steps}" / "trainer.json").exists()


def test_a_bug_on_one_rank_is_shown_first_and_ends_all(recipe: Path, tmp_path: Path) -> None:
    command = ["train", str(recipe), "-o", str(tmp_path / "run"), "--nproc", "2", "trainer.eval_before=false"]
    started = Started(command, FAIL_ON_RANK="1")
    started.wait_for(lambda: len(started.ranks()) == 2)
    ranks = started.ranks()
    assert started.end(120) == 1
    assert none_left(ranks)
    lines = started.err.strip().splitlines()
    assert lines[-1].startswith("error: rank 1: reward 'letters' failed on task")
    assert lines[-1].endswith("ZeroDivisionError: a bug in a reward")


def test_bad_input_is_one_line_as_from_one_process(recipe: Path, tmp_path: Path) -> None:
    command = ["train", str(recipe), "-o", str(tmp_path / "run"), "--nproc", "2"]
    started = Started([*command, "learner.lora_rank=4", "learner.lora_targets=[no_such_layer]"])
    assert started.end() == 2
    assert len(started.err.strip().splitlines()) == 1
    assert started.err.startswith("error: learner.lora_targets")
    assert not (tmp_path / "run").exists()


@pytest.mark.vllm
def test_memagent_on_two_ranks_with_an_engine_each_learns_as_one_process_does(tmp_path: Path) -> None:
    """The steps of `test_quickstart.py`, by two ranks under ZeRO-2 with an engine each."""
    pytest.importorskip("vllm")
    run = tmp_path / "run"
    small = [
        f"trainer.steps={STEPS}",
        "trainer.eval_before=false",
        "data.eval.1x.size=100",
        "~data.eval.2x",
        "~data.eval.4x",
        "~data.eval.16x",
        "sampler.kv_cache_gb=0.25",
    ]
    finish(["train", "memagent", "-o", str(run), *small, "--nproc", "2"])
    steps = metrics(run)
    assert [record["step"] for record in steps] == list(range(1, STEPS + 1))
    for record in steps:
        assert record["rollouts"] == 192 and record["rollouts/failed"] == 0
        assert record["sync/parity_max"] < 1e-3  # the worst of both engines, tied embeddings
    assert max(record["mismatch_kl"] for record in steps if "mismatch_kl" in record) < 1e-4
    rewards = [record["reward"] for record in steps]
    assert sum(rewards[-3:]) > sum(rewards[:3]) + 1
    assert (run / "final" / "model.safetensors").exists()
    after = json.loads((run / "evaluation" / "after.json").read_text())["sets"]["1x"]
    assert after["tasks"] == 100 and after["scores"]["exact_match"] > 0.5
