"""A small process between a run and a server it started: none of the server's processes outlives either.

`python -m memfactory.samplers.server_guard --parent PID [--cleanup FOLDER] -- COMMAND ...` runs the command in the
guard's own session. When the parent dies, however it dies, Linux sends the guard a signal and it kills all of the
session; when the server's first process ends, what it left behind is killed. Servers like vLLM's have several
processes, and only the first of them would hear of its parent's death otherwise.
"""

from __future__ import annotations

import argparse
import ctypes
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Sequence
from types import FrameType

_SET_DEATH_SIGNAL = 1  # PR_SET_PDEATHSIG of <linux/prctl.h>


def die_with_parent(number: int) -> None:
    """Ask Linux to send this process the signal `number` when the thread that started it ends."""
    if sys.platform.startswith("linux"):
        ctypes.CDLL(None).prctl(_SET_DEATH_SIGNAL, number)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command until it or the parent ends; returns its exit code."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--parent", type=int, required=True, help="process whose end ends the command")
    parser.add_argument("--cleanup", help="folder to delete when the parent is gone")
    parser.add_argument("command", nargs="+", help="what to run")
    options = parser.parse_args(arguments)

    def end(number: int, frame: FrameType | None) -> None:
        if options.cleanup and os.getppid() != options.parent:
            shutil.rmtree(options.cleanup, ignore_errors=True)
        _kill_session()

    signal.signal(signal.SIGTERM, end)
    # Ctrl-C in a terminal is for the run, which first finishes its step: the server must go on until then.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    die_with_parent(signal.SIGTERM)
    if os.getppid() != options.parent:  # it died before the line above
        end(signal.SIGTERM, None)
    child = subprocess.Popen(options.command, preexec_fn=lambda: die_with_parent(signal.SIGKILL))
    code = child.wait()
    _kill_others()
    return code if code >= 0 else 128 - code


def _kill_others() -> None:
    """Kill what the server's first process left behind in this session."""
    import psutil

    for number in psutil.pids():
        try:
            if number != os.getpid() and os.getsid(number) == os.getpid():
                os.kill(number, signal.SIGKILL)
        except (ProcessLookupError, PermissionError):
            continue  # it has ended in between, or is none of ours


def _kill_session() -> None:
    """Kill every process of this session, the guard included, if the guard leads one."""
    if os.getpid() == os.getsid(0):
        os.killpg(0, signal.SIGKILL)
    os._exit(128 + signal.SIGTERM)


if __name__ == "__main__":
    sys.exit(main())
