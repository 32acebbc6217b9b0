"""Writes leave the old state or the new, and a failed one is a line that names the path."""

from __future__ import annotations

import errno
import json
import os
from pathlib import Path
from typing import Any

import pytest

from memfactory.core.errors import DiskError
from memfactory.core.files import disk_errors, new_folder, remove_partial, write_json, write_text


def fail_with(number: int) -> Any:
    def fail(*arguments: Any, **options: Any) -> None:
        raise OSError(number, os.strerror(number))

    return fail


@pytest.mark.parametrize("step", ["fsync", "replace"])
@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EACCES, errno.EROFS])
def test_a_file_that_cannot_be_replaced_is_as_before(
    step: str, number: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "summary.json"
    write_text(path, "old")
    monkeypatch.setattr(os, step, fail_with(number))
    with pytest.raises(DiskError) as caught:
        write_text(path, "new")
    monkeypatch.undo()
    assert str(path) in str(caught.value) and "\n" not in str(caught.value)
    assert path.read_text() == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["summary.json"]


@pytest.mark.parametrize("step", ["fsync", "replace"])
def test_a_folder_that_cannot_be_finished_is_not_there(
    step: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, step, fail_with(errno.ENOSPC))
    with pytest.raises(DiskError, match="the disk is full"), new_folder(tmp_path / "final") as folder:
        (folder / "weights").write_text("w")
    assert list(tmp_path.iterdir()) == []


def test_everything_in_a_new_folder_is_on_disk_before_it_gets_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    events: list[str] = []
    fsync, replace = os.fsync, os.replace

    def note_fsync(descriptor: int) -> None:
        events.append(Path(os.readlink(f"/proc/self/fd/{descriptor}")).name)
        fsync(descriptor)

    def note_replace(source: Any, target: Any) -> None:
        events.append(f"-> {Path(target).name}")
        replace(source, target)

    monkeypatch.setattr(os, "fsync", note_fsync)
    monkeypatch.setattr(os, "replace", note_replace)
    with new_folder(tmp_path / "step-1") as folder:
        (folder / "policy").mkdir()
        (folder / "policy" / "weights").write_text("w")
        (folder / "state").write_text("s")
    named = events.index("-> step-1")
    assert {"policy", "weights", "state", "step-1.partial"} <= set(events[:named])
    assert tmp_path.name in events[named:], "the name itself has to reach the disk"


@pytest.mark.parametrize("number", [errno.EIO, errno.EMFILE])
def test_other_errors_are_not_called_a_full_disk(number: int) -> None:
    with pytest.raises(OSError) as caught, disk_errors(Path("x")):
        fail_with(number)()
    assert caught.value.errno == number


def test_a_file_where_a_folder_should_be_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "taken").write_text("mine")
    with pytest.raises(DiskError, match="taken"):
        write_text(tmp_path / "taken" / "deeper" / "a", "x")
    with pytest.raises(DiskError, match="taken"), new_folder(tmp_path / "taken" / "final"):
        pass
    assert (tmp_path / "taken").read_text() == "mine"


def test_only_half_written_things_are_removed(tmp_path: Path) -> None:
    for name in ("step-1.partial", "step-2.old.partial", "step-3"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "f").write_text("x")
    (tmp_path / "summary.json.partial").write_text("{")
    (tmp_path / "partial").write_text("kept")
    remove_partial(tmp_path)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["partial", "step-3"]
    remove_partial(tmp_path / "nowhere")


def test_json_keeps_every_text(tmp_path: Path) -> None:
    value = {"reply": "é 😀 \x00 \u2028 \ud800", "n": 1.5}
    write_json(tmp_path / "a.json", value)
    assert json.loads((tmp_path / "a.json").read_text(encoding="utf-8")) == value
