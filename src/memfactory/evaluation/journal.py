"""Finished rollouts on disk, one line each, so that an evaluation that was killed does only the rest.

A journal belongs to one configuration: all that decides what a rollout comes to, besides its task. Lines are found
again by set, task id, digest of the task and index, so changed data are done anew and a higher limit goes on.
"""

from __future__ import annotations

import fcntl
import json
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import IO, Any

from memfactory.core.errors import BadInput
from memfactory.core.files import disk_errors
from memfactory.evaluation.predictions import Finished

_LAYOUT = 1


@dataclass(frozen=True)
class Key:
    """Which rollout a line is of. `task_digest` is `evaluation.predictions.whole_digest`."""

    set: str
    task_id: str
    task_digest: str
    index: int


@dataclass(frozen=True)
class Line:
    """A finished rollout. `clock` are seconds from the start of its set, in the start of the program `session`.

    `peak_memory` (and `peak_gpu_memory`, where there is a GPU) are bytes, the most of that set until then.
    """

    finished: Finished
    session: str
    clock: float
    peak_memory: int
    peak_gpu_memory: int | None


class Journal:
    """The finished rollouts of one configuration; a context manager that holds the file for one process."""

    def __init__(self, path: Path, configuration: Mapping[str, Any]) -> None:
        """`configuration` is written into the file's first line, for readers, and must be the one that is there.

        Raises `BadInput` for a file that is no journal of it, or that another process is using; it is left as it is.
        """
        self.path = path
        self.session = f"{time.time():.6f}"
        self._header = {"journal": _LAYOUT, "configuration": dict(configuration)}
        self._lines: dict[Key, Line] = {}
        self._file: IO[str] | None = None
        if path.exists():
            self._open()

    def __enter__(self) -> Journal:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def get(self, key: Key) -> Line | None:
        """The finished rollout, if there is one."""
        return self._lines.get(key)

    def add(self, key: Key, line: Line) -> None:
        """Append a rollout and hand it to the operating system."""
        record = {
            "set": key.set,
            "task_id": key.task_id,
            "task_digest": key.task_digest,
            "index": key.index,
            "session": line.session,
            "clock": line.clock,
            "peak_memory": line.peak_memory,
            "peak_gpu_memory": line.peak_gpu_memory,
            **line.finished.as_json(),
        }
        self._open()  # only now: an evaluation that fails at once leaves nothing
        self._write(record)
        self._lines[key] = line

    def close(self) -> None:
        """Give the file back; idempotent."""
        if self._file is not None:
            self._file.close()

    def _open(self) -> None:
        """Open, lock and read the file, unless it is open."""
        if self._file is not None:
            return
        with disk_errors(self.path):
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._file = open(self.path, "a+", encoding="utf-8")  # noqa: SIM115 (held until `close`)
        try:
            self._lock(self._file)
            self._read(self._file)
        except BaseException:
            self.close()
            raise

    def _lock(self, file: IO[str]) -> None:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise BadInput(
                f"{self.path}: another process is making these rollouts; wait for it or choose --output-dir"
            ) from None

    def _read(self, file: IO[str]) -> None:
        header = self._header
        data = self.path.read_bytes()
        *whole, cut_off = data.split(b"\n")
        if cut_off and whole:
            with disk_errors(self.path):
                file.truncate(len(data) - len(cut_off))
        elif cut_off and not json.dumps(header).encode().startswith(cut_off):
            raise self._foreign(1)
        elif cut_off:
            file.truncate(0)
        if not whole:
            self._write(header)
            return
        if _parse(whole[0]) != json.loads(json.dumps(header)):
            raise self._foreign(1)
        for number, line in enumerate(whole[1:], start=2):
            try:
                key, value = _line(_parse(line))
            except (KeyError, TypeError, ValueError, AttributeError, OverflowError):
                raise self._foreign(number) from None
            self._lines[key] = value

    def _foreign(self, number: int) -> BadInput:
        return BadInput(
            f"{self.path}:{number}: not a finished rollout of this evaluation; move the file away or choose "
            f"another --output-dir"
        )

    def _write(self, record: Mapping[str, Any]) -> None:
        assert self._file is not None
        with disk_errors(self.path):
            self._file.write(json.dumps(record) + "\n")
            self._file.flush()


def _parse(line: bytes) -> Any:
    try:
        return json.loads(line)
    except (ValueError, RecursionError):
        return None


def _line(record: Any) -> tuple[Key, Line]:
    key = Key(str(record["set"]), str(record["task_id"]), str(record["task_digest"]), int(record["index"]))
    line = Line(
        finished=Finished.from_json(record),
        session=str(record["session"]),
        clock=float(record["clock"]),
        peak_memory=int(record["peak_memory"]),
        peak_gpu_memory=record["peak_gpu_memory"],
    )
    return key, line
