"""A program in a terminal of its own, for tests: type, read what it shows, press Ctrl-C and Ctrl-D."""

from __future__ import annotations

import os
import pty
import re
import select
import signal
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path

CTRL_C, CTRL_D = "\x03", "\x04"
_ESCAPES = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]|\x1b[=>]")


class Terminal:
    """Runs a command behind a pseudo-terminal. `shown` is all of its output, without colours and cursor moves."""

    def __init__(self, command: Sequence[str], folder: Path) -> None:
        controller, terminal = pty.openpty()
        self._controller = controller
        self.shown = ""
        environment = {**os.environ, "TERM": "xterm", "COLUMNS": "120"}
        self.process = subprocess.Popen(
            command,
            cwd=folder,
            env=environment,
            stdin=terminal,
            stdout=terminal,
            stderr=terminal,
            start_new_session=True,
            preexec_fn=_take_terminal,
        )
        os.close(terminal)

    def wait_for(self, text: str, seconds: float = 240) -> str:
        """Read until `text` comes after what was read before; returns what came, `text` included."""
        before, end = len(self.shown), time.monotonic() + seconds
        while text not in self.shown[before:]:
            left = end - time.monotonic()
            if left <= 0 or not self._read(left):
                raise AssertionError(f"no {text!r} in:\n{self.shown[before:]}")
        return self.shown[before:]

    def type(self, keys: str) -> None:
        """Press keys."""
        os.write(self._controller, keys.encode())

    def end(self, seconds: float = 240) -> int:
        """Read to the end; returns the exit code (negative: the signal that ended it)."""
        stop = time.monotonic() + seconds
        while time.monotonic() < stop and self._read(stop - time.monotonic()):
            pass
        return self.process.wait(max(0.1, stop - time.monotonic()))

    def kill(self) -> None:
        """As kill -9 does."""
        self.process.send_signal(signal.SIGKILL)
        self.process.wait(10)

    def _read(self, seconds: float) -> bool:
        ready, _, _ = select.select([self._controller], [], [], seconds)
        if not ready:
            return False
        try:
            data = os.read(self._controller, 65536)
        except OSError:  # the program has closed the terminal
            return False
        self.shown += _ESCAPES.sub("", data.decode(errors="replace"))
        return bool(data)


def _take_terminal() -> None:
    """Make the pseudo-terminal the process's own, so that Ctrl-C reaches it.

    Tests that run in the background (`nohup`, `&` in a script) ignore SIGINT, and so would all that they start.
    """
    import fcntl
    import termios

    signal.signal(signal.SIGINT, signal.SIG_DFL)
    fcntl.ioctl(0, termios.TIOCSCTTY, 0)
