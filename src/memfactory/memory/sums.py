"""Checksums of a bank's files: what a disk or a copy changed without an error is noticed when the bank is opened.

LanceDB never changes a file that it has written, so each gets its checksum once, when the writer finds it. The list is
only appended to, and a file that is not in it (a kill came between) is not held against it.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from memfactory.core.errors import BadInput
from memfactory.core.files import disk_errors, write_bytes
from memfactory.memory.bank_folder import SUMS, TABLE_FOLDER

_NOT = {"latest_version_hint.json"}  # a hint that is written again and again, and may be wrong


class Sums:
    """The checksums of the table in a bank's folder."""

    def __init__(self, bank: Path) -> None:
        """Raises `BadInput` for a list that cannot be read."""
        self._bank = bank
        self._table = bank / TABLE_FOLDER
        self._path = bank / SUMS
        self._known: dict[str, str] = {}
        try:
            lines = self._path.read_bytes().split(b"\n")
        except FileNotFoundError:
            lines = [b""]
        except OSError as error:
            raise BadInput(f"{self._path}: cannot be read ({error.strerror})") from error
        for number, line in enumerate(lines[:-1], start=1):  # the last is empty, or was cut off by a kill
            try:
                name, total = json.loads(line)
                self._known[str(name)] = str(total)
            except (ValueError, TypeError, RecursionError):
                raise BadInput(
                    f"{self._path}:{number}: is no checksum; memfactory bank repair {bank} makes the list anew"
                ) from None
        self._cut_off = bool(lines[-1])

    def damaged(self) -> list[str]:
        """The files, by their names in the table's folder, whose content is another than when they were written."""
        found = []
        for name, total in self._known.items():
            with suppress(FileNotFoundError):  # tidied away; if it is missed, LanceDB says so
                if _sum_of(self._table / name) != total:
                    found.append(name)
        return found

    def check(self) -> None:
        """Raise `BadInput` for the first damaged file."""
        if damaged := self.damaged():
            raise BadInput(
                f"{self._table / damaged[0]}: is damaged (its checksum is another than when it was written); "
                f"memfactory bank repair {self._bank} goes back to the newest state that is whole"
            )

    def record(self) -> None:
        """Add the files that have come since. Only for the one writer of the bank."""
        new = {name: _sum_of(self._table / name) for name in self._files() if name not in self._known}
        if self._cut_off:
            self._known |= new
            self.rewrite()
        elif new:
            self._append(_lines(new))
            self._known |= new

    def _append(self, lines: bytes) -> None:
        with disk_errors(self._path, option="bank"), open(self._path, "ab", buffering=0) as file:
            size = os.fstat(file.fileno()).st_size
            try:
                if file.write(lines) != len(lines):
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            except OSError:
                os.ftruncate(file.fileno(), size)
                raise

    def forget(self) -> None:
        """Take nothing that is there for granted any more; `record` begins anew."""
        self._known = {}
        with disk_errors(self._path, option="bank"):
            self._path.unlink(missing_ok=True)

    def rewrite(self) -> None:
        """Leave the files out that are gone."""
        there = set(self._files())
        self._known = {name: total for name, total in self._known.items() if name in there}
        write_bytes(self._path, _lines(self._known))
        self._cut_off = False

    def _files(self) -> Iterator[str]:
        for folder in ("data", "_versions", "_deletions", "_indices"):
            for place, _, names in os.walk(self._table / folder):
                for name in names:
                    if name not in _NOT:
                        yield (Path(place) / name).relative_to(self._table).as_posix()


def _lines(sums: dict[str, str]) -> bytes:
    return "".join(json.dumps([name, total]) + "\n" for name, total in sums.items()).encode()


def _sum_of(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.blake2b(digest_size=8)).hexdigest()
