"""The run folder: atomic checkpoints, rewinding, and one process at a time."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from memfactory.core.errors import BadInput
from memfactory.core.files import write_text
from memfactory.training.run_folder import RunFolder


def test_a_checkpoint_that_fails_half_way_is_not_there(tmp_path: Path) -> None:
    run = RunFolder(tmp_path)
    with run.new_checkpoint(1) as folder:
        (folder / "weights").write_text("one")
    with pytest.raises(RuntimeError), run.new_checkpoint(2) as folder:
        (folder / "weights").write_text("half")
        raise RuntimeError
    assert [step for step, _ in run.checkpoints()] == [1]


def test_what_a_killed_writer_leaves_is_ignored_and_cleared(tmp_path: Path) -> None:
    run = RunFolder(tmp_path)
    code = (
        "import os, signal, sys; from pathlib import Path\n"
        "from memfactory.training.run_folder import RunFolder\n"
        "with RunFolder(Path(sys.argv[1])).new_checkpoint(7) as folder:\n"
        "    (folder / 'weights').write_text('half')\n"
        "    os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    killed = subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=False)
    assert killed.returncode == -9
    assert list(run.checkpoints_path.iterdir()), "the kill should leave something behind"
    assert run.checkpoints() == []
    run.acquire()
    assert list(run.checkpoints_path.iterdir()) == []
    run.release()


def test_only_the_newest_checkpoints_stay(tmp_path: Path) -> None:
    run = RunFolder(tmp_path)
    for step in (2, 10, 9):
        with run.new_checkpoint(step):
            pass
    run.keep_last(2)
    assert [step for step, _ in run.checkpoints()] == [9, 10]


def test_rewind_forgets_later_steps_and_half_a_line(tmp_path: Path) -> None:
    run = RunFolder(tmp_path)
    for step in (1, 2, 3):
        run.log_metrics({"step": step})
        run.write_rollouts(step, [{"task": "t"}])
    run.release()
    with open(run.metrics_path, "a") as file:
        file.write('{"step": 4, "rew')
    run.rewind(2)
    assert [record["step"] for record in run.metrics()] == [1, 2]
    assert run.metrics_path.read_text().endswith("}\n")
    assert sorted(path.name for path in run.rollouts_path.iterdir()) == ["step-1.jsonl", "step-2.jsonl"]


def test_two_processes_cannot_use_one_run_folder(tmp_path: Path) -> None:
    run = RunFolder(tmp_path)
    run.acquire()
    with pytest.raises(BadInput, match="another process"):
        RunFolder(tmp_path).acquire()
    run.release()
    RunFolder(tmp_path).acquire()


def test_text_with_broken_unicode_is_written(tmp_path: Path) -> None:
    write_text(tmp_path / "a", "broken \ud800 text")
    RunFolder(tmp_path).write_rollouts(1, [{"reply": "broken \ud800"}])
    assert json.loads((tmp_path / "rollouts" / "step-1.jsonl").read_text())["reply"].startswith("broken")
