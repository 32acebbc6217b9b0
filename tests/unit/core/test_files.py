"""Writes leave the old state or the new, and a failed one is a line that names the path."""

from __future__ import annotations

import errno
import json
import os
import re
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from memfactory.core.errors import BadInput, DiskError
from memfactory.core.files import (
    AlreadyThereError,
    check_new_file,
    disk_errors,
    new_file,
    new_folder,
    write_json,
    write_text,
)
from memfactory.core.partials import is_partial, remove_partials


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
    assert {"policy", "weights", "state"} <= set(events[:named])
    assert any(is_partial(name) for name in events[:named]), "the folder too"
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


def die_while_writing(path: Path, *, folder: bool) -> None:
    """Leave what a killed process leaves of `path`."""
    if (child := os.fork()) == 0:
        with new_folder(path) if folder else new_file(path) as made:
            if isinstance(made, Path):
                (made / "f").write_text("half")
            os.kill(os.getpid(), signal.SIGKILL)
    os.waitpid(child, 0)


def test_only_what_dead_writers_left_is_removed(tmp_path: Path) -> None:
    die_while_writing(tmp_path / "step-1", folder=True)
    die_while_writing(tmp_path / "summary.json", folder=False)
    assert len(list(tmp_path.iterdir())) == 2 and all(is_partial(p.name) for p in tmp_path.iterdir())
    mine = ("notes.partial", "step-2.partial", "step-2.old.partial", "x.0123-7-1.partial", "partial")
    for name in mine:
        (tmp_path / name).write_text("the user's")
    with new_folder(tmp_path / "step-3") as alive, new_file(tmp_path / "a.json") as file:
        remove_partials(tmp_path)
        (alive / "f").write_text("x")
        file.write(b"1")
        half = [p.name for p in tmp_path.iterdir() if is_partial(p.name)]
        assert len(half) == 2
    assert sorted(p.name for p in tmp_path.iterdir()) == sorted([*mine, "step-3", "a.json"])
    remove_partials(tmp_path / "nowhere")


def test_a_partial_that_is_a_link_is_left_alone(tmp_path: Path) -> None:
    die_while_writing(tmp_path / "final", folder=True)
    (left,) = tmp_path.iterdir()
    name = left.name
    remove_partials(tmp_path)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "f").write_text("x")
    (tmp_path / name).symlink_to(tmp_path / "mine")
    remove_partials(tmp_path)
    assert (tmp_path / "mine" / "f").read_text() == "x" and (tmp_path / name).is_symlink()


def test_without_locks_the_process_number_decides(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    die_while_writing(tmp_path / "final", folder=True)
    (dead,) = tmp_path.iterdir()
    elsewhere = tmp_path / re.sub(r"\.[0-9a-f]{8}-", ".00000000-", dead.name)
    elsewhere.mkdir()
    monkeypatch.setattr("fcntl.flock", fail_with(errno.ENOTSUP))
    with new_folder(tmp_path / "final") as alive:
        remove_partials(tmp_path)
        assert sorted(p.name for p in tmp_path.iterdir()) == sorted([alive.name, elsewhere.name])


@pytest.mark.parametrize("length", [1, 200, 255])
def test_names_of_any_length_can_be_written(length: int, tmp_path: Path) -> None:
    path = tmp_path / ("é" * (length // 2) + "x" * (length % 2))
    with new_folder(path):
        pass
    write_text(tmp_path / "a" / path.name, "text")
    assert {p.name for p in tmp_path.rglob("*")} == {"a", path.name}


@pytest.mark.parametrize("folder", [True, False])
@pytest.mark.parametrize("there", ["file", "folder", "link"])
def test_nothing_that_appears_meanwhile_is_replaced(there: str, folder: bool, tmp_path: Path) -> None:
    path, other = tmp_path / "target", tmp_path / "other"

    def appear() -> None:
        other.mkdir()
        (other / "f").write_text("kept")
        if there == "link":
            path.symlink_to(other)
        elif there == "folder":
            other.rename(path)
        else:
            path.write_text("kept")

    with (
        pytest.raises(AlreadyThereError, match="target: is there already"),
        new_folder(path) if folder else new_file(path, replace=False) as made,
    ):
        if isinstance(made, Path):
            (made / "f").write_text("new")
        else:
            made.write(b"new")
        appear()
    assert (path if there == "file" else path / "f").read_text() == "kept"
    assert not any(is_partial(p.name) for p in tmp_path.iterdir())
    with (  # and what is there from the start is told before any work
        pytest.raises(AlreadyThereError),
        new_folder(path) if folder else new_file(path, replace=False),
    ):
        raise AssertionError


def test_without_hard_links_a_file_is_exclusive_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "link", fail_with(errno.EPERM))
    with new_file(tmp_path / "a", replace=False) as file:
        file.write(b"new")
    with pytest.raises(AlreadyThereError), new_file(tmp_path / "a", replace=False):
        raise AssertionError
    assert (tmp_path / "a").read_text() == "new"


def only(*names: str) -> Callable[[Path], None]:
    def check(folder: Path) -> None:
        if {p.name for p in folder.iterdir()} - set(names):
            raise BadInput("foreign")

    return check


def test_a_folder_is_replaced_only_by_leave_of_what_it_holds_at_the_end(tmp_path: Path) -> None:
    path = tmp_path / "export"
    path.mkdir()
    (path / "a").write_text("old")
    with pytest.raises(BadInput, match="foreign"), new_folder(path, replaces=only("b")):
        raise AssertionError
    with pytest.raises(BadInput, match="foreign"), new_folder(path, replaces=only("a")) as folder:
        (folder / "a").write_text("new")
        (path / "mine").write_text("just came")
    assert (path / "a").read_text() == "old" and (path / "mine").read_text() == "just came"
    (path / "mine").unlink()
    with new_folder(path, replaces=only("a")) as folder:
        (folder / "b").write_text("new")
    assert [p.name for p in path.iterdir()] == ["b"] and [p.name for p in tmp_path.iterdir()] == ["export"]


@pytest.mark.parametrize("nth", [1, 2])
def test_a_kill_between_old_and_new_loses_neither(nth: int, tmp_path: Path) -> None:
    """The old folder stands aside for a moment: whoever comes next puts it back, or takes it away."""
    path = tmp_path / "export"
    path.mkdir()
    (path / "a").write_text("old")
    if (child := os.fork()) == 0:
        replace, count = os.replace, [0]

        def strike(source: Any, target: Any) -> None:
            replace(source, target)
            count[0] += 1
            if count[0] == nth:
                os.kill(os.getpid(), signal.SIGKILL)

        os.replace = strike  # type: ignore[assignment]
        with new_folder(path, replaces=only("a")) as folder:
            (folder / "a").write_text("new")
    os.waitpid(child, 0)
    assert path.exists() == (nth == 2)
    with pytest.raises(RuntimeError), new_folder(path, replaces=only("a")):
        raise RuntimeError
    assert (path / "a").read_text() == ("old" if nth == 1 else "new")
    assert [p.name for p in tmp_path.iterdir()] == ["export"]


@pytest.mark.parametrize("mask", [0o022, 0o077, 0o002])
def test_modes_are_those_of_the_umask(mask: int, tmp_path: Path) -> None:
    before = os.umask(mask)
    try:
        with new_folder(tmp_path / "final") as folder:
            private = folder / "deep" / "weights"
            private.parent.mkdir(0o700)
            os.close(os.open(private, os.O_CREAT | os.O_WRONLY, 0o600))
        write_text(tmp_path / "a.json", "{}")
    finally:
        os.umask(before)
    made = {p.relative_to(tmp_path).as_posix(): p.stat().st_mode & 0o777 for p in tmp_path.rglob("*")}
    folders, files = 0o777 & ~mask, 0o666 & ~mask
    assert made == {"final": folders, "final/deep": folders, "final/deep/weights": files, "a.json": files}


def test_json_keeps_every_text(tmp_path: Path) -> None:
    value = {"reply": "é 😀 \x00 \u2028 \ud800", "n": 1.5}
    write_json(tmp_path / "a.json", value)
    assert json.loads((tmp_path / "a.json").read_text(encoding="utf-8")) == value


def test_a_file_that_a_user_named_is_replaced_only_when_asked(tmp_path: Path) -> None:
    path = tmp_path / "notes.txt"
    check_new_file(path, force=False)
    path.write_text("mine")
    with pytest.raises(
        AlreadyThereError, match=r"is there already; choose another -o, or replace it with --force"
    ):
        check_new_file(path, force=False, option="-o")
    check_new_file(path, force=True)
    check_new_file(path, force=False, ours=lambda path: path.read_text() == "mine")
    (tmp_path / "link").symlink_to("nowhere")
    os.mkfifo(tmp_path / "pipe")
    for name, force in (("link", False), ("pipe", True), (".", True)):
        with pytest.raises(AlreadyThereError):
            check_new_file(tmp_path / name, force=force)
