"""Nothing goes on from a damaged checkpoint, and nothing that is not a whole checkpoint of ours is deleted."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from memfactory.core.errors import BadInput
from memfactory.core.manifest import MANIFEST
from memfactory.training.checkpoints import Checkpoints
from memfactory.training.state import TrainState, write_state


def save(path: Path, step: int, written_as: int | None = None) -> Path:
    with Checkpoints(path).new(step) as folder:
        for part in ("learner", "policy"):
            (folder / part).mkdir()
            (folder / part / "weights").write_bytes(bytes([step]) * 1000)
        write_state(folder, TrainState(step=step if written_as is None else written_as))
    return path / f"step-{step}"


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[500] ^= 4
    path.write_bytes(data)


def old_version(folder: Path) -> None:
    """As the version before manifests left it."""
    (folder / MANIFEST).unlink()
    state = json.loads((folder / "trainer.json").read_text())
    (folder / "trainer.json").write_text(json.dumps({**state, "format": 1}))


DAMAGE: dict[str, tuple[Callable[[Path], object], str]] = {
    "bit": (lambda f: flip(f / "learner" / "weights"), "learner/weights is not what was written"),
    "20 bytes": (lambda f: os.truncate(f / "learner" / "weights", 980), "learner/weights has 980 bytes"),
    "empty": (lambda f: (f / "policy" / "weights").write_bytes(b""), "policy/weights has 0 bytes"),
    "missing": (lambda f: (f / "trainer.json").unlink(), "trainer.json is missing"),
    "no manifest": (lambda f: (f / MANIFEST).unlink(), f"{MANIFEST} is missing"),
    "bad manifest": (lambda f: (f / MANIFEST).write_text("{"), "not readable as a list of files"),
    "state": (lambda f: (f / "trainer.json").write_text('{"format": 2, "step": 9}'), "trainer.json has"),
    "old version": (lambda f: (old_version(f), (f / "trainer.json").write_text("{")), "trainer.json: not readable"),
    "old version, other step": (
        lambda f: (old_version(f), (f / "trainer.json").write_text(
            '{"format": 1, "step": 3, "position": 0, "seconds": 0.0}')),
        "trainer.json is of step 3",
    ),
}  # fmt: skip


@pytest.mark.parametrize("what", DAMAGE)
def test_the_newest_whole_checkpoint_is_taken_and_the_damaged_is_kept_aside(
    what: str, tmp_path: Path
) -> None:
    for step in (1, 2, 12):
        save(tmp_path, step)
    act, problem = DAMAGE[what]
    act(tmp_path / "step-12")
    said: list[str] = []
    checkpoints = Checkpoints(tmp_path)
    assert checkpoints.newest_whole(said.append) == (2, tmp_path / "step-2")
    assert len(said) == 1 and problem in said[0] and "going on from step 2" in said[0], said
    assert (tmp_path / "step-12.damaged").is_dir()
    checkpoints.keep_last(2, said.append)
    save(tmp_path, 12)
    checkpoints.keep_last(2, said.append)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["step-12", "step-12.damaged", "step-2"]


def test_a_renamed_folder_and_a_state_of_another_step_are_no_checkpoints(tmp_path: Path) -> None:
    save(tmp_path, 2)
    save(tmp_path, 3).rename(tmp_path / "step-12")
    save(tmp_path, 13, written_as=3)
    said: list[str] = []
    assert Checkpoints(tmp_path).newest_whole(said.append) == (2, tmp_path / "step-2")
    assert "trainer.json is of step 3" in said[0] and "a checkpoint of step 3" in said[1]


def test_without_a_whole_one_it_is_one_line_and_all_stays(tmp_path: Path) -> None:
    for step in (1, 2):
        flip(save(tmp_path, step) / "learner" / "weights")
    with pytest.raises(
        BadInput, match=r"step-2: learner/weights .*no other whole.*from a copy, or move"
    ) as caught:
        Checkpoints(tmp_path).newest_whole(lambda line: None)
    assert "\n" not in str(caught.value)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["step-1", "step-2"]


def test_a_checkpoint_of_the_version_before_is_taken_but_never_deleted(tmp_path: Path) -> None:
    old_version(save(tmp_path, 1))
    checkpoints = Checkpoints(tmp_path)
    assert checkpoints.newest_whole(lambda line: None) == (1, tmp_path / "step-1")
    save(tmp_path, 2)
    save(tmp_path, 3)
    checkpoints.keep_last(1, lambda line: None)
    assert [step for step, _ in checkpoints.all()] == [1, 3]


def test_an_extra_file_makes_no_damage_but_its_folder_stays(tmp_path: Path) -> None:
    (save(tmp_path, 1) / "notes.txt").write_text("mine")
    (tmp_path / "step-2").mkdir()
    (tmp_path / "step-2" / "book.txt").write_text("mine")
    checkpoints = Checkpoints(tmp_path)
    save(tmp_path, 3)
    assert checkpoints.newest_whole(lambda line: None) == (3, tmp_path / "step-3")
    save(tmp_path, 4)
    checkpoints.keep_last(1, lambda line: None)
    assert [step for step, _ in checkpoints.all()] == [1, 2, 4]
    assert (tmp_path / "step-1" / "notes.txt").read_text() == "mine"
    assert (tmp_path / "step-2" / "book.txt").read_text() == "mine"
    assert Checkpoints(tmp_path / "none").newest_whole(lambda line: None) is None
