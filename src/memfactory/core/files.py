"""Writing files so that a kill or a full disk at any moment leaves the old state or the new, never half."""

from __future__ import annotations

import errno
import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from memfactory.core.errors import DiskError

_TEMPORARY = ".partial"


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


def write_text(path: Path, text: str) -> None:
    """Replace a file's content atomically and durably; what UTF-8 cannot hold is escaped."""
    write_bytes(path, text.encode("utf-8", errors="backslashreplace"))


def write_bytes(path: Path, data: bytes) -> None:
    """Replace a file's content atomically and durably."""
    with disk_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_name(path.name + _TEMPORARY)
        try:
            with open(temporary, "wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            os.replace(temporary, path)
        except OSError:
            temporary.unlink(missing_ok=True)
            raise


def write_json(path: Path, value: Any) -> None:
    """Replace a file's content by JSON, atomically."""
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False) + "\n")


@contextmanager
def new_folder(path: Path) -> Iterator[Path]:
    """Yield a temporary folder that becomes `path` when the block ends well, and is removed when it fails.

    A `path` that exists is replaced only after the new folder is complete on disk.
    """
    temporary = path.with_name(path.name + _TEMPORARY)
    with disk_errors(path):
        shutil.rmtree(temporary, ignore_errors=True)
        temporary.mkdir(parents=True)
        try:
            yield temporary
            for file in temporary.rglob("*"):
                _sync(file)
            _sync(temporary)
            if path.exists():
                old = path.with_name(path.name + ".old" + _TEMPORARY)
                shutil.rmtree(old, ignore_errors=True)
                os.replace(path, old)
                os.replace(temporary, path)
                shutil.rmtree(old, ignore_errors=True)
            else:
                os.replace(temporary, path)
            _sync(path.parent)
        except BaseException:
            shutil.rmtree(temporary, ignore_errors=True)
            raise


def remove_partial(folder: Path) -> None:
    """Delete what killed writers left behind in a folder."""
    if folder.is_dir():
        for path in folder.glob("*" + _TEMPORARY):
            if path.is_dir():
                shutil.rmtree(path, ignore_errors=True)
            else:
                path.unlink(missing_ok=True)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
