"""Ctrl-C and SIGTERM during training: finish the step, save, and leave with the right exit code.

What loses nothing by it (an evaluation, after its checkpoint was saved) is left at once.
"""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType, TracebackType
from typing import Any

from memfactory.core.stopping import StopHandler, Stopped


class StopRequest:
    """While active, the first signal only sets `signal_number`; a second one interrupts at once."""

    def __init__(self) -> None:
        self.signal_number: int | None = None
        self._previous: dict[int, Any] = {}
        self._at_once: StopHandler | None = None

    def __enter__(self) -> StopRequest:
        for number in (signal.SIGINT, signal.SIGTERM):
            self._previous[number] = signal.signal(number, self._handle)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)

    @property
    def exit_code(self) -> int:
        """130 after Ctrl-C, 143 after SIGTERM, 0 without a signal."""
        return 0 if self.signal_number is None else 128 + self.signal_number

    @contextmanager
    def at_once(self) -> Iterator[None]:
        """While active a signal raises `Stopped`; so does one that has come before."""
        if self.signal_number is not None:
            raise Stopped(self.signal_number)
        self._at_once = StopHandler()
        try:
            with self._at_once.told():
                yield
        finally:
            self._at_once = None

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if self.signal_number is not None:
            raise Stopped(number)
        self.signal_number = number
        if self._at_once is not None:
            self._at_once.stop(number)
