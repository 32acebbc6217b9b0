"""The run folder: atomic checkpoints, rewinding, and one process at a time."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from memfactory.core.errors import BadInput
from memfactory.core.files import new_folder, write_text
from memfactory.core.manifest import seal
from memfactory.core.signed import write_signed
from memfactory.training.run_folder import RunFolder


def test_a_checkpoint_that_fails_half_way_is_not_there(tmp_path: Path) -> None:
    run = RunFolder(tmp_path)
    with run.new_checkpoint(1) as folder:
        (folder / "weights").write_text("one")
    with pytest.raises(RuntimeError), run.new_checkpoint(2) as folder:
        (folder / "weights").write_text("half")
        raise RuntimeError
    assert [step for step, _ in run.checkpoints.all()] == [1]


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
    assert list(run.checkpoints.path.iterdir()), "the kill should leave something behind"
    assert run.checkpoints.all() == []
    run.acquire()
    assert list(run.checkpoints.path.iterdir()) == []
    run.release()


def test_only_the_newest_checkpoints_stay(tmp_path: Path) -> None:
    run = RunFolder(tmp_path)
    for step in (2, 10, 9):
        with run.new_checkpoint(step):
            pass
    run.checkpoints.keep_last(2, lambda line: None)
    assert [step for step, _ in run.checkpoints.all()] == [9, 10]


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


def a_run(path: Path) -> RunFolder:
    """A run's folder as a finished training leaves it."""
    run = RunFolder(path)
    run.acquire()
    run.written.replace_text(run.recipe_path, "name: x\n")
    for step in (1, 2):
        run.log_metrics({"step": step})
        run.write_rollouts(step, [{"task": "t"}])
        run.written.append(path / "log.txt", f"step {step}\n")
    with run.new_checkpoint(2) as folder:
        (folder / "weights").write_text("w")
    with run.new_final() as folder:
        (folder / "weights").write_text("w")
    for name in ("before", "after"):
        run.written.replace_json(run.evaluation_path / f"{name}.json", {"sets": {}})
    run.written.replace_json(path / "summary.json", {})
    write_signed(path / "report.html", "<html></html>")
    with new_folder(path / "report_png") as folder:
        (folder / "a.png").write_text("p")
        seal(folder, "pictures")
    (path / "wandb" / "run-1").mkdir(parents=True)
    run.written.made_folder("wandb")
    (path / "wandb" / "run-1" / "x.wandb").write_text("x")
    (path / "wandb" / "latest-run").symlink_to("run-1")
    run.release()
    return run


def listing(path: Path) -> set[str]:
    return {p.relative_to(path).as_posix() for p in path.rglob("*") if not p.is_dir() or p.is_symlink()}


def test_fresh_deletes_what_the_run_wrote_and_keeps_what_is_beside(tmp_path: Path) -> None:
    a_run(tmp_path)
    mine = {
        "notes.txt",
        "plots/a.png",
        "rollouts/mine.txt",
        "wandb/mine.txt",
        "eval/result.json",
        "x.partial",
    }
    mine |= {"checkpoints/step-9.damaged/w"}
    for name in mine:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("mine")
    RunFolder(tmp_path).clear()
    assert listing(tmp_path) == {*mine, ".lock", "written.jsonl"}


def append_to(path: Path) -> None:
    with open(path, "a") as file:
        file.write("my note\n")


FOREIGN: dict[str, tuple[Callable[[Path], object], str]] = {
    "summary": (lambda p: append_to(p / "summary.json"), "summary.json"),
    "metrics": (lambda p: append_to(p / "metrics.jsonl"), "metrics.jsonl"),
    "log": (lambda p: append_to(p / "log.txt"), "log.txt"),
    "recipe": (lambda p: append_to(p / "recipe.yaml"), "recipe.yaml"),
    "rollouts": (lambda p: append_to(p / "rollouts" / "step-1.jsonl"), "rollouts/step-1.jsonl"),
    "evaluation": (lambda p: append_to(p / "evaluation" / "after.json"), "evaluation/after.json"),
    "checkpoint": (lambda p: append_to(p / "checkpoints/step-2/weights"), "checkpoints/step-2/weights"),
    "in a checkpoint": (
        lambda p: append_to(p / "checkpoints" / "step-2" / "n.txt"),
        "checkpoints/step-2/n.txt",
    ),
    "final": (lambda p: append_to(p / "final" / "n.txt"), "final/n.txt"),
    "a folder called step-3": (
        lambda p: ((p / "checkpoints/step-3").mkdir(), append_to(p / "checkpoints/step-3/book")),
        "checkpoints/step-3/book",
    ),
    "tensorboard": (
        lambda p: ((p / "tensorboard").mkdir(), append_to(p / "tensorboard" / "events")),
        "tensorboard/",
    ),
    "report.md": (lambda p: append_to(p / "report.md"), "report.md"),
    "link": (
        lambda p: ((p / "final").rename(p / "f"), (p / "final").symlink_to(p / "f")),
        "final/final",
    ),
}


@pytest.mark.parametrize("what", FOREIGN)
def test_fresh_refuses_where_something_foreign_stands(what: str, tmp_path: Path) -> None:
    a_run(tmp_path)
    act, name = FOREIGN[what]
    act(tmp_path)
    before = listing(tmp_path)
    with pytest.raises(BadInput, match="nothing was deleted") as caught:
        RunFolder(tmp_path).clear()
    assert f" {name} " in str(caught.value).replace(",", " ") and "\n" not in str(caught.value)
    assert listing(tmp_path) == before


@pytest.mark.parametrize("name", ["checkpoints/a.txt", "final/config.json", "wandb/x", "metrics.jsonl", "a"])
def test_fresh_touches_no_folder_that_is_no_run(name: str, tmp_path: Path) -> None:
    (tmp_path / name).parent.mkdir(exist_ok=True)
    (tmp_path / name).write_text("mine")
    with pytest.raises(BadInput, match="is no run folder and holds"):
        RunFolder(tmp_path).clear()
    assert listing(tmp_path) == {name}


def test_a_run_of_the_version_before_is_not_deleted(tmp_path: Path) -> None:
    a_run(tmp_path)
    (tmp_path / "written.jsonl").unlink()
    before = listing(tmp_path)
    with pytest.raises(BadInput, match=r"rollouts/step-1\.jsonl.* and \d+ more"):
        RunFolder(tmp_path).clear()
    assert listing(tmp_path) == before


def test_a_line_that_a_kill_cut_off_is_still_ours(tmp_path: Path) -> None:
    run = a_run(tmp_path)
    line = b'{"step": 3, "reward": 0.5}\n'
    run.written.announce(run.metrics_path, line)
    with open(run.metrics_path, "ab") as file:
        file.write(line[:9])
    again = RunFolder(tmp_path)
    assert again.written.is_ours(run.metrics_path)
    append_to(run.metrics_path)
    assert not RunFolder(tmp_path).written.is_ours(run.metrics_path)


def test_going_on_keeps_what_a_user_wrote_into_files_of_the_run(tmp_path: Path) -> None:
    a_run(tmp_path)
    for name in ("metrics.jsonl", "rollouts/step-2.jsonl", "summary.json"):
        append_to(tmp_path / name)
    run = RunFolder(tmp_path)
    run.rewind(1)
    run.written.replace_json(tmp_path / "summary.json", {"new": 1})
    assert [record["step"] for record in run.metrics()] == [1]
    for name in ("metrics.jsonl", "rollouts/step-2.jsonl", "summary.json"):
        assert (tmp_path / f"{name}.kept").read_text().endswith("my note\n")
    assert not (tmp_path / "rollouts" / "step-2.jsonl").exists()
    assert json.loads((tmp_path / "summary.json").read_text()) == {"new": 1}


def test_a_journal_with_wild_lines_proves_nothing(tmp_path: Path) -> None:
    a_run(tmp_path)
    journal = tmp_path / "written.jsonl"
    whole = journal.read_bytes()
    wild = [
        b"",
        b"[]",
        b"\xff",
        b'{"file": 3}',
        b'{"file": "a", "size": 1e999, "sha256": ""}',
        b"[" * 9999,
        b"{",
    ]
    journal.write_bytes(b"\n".join([*wild, whole, *wild]))
    run = RunFolder(tmp_path)
    assert run.written.is_ours(run.metrics_path) and run.written.is_ours(run.recipe_path)
    run.log_metrics({"step": 3})
    assert RunFolder(tmp_path).written.is_ours(run.metrics_path)
