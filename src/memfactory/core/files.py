"""Writing files so that a kill or a full disk at any moment leaves the old state or the new, never half."""

from __future__ import annotations

import errno
import json
import os
import shutil
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any

from memfactory.core.errors import DiskError, UserError
from memfactory.core.partials import aside_name, hold, left_aside, new_partial, remove_partials_of


class AlreadyThereError(DiskError):
    """Something stands where a new file or folder should come, and nothing was changed."""


@contextmanager
def disk_errors(path: Path, option: str = "--output-dir") -> Iterator[None]:
    """Turn a failed write below `path` into one line that names the path and the remedy.

    `option` is what chooses another place.
    """
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise DiskError(
                f"{path}: the disk is full; free some space and run the same command again"
            ) from error
        if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
            raise DiskError(f"{path}: no permission to write here; choose another {option}") from error
        if error.errno in (errno.EEXIST, errno.ENOTDIR, errno.EISDIR, errno.ENAMETOOLONG):
            raise DiskError(
                f"{path}: cannot be written here ({error.strerror}); choose another {option}"
            ) from error
        raise


def check_new_file(
    path: Path, *, force: bool, ours: Callable[[Path], bool] = lambda path: False, option: str = "--output"
) -> None:
    """Raise `AlreadyThereError` unless a file that a user named may be written: nothing is there, or it may go.

    With `force`, or where it is `ours` to make anew, a plain file may go; a folder or a device never.
    """
    if not os.path.lexists(path):
        return
    if path.is_dir():
        raise AlreadyThereError(f"{path}: is a folder; {option} takes the name of a file")
    if path.exists() and not path.is_file():
        raise AlreadyThereError(f"{path}: is no plain file; {option} takes the name of one")
    if not force and not ours(path):
        raise AlreadyThereError(
            f"{path}: is there already; choose another {option}, or replace it with --force"
        )


def write_text(path: Path, text: str) -> None:
    """Replace a file's content atomically and durably; what UTF-8 cannot hold is escaped."""
    write_bytes(path, text.encode("utf-8", errors="backslashreplace"))


def write_bytes(path: Path, data: bytes) -> None:
    """Replace a file's content atomically and durably."""
    with new_file(path) as file:
        file.write(data)


def write_json(path: Path, value: Any) -> None:
    """Replace a file's content by JSON, atomically."""
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False) + "\n")


@contextmanager
def new_file(path: Path, *, replace: bool = True, option: str = "--output-dir") -> Iterator[IO[bytes]]:
    """A binary file that becomes `path` when the block ends well, and is removed when it fails.

    Without `replace` a file that is there, or appears meanwhile, stays as it is, and `AlreadyThereError` is raised.
    Raises `DiskError` when it cannot be written.
    """
    with disk_errors(path, option), new_partial(path, folder=False) as temporary:
        if not replace and os.path.lexists(path):
            temporary.unlink(missing_ok=True)
            raise _already_there(path, option)
        try:
            with open(temporary, "wb") as file:
                yield file
                file.flush()
                os.fsync(file.fileno())
            if replace:
                os.replace(temporary, path)
            else:
                _name_exclusively(temporary, path, option)
        except BaseException:
            with suppress(OSError):
                temporary.unlink(missing_ok=True)
            raise


@contextmanager
def new_folder(
    path: Path, *, replaces: Callable[[Path], None] | None = None, option: str = "--output-dir"
) -> Iterator[Path]:
    """Yield a temporary folder that becomes `path` when the block ends well, and is removed when it fails.

    Nothing is replaced, also not what appears meanwhile (`AlreadyThereError`), unless `replaces` is given: it looks at
    the folder that would go and raises if that may not be. It is asked at once, and again when the old folder stands
    aside, so that nothing goes that it has not seen. All files get the modes that the umask gives, whatever the
    library that wrote them thinks.
    """
    with disk_errors(path, option):
        remove_partials_of(path)
        _settle(path, replaces)
        _check_target(path, replaces, option)
        with new_partial(path, folder=True) as temporary:
            try:
                yield temporary
                usual = stat.S_IMODE(temporary.stat().st_mode)
                for file in temporary.rglob("*"):
                    if not file.is_symlink():
                        file.chmod(usual & 0o777 if file.is_dir() else usual & 0o666)
                        _sync(file)
                _sync(temporary)
                _give_name(temporary, path, replaces, option)
                _sync(path.parent)
            except BaseException:
                shutil.rmtree(temporary, ignore_errors=True)
                raise


def _give_name(temporary: Path, path: Path, replaces: Callable[[Path], None] | None, option: str) -> None:
    if replaces is None or path.is_symlink() or not path.is_dir():
        try:
            os.replace(temporary, path)  # fails on a folder that is not empty, and on a file
        except OSError as error:
            if error.errno in (errno.ENOTEMPTY, errno.EEXIST, errno.ENOTDIR):
                raise _already_there(path, option) from error
            raise
        return
    lock = hold(path)  # it goes with the folder: nobody takes what stands aside for a dead process's
    if lock is None:
        raise _already_there(path, option)
    aside = aside_name(path)
    try:
        os.replace(path, aside)
        try:
            replaces(aside)
            _give_name(temporary, path, None, option)
        except BaseException:
            if not os.path.lexists(path):
                os.replace(aside, path)
            raise
        shutil.rmtree(aside, ignore_errors=True)
    finally:
        os.close(lock)


def _settle(path: Path, replaces: Callable[[Path], None] | None) -> None:
    """End what a killed `_give_name` began: the old folder goes back, or if the new one is there, away."""
    if replaces is None:
        return
    for aside in left_aside(path):
        lock = hold(aside)
        if lock is None:
            continue
        try:
            if not os.path.lexists(path):
                os.replace(aside, path)
                continue
            replaces(aside)
            shutil.rmtree(aside, ignore_errors=True)
        except UserError:
            pass  # what may not go stays where it is
        finally:
            os.close(lock)


def _check_target(path: Path, replaces: Callable[[Path], None] | None, option: str) -> None:
    if not os.path.lexists(path):
        return
    if path.is_symlink() or not path.is_dir():
        raise _already_there(path, option)
    if replaces is not None:
        replaces(path)
    elif any(path.iterdir()):
        raise _already_there(path, option)


def _name_exclusively(temporary: Path, path: Path, option: str) -> None:
    try:
        os.link(temporary, path)
    except FileExistsError:
        raise _already_there(path, option) from None
    except OSError as error:
        if error.errno not in (errno.EPERM, errno.ENOTSUP, errno.ENOSYS):
            raise
        # A file system without hard links: the name is taken by an empty file first.
        try:
            os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666))
        except FileExistsError:
            raise _already_there(path, option) from None
        os.replace(temporary, path)
    else:
        temporary.unlink()


def _already_there(path: Path, option: str) -> AlreadyThereError:
    return AlreadyThereError(f"{path}: is there already; move it away, or choose another {option}")


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
