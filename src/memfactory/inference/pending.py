"""What was said to a bank and is not in it yet: on disk before anything is done with it, so a kill loses nothing."""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Collection
from dataclasses import asdict, dataclass

from memfactory.core.errors import BadInput
from memfactory.core.files import disk_errors
from memfactory.inference.notes import Unread, whole_number
from memfactory.memory.lance import LanceBank

_FILE = "pending.jsonl"
#: The bank's note of the last number that it has taken in, committed together with what became of it.
_MARK = "said"
_UNREAD = "said/unread"
_OPTION = "--bank"


@dataclass(frozen=True)
class Said:
    """One message. Numbers count all messages that a bank ever got, from 1."""

    number: int
    speaker: str
    text: str
    time: str


class Pending:
    """The messages that wait to enter a bank, in a file in the bank's folder.

    Each message enters exactly once: the bank notes its number in the commit that takes it in, and numbers up to that
    note are no longer waiting, whatever the file still says. A message whose replies were not understood waits on; a
    second note says so.
    """

    def __init__(self, bank: LanceBank) -> None:
        """Raises `BadInput` naming file and line for a file that is none of ours."""
        self._bank = bank
        self._path = bank.path / _FILE
        self._waiting = self._read()

    def __len__(self) -> int:
        return len(self._waiting)

    def first(self, passed_over: Collection[int] = (), until: int | None = None) -> Said | None:
        """The message that waits longest, of those not passed over and, with `until`, up to that number."""
        for said in self._waiting:
            if said.number not in passed_over and (until is None or said.number <= until):
                return said
        return None

    def attempts(self, said: Said) -> int:
        """How often a message was tried in vain."""
        return Unread.of(self._bank, _UNREAD).attempts.get(said.number, 0)

    def add(self, speaker: str, text: str, time: str) -> Said:
        """Put a message at the end; it is on disk when this returns. Raises `DiskError`; it waits not, then."""
        last = max(self._taken, self._waiting[-1].number if self._waiting else 0)
        said = Said(last + 1, speaker, text, time)
        line = json.dumps(asdict(said), ensure_ascii=True) + "\n"
        with disk_errors(self._path, _OPTION):
            new = not self._path.exists()
            descriptor = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
            try:
                size = os.fstat(descriptor).st_size
                try:
                    if os.write(descriptor, line.encode()) < len(line):  # ASCII: as many bytes
                        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
                    os.fsync(descriptor)
                except OSError:
                    os.ftruncate(descriptor, size)
                    raise
            finally:
                os.close(descriptor)
            if new:
                _sync_folder(self._path.parent)
        self._waiting.append(said)
        return said

    def note(self, said: Said) -> dict[str, str]:
        """The notes for the bank that say that this message, and all before it, have been taken in."""
        return {**self._mark(said), **Unread.of(self._bank, _UNREAD).without(said.number)}

    def note_unread(self, said: Said) -> dict[str, str]:
        """The notes that say that this message was tried, and waits on; those after it need not wait for it."""
        return {**self._mark(said), **Unread.of(self._bank, _UNREAD).with_one_more(said.number)}

    def settle(self) -> None:
        """Forget what the bank says it has taken in."""
        self._waiting = [said for said in self._waiting if self._waits(said)]
        if not self._waiting:
            with disk_errors(self._path, _OPTION):
                self._path.unlink(missing_ok=True)

    def _mark(self, said: Said) -> dict[str, str]:
        return {_MARK: str(said.number)} if said.number > self._taken else {}

    def _waits(self, said: Said) -> bool:
        return said.number > self._taken or said.number in Unread.of(self._bank, _UNREAD).attempts

    @property
    def _taken(self) -> int:
        return whole_number(_MARK, self._bank.meta.get(_MARK, "0"))

    def _read(self) -> list[Said]:
        if not self._path.exists():
            return []
        with disk_errors(self._path, _OPTION):
            data = self._path.read_bytes()
        *whole, cut_off = data.split(b"\n")
        waiting = []
        for number, line in enumerate(whole, start=1):
            try:
                said = Said(**json.loads(line))
                sound = (
                    type(said.number) is int
                    and 0 < said.number < 2**53
                    and all(isinstance(text, str) for text in (said.speaker, said.text, said.time))
                )
            except (ValueError, TypeError, RecursionError):
                sound = False
            if not sound:
                raise BadInput(
                    f"{self._path}:{number}: is no message that waits for this bank; delete the line"
                )
            waiting.append(said)
        if cut_off:  # a kill while it was written: it never was accepted
            with disk_errors(self._path, _OPTION):
                os.truncate(self._path, len(data) - len(cut_off))
        return [said for said in waiting if self._waits(said)]


def something_waits(bank: LanceBank) -> bool:
    """Whether there is a file of messages in a bank's folder, readable or not."""
    return os.path.lexists(bank.path / _FILE)


def _sync_folder(folder: os.PathLike[str]) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
