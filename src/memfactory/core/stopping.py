"""SIGTERM and Ctrl-C as an exception, for work whose finished part is on the disk already."""

from __future__ import annotations

import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType


class Stopped(KeyboardInterrupt):
    """A signal asked the program to stop; what it did so far is kept. Not an error, so no `except Exception` has it."""

    def __init__(self, number: int, what: str = "stopped") -> None:
        super().__init__(f"{what} by {signal.Signals(number).name}; run the same command to go on")
        self.number = number

    @property
    def exit_code(self) -> int:
        """130 for Ctrl-C, 143 for SIGTERM."""
        return 128 + self.number


class StopHandler:
    """A signal handler that stops what runs now.

    What an event loop runs is cancelled: an exception in the middle of one of its tasks would be kept there. Else, or
    at a second signal, it raises `Stopped`.
    """

    def __init__(self) -> None:
        self.number: int | None = None

    def stop(self, number: int, frame: FrameType | None = None) -> None:
        """Take a signal."""
        first = self.number is None
        self.number = number
        if not (first and _cancel_tasks()):
            raise Stopped(number)

    @contextmanager
    def told(self) -> Iterator[None]:
        """Turn what comes of a cancelled task after a signal into `Stopped`."""
        try:
            yield
        except Stopped:
            raise
        except BaseException as error:
            if self.number is None or isinstance(error, Exception):
                raise
            raise Stopped(self.number) from None


def _cancel_tasks() -> bool:
    """Cancel what this thread's event loop runs; False without one."""
    asyncio = sys.modules.get("asyncio")  # not imported: no loop
    if asyncio is None:
        return False
    try:
        loop = asyncio.get_running_loop()
    except RuntimeError:
        return False

    def cancel() -> None:
        for task in asyncio.all_tasks(loop):
            task.cancel()

    loop.call_soon_threadsafe(cancel)  # wakes it, if it waits
    return True


@contextmanager
def stopped_by_signals() -> Iterator[None]:
    """While active SIGTERM stops at once with `Stopped`, and Ctrl-C comes out as one as well.

    Python tells the main thread alone of signals; in another one nothing changes.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    handler = StopHandler()
    before = signal.signal(signal.SIGTERM, handler.stop)
    try:
        with handler.told():
            yield
    except Stopped:
        raise
    except KeyboardInterrupt:
        raise Stopped(signal.SIGINT) from None
    finally:
        signal.signal(signal.SIGTERM, before)
