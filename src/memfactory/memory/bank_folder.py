"""The folder of a memory bank on disk: which files are the bank's, its description, and the lock of its one writer.

`bank.json` says the layout version, the embedder and the dimension; it comes last when a bank is made. The table holds
the same (`lance_rows.OWN_NOTE`), so that it can be made anew. Nothing here removes or replaces a table.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeGuard

from memfactory.core.errors import BadInput, did_you_mean
from memfactory.core.files import disk_errors, write_json
from memfactory.core.partials import is_partial

FORMAT, VERSION = "memfactory-memory-bank", 1
INFO, LOCK, TABLE_FOLDER = "bank.json", "writer.lock", "items.lance"
#: Where an import works until it is complete, and where `repair` puts what cannot be read.
HALF, DAMAGED, SUMS = "importing.partial", "damaged", "checksums.jsonl"
_KEEPERS = ("pending.jsonl", "components")  # of an agent that serves from the bank
_MINE = {INFO, LOCK, TABLE_FOLDER, HALF, DAMAGED, SUMS, *_KEEPERS}


@dataclass(frozen=True)
class BankInfo:
    """Whose vectors a bank holds, and their dimension."""

    embedder: str
    dim: int


def is_bank(path: str | Path) -> bool:
    """Whether a folder holds a memory bank."""
    return (Path(path).expanduser() / INFO).is_file()


def no_bank(path: Path, what_then: str = "") -> BadInput:
    """The error for a bank that is not there, with the banks beside it that it may have been meant for.

    `what_then` says what would make one.
    """
    folder = path.expanduser().parent
    names: list[str] = []
    with suppress(OSError):
        names = sorted(entry.name for entry in folder.iterdir() if entry.name != path.name and is_bank(entry))
    hint = did_you_mean(path.name, names)
    if not hint and names:
        hint = f"; the banks in {folder}: {', '.join(names[:8])}{', …' if names[8:] else ''}"
    return BadInput(f"{path}: no such memory bank{f'; {what_then}' * bool(what_then)}{hint}")


def check_folder(path: Path) -> None:
    """Raise `BadInput` unless a folder is a bank, or could become one without anything in it being lost."""
    if not path.exists():
        raise no_bank(path)
    if not path.is_dir():
        raise BadInput(f"{path}: is a file; a memory bank is a folder")
    if (path / INFO).is_file():
        return
    try:
        there = {entry.name for entry in path.iterdir() if not is_partial(entry.name)}
    except OSError as error:
        raise BadInput(f"{path}: cannot be read ({error.strerror}); see to its permissions") from error
    if INFO in there:
        raise _damaged(path, "it is no file")
    if strangers := sorted(there - _MINE):
        raise BadInput(
            f"{path}: this folder holds other things ({', '.join(strangers[:3])}{', …' if strangers[3:] else ''}) "
            f"and no {INFO}; it is no memory bank"
        )
    if TABLE_FOLDER not in there and (left := sorted(there & set(_KEEPERS))):
        raise BadInput(
            f"{path}: {INFO} and {TABLE_FOLDER} are missing here, {left[0]} is there; copy them back from where you "
            f"keep copies, or move {left[0]} away to begin a new bank"
        )


def read_info(path: Path) -> BankInfo:
    """What `bank.json` says. Raises `BadInput` for one that is damaged or of a newer layout, naming the remedy."""
    file = path / INFO
    try:
        text = file.read_text(encoding="utf-8")
    except OSError as error:
        raise BadInput(f"{file}: cannot be read ({error.strerror})") from error
    except ValueError:
        raise _damaged(path, "it is no text") from None
    try:
        info = json.loads(text)
    except (ValueError, RecursionError):
        raise _damaged(path, "it is empty" if not text.strip() else "it is no JSON") from None
    if not isinstance(info, dict) or info.get("format") != FORMAT:
        raise _damaged(path, f'it does not say "format": "{FORMAT}"')
    version, embedder, dim = info.get("version"), info.get("embedder"), info.get("dim")
    if not _is_count(version):
        raise _damaged(path, "it has no layout version")
    if version > VERSION:
        raise BadInput(
            f"{path}: this memory bank has layout version {version}, and this memfactory reads up to {VERSION}; "
            "install a newer memfactory"
        )
    if not isinstance(embedder, str) or not _is_count(dim):
        raise _damaged(path, "it names no embedder and dimension")
    if "check" in info and info["check"] != _check(embedder, dim):
        raise _damaged(path, "its checksum is that of another content")
    return BankInfo(embedder, dim)


def write_info(path: Path, info: BankInfo) -> None:
    """Make `bank.json`, whole or not at all."""
    value = {"format": FORMAT, "version": VERSION, "embedder": info.embedder, "dim": info.dim}
    write_json(path / INFO, {**value, "check": _check(info.embedder, info.dim)})


def lost_info(path: Path, rows: int | None) -> BadInput:
    """The error for a table with memories (None: nobody can tell) that has lost its `bank.json`."""
    held = "memories that cannot be counted" if rows is None else f"{rows} rows of memories and notes"
    return BadInput(
        f"{path}: {INFO} is missing, and {TABLE_FOLDER} holds {held}; memfactory bank repair {path} makes it anew"
    )


class WriterLock:
    """The right to write to the bank in a folder, which is made if it is not there: one process's at a time.

    It ends with the process, however it ends. Raises `BadInput` when another process has it, `DiskError` where nothing
    can be written.
    """

    def __init__(self, path: Path) -> None:
        self._file = path / LOCK
        self._made = False
        with disk_errors(path, option="--bank"):
            while (descriptor := self._take(path)) is None:
                pass  # the folder or the lock was removed while this was waiting for it
        self._descriptor: int | None = descriptor
        with disk_errors(path, option="--bank"):
            os.ftruncate(descriptor, 0)
            os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)

    @property
    def held(self) -> bool:
        """Whether it was not released yet."""
        return self._descriptor is not None

    def release(self, *, abandon: bool = False) -> None:
        """Let another process write; with `abandon` the folder goes too, if nothing but the lock is in it."""
        if self._descriptor is None:
            return
        if abandon and self._made:
            with suppress(OSError):
                if os.listdir(self._file.parent) == [LOCK]:
                    self._file.unlink()
                    self._file.parent.rmdir()
        os.close(self._descriptor)
        self._descriptor = None

    def _take(self, path: Path) -> int | None:
        """The lock's descriptor; None when the file that was locked is not the folder's lock any more."""
        self._made = self._made or not path.exists()
        path.mkdir(parents=True, exist_ok=True)
        try:
            descriptor = os.open(self._file, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        except FileNotFoundError:
            return None
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            mine, now = os.fstat(descriptor), os.stat(self._file)
            if (mine.st_dev, mine.st_ino) == (now.st_dev, now.st_ino):
                return descriptor
        except BlockingIOError:
            named = os.pread(descriptor, 20, 0).strip()
            owner = named.decode() if named.isdigit() else "unknown"
            os.close(descriptor)
            raise BadInput(
                f"{path}: process {owner} is writing to this memory bank; wait for it to end, or use a "
                "bank of your own"
            ) from None
        except FileNotFoundError:
            pass
        except OSError as error:
            os.close(descriptor)
            raise BadInput(
                f"{path}: cannot be locked ({error.strerror}); keep the bank on a file system that has locks"
            ) from error
        os.close(descriptor)
        return None


def being_written(path: Path) -> bool:
    """Whether some process holds the lock of a bank."""
    try:
        descriptor = os.open(path / LOCK, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError:
        return True
    finally:
        os.close(descriptor)
    return False


def _damaged(path: Path, how: str) -> BadInput:
    return BadInput(
        f"{path / INFO}: is not a memory bank's description ({how}); memfactory bank repair {path} makes it anew"
    )


def _is_count(value: Any) -> TypeGuard[int]:
    return isinstance(value, int) and not isinstance(value, bool) and 0 < value < 2**31


def _check(embedder: str, dim: int) -> str:
    content = json.dumps([FORMAT, embedder, dim]).encode()
    return hashlib.blake2b(content, digest_size=8).hexdigest()
