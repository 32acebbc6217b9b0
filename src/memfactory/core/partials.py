"""Names for what is half written, and the removal of what dead writers left; a living writer's is never touched.

A partial holds a lock as long as its writer lives (the system ends it with the process, however that ends). Where the
file system has no such locks, the writer's process number in the name decides; one of another machine stays.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import platform
import re
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path

_NAME = re.compile(r"\.([0-9a-f]{8})-(\d{1,10})-[0-9a-f]{8}\.(partial|replaced)")
_LONGEST_NAME = 255  # bytes, of most file systems


def is_partial(name: str) -> bool:
    """Whether a file or folder of this name is one of ours that is being written, or was when its writer died.

    What others call `x.partial` is not.
    """
    match = _NAME.search(name)
    return match is not None and match.end() == len(name) and match[3] == "partial"


@contextmanager
def new_partial(target: Path, *, folder: bool) -> Iterator[Path]:
    """Make an empty file or folder beside `target`, whose parent is made too, and keep others from removing it.

    Its name is its own: no other writer has it. Whoever calls gives it its final name, or removes it. Raises `OSError`.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    while True:
        path = _free_name(target, "partial")
        if folder:
            path.mkdir()
        else:
            os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666))
        lock = hold(path)
        if lock is not None:
            break  # else somebody took it for a dead writer's before it was locked
    try:
        yield path
    finally:
        os.close(lock)


def aside_name(path: Path) -> Path:
    """Where what stands at `path` waits until what comes in its place is there."""
    return _free_name(path, "replaced")


def left_aside(path: Path) -> list[Path]:
    """What killed writers moved aside from `path` and did not come to remove or put back."""
    with suppress(OSError):
        return [other for other in path.parent.iterdir() if _is_of(other.name, path, "replaced")]
    return []


def remove_partials(folder: Path) -> None:
    """Delete what dead writers left half written in a folder. Links are not followed; what cannot be deleted stays."""
    if folder.is_dir():
        for path in list(folder.iterdir()):
            if is_partial(path.name):
                remove_dead(path)


def remove_partials_of(target: Path) -> None:
    """Delete what dead writers left of `target` alone, beside it."""
    if target.parent.is_dir():
        for path in list(target.parent.iterdir()):
            if _is_of(path.name, target, "partial"):
                remove_dead(path)


def remove_dead(path: Path) -> None:
    """Delete a partial unless its writer lives."""
    if path.is_symlink():
        return
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError:
        return  # gone already, or not for us to read
    try:
        if not _is_dead(path, descriptor):
            return
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        else:
            with suppress(OSError):
                path.unlink(missing_ok=True)
    finally:
        os.close(descriptor)


def _is_dead(path: Path, descriptor: int) -> bool:
    """Whether the writer of a partial is no more; takes its lock."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:  # no locks here
        return _died_here(path.name)
    return True


def remove_folder(path: Path, unless: Callable[[Path], object] = lambda path: False) -> bool:
    """Delete a folder of ours; renamed first, so that a kill leaves it whole or known as half. Raises `OSError`.

    It is put back, and False returned, if `unless` says so of what was renamed: something came into it meanwhile.
    """
    lock = hold(path)
    if lock is None:
        return False
    try:
        doomed = _free_name(path, "partial")
        os.replace(path, doomed)
        if unless(doomed):
            os.replace(doomed, path)
            return False
        shutil.rmtree(doomed, ignore_errors=True)
    finally:
        os.close(lock)
    return True


def _free_name(target: Path, kind: str) -> Path:
    suffix = f".{_here()}-{os.getpid()}-{os.urandom(4).hex()}.{kind}"
    return target.with_name(_stem(target, len(suffix)) + suffix)


def _stem(target: Path, room: int) -> str:
    """As much of the target's name as fits before a suffix of `room` bytes."""
    return os.fsdecode(os.fsencode(target.name)[: _LONGEST_NAME - room])


def _is_of(name: str, target: Path, kind: str) -> bool:
    match = _NAME.search(name)
    if match is None or match.end() != len(name) or match[3] != kind:
        return False
    return name[: match.start()] == _stem(target, len(match[0]))


def hold(path: Path) -> int | None:
    """A descriptor that holds the lock, if there are locks here; None when another has `path`, or it is gone."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
    except FileNotFoundError:
        return None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        return None
    except OSError:
        return descriptor  # the name alone must do
    try:
        mine, now = os.fstat(descriptor), os.stat(path)
    except FileNotFoundError:
        os.close(descriptor)
        return None
    if (mine.st_dev, mine.st_ino) != (now.st_dev, now.st_ino):
        os.close(descriptor)
        return None
    return descriptor


@cache
def _here() -> str:
    """8 hex digits of this machine since its start, and of the container: where process numbers mean the same."""
    parts = [platform.node()]
    with suppress(OSError):
        parts.append(Path("/proc/sys/kernel/random/boot_id").read_text())
    with suppress(OSError):
        parts.append(str(os.stat("/proc/self/ns/pid").st_ino))
    return hashlib.blake2b("\n".join(parts).encode(), digest_size=4).hexdigest()


def _died_here(name: str) -> bool:
    """Whether the writer in a partial's name was a process of this machine that is no more."""
    match = _NAME.search(name)
    if match is None or match[1] != _here():
        return False
    try:
        os.kill(int(match[2]), 0)
    except ProcessLookupError:
        return True
    except (OSError, OverflowError):
        return False
    return False
