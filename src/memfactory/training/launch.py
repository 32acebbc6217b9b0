"""Several processes for one run: started and watched by torch's elastic launcher, ended together.

The launcher starts the same command once for each rank and waits. What goes wrong on a rank is written to a file
that torch names, so that the launcher can show the first error and not the noise of the others that it tore down.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any

from memfactory.core.errors import BadInput, ServiceError, UserError
from memfactory.core.files import write_text
from memfactory.core.texts import plain

_LAUNCHER = "MEMFACTORY_LAUNCHER"
#: Seconds that the other ranks get to end after one has failed, before they are killed.
_GRACE = 20
#: What communication says on a rank whose peer is gone: a consequence, never the cause.
_LOST_PEER = (
    "connection closed by peer",
    "connection reset",
    "broken pipe",
    "gloo",
    "nccl",
    "tcpstore",
    "socket",
)


@dataclass(frozen=True)
class Layout:
    """How many ranks: `nproc` processes on each of `nodes` machines; rank 0 is met at `master_addr:master_port`.

    Raises `BadInput` for numbers that do not fit each other.
    """

    nproc: int = 1
    nodes: int = 1
    node_rank: int = 0
    master_addr: str | None = None
    master_port: int = 29500

    def __post_init__(self) -> None:
        if not 0 <= self.node_rank < self.nodes:
            raise BadInput(
                f"--node-rank {self.node_rank} does not fit --nnodes {self.nodes}; it counts from 0"
            )
        if self.nodes > 1 and self.master_addr is None:
            raise BadInput(
                "--nnodes needs --master-addr: the name or address of the machine with --node-rank 0"
            )

    @property
    def world(self) -> int:
        """Ranks on all machines."""
        return self.nproc * self.nodes


def launch(arguments: Sequence[str], layout: Layout) -> int:
    """Run `memfactory <arguments>` on every rank of this machine; returns the exit code.

    Ctrl-C and SIGTERM are handed on, so that the ranks finish their step, save and leave. When a rank fails the
    others are ended and the first error is printed: one line, or a traceback if it is a bug.
    """
    from torch.distributed.elastic.multiprocessing import DefaultLogsSpecs, Std
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.launcher.api import LaunchConfig, elastic_launch

    _set_environment(layout)
    with tempfile.TemporaryDirectory(prefix="memfactory-ranks-") as logs, _signals_handed_on() as received:
        redirects = dict.fromkeys(range(layout.nproc), Std.ALL)
        if layout.node_rank == 0:
            redirects[0] = Std.ERR
        config = LaunchConfig(
            min_nodes=layout.nodes,
            max_nodes=layout.nodes,
            nproc_per_node=layout.nproc,
            run_id="memfactory",
            max_restarts=0,  # a checkpoint is gone on with by the same command
            logs_specs=DefaultLogsSpecs(log_dir=logs, redirects=redirects),
            signals_to_handle="SIGQUIT",
            shutdown_timeout=_GRACE,
            **_meeting_place(layout),
        )
        try:
            elastic_launch(config, sys.executable)("-m", "memfactory", *arguments)
        except ChildFailedError as error:
            if received:
                return 128 + received[0]
            text, code = describe(_failures(error.failures, Path(logs)))
            print(plain(text), file=sys.stderr)
            return code
    return 128 + received[0] if received else 0


def _meeting_place(layout: Layout) -> dict[str, Any]:
    if layout.nodes == 1:
        return {"rdzv_backend": "c10d", "rdzv_endpoint": "127.0.0.1:0", "local_addr": "127.0.0.1"}
    return {
        "rdzv_backend": "static",
        "rdzv_endpoint": f"{layout.master_addr}:{layout.master_port}",
        "rdzv_configs": {"rank": layout.node_rank},
    }


def _set_environment(layout: Layout) -> None:
    import logging

    os.environ[_LAUNCHER] = str(os.getpid())
    # Else each rank takes all cores, and they wait for each other's threads.
    threads = max(1, len(os.sched_getaffinity(0)) // layout.nproc)
    os.environ.setdefault("OMP_NUM_THREADS", str(threads))
    logging.getLogger("torch.distributed.elastic").setLevel(logging.CRITICAL)


@contextmanager
def _signals_handed_on() -> Iterator[list[int]]:
    """While active, SIGINT and SIGTERM go to the ranks; yields the numbers that came."""
    received: list[int] = []

    def hand_on(number: int, frame: FrameType | None) -> None:
        import psutil

        received.append(number)
        for child in psutil.Process().children():
            child.send_signal(number)

    previous = {number: signal.signal(number, hand_on) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield received
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


@dataclass(frozen=True)
class Failure:
    """How a rank ended. `record` is what it wrote about its error (None: it had no time to)."""

    rank: int
    exit_code: int
    at: float
    record: Mapping[str, Any] | None = None
    last_words: str = ""

    @property
    def is_consequence(self) -> bool:
        """Whether this came of another rank's failure: a lost peer, or torch's SIGTERM to those that were left."""
        return self.record["lost_peer"] if self.record is not None else self.exit_code == -signal.SIGTERM


def _failures(known: Mapping[int, Any], logs: Path) -> list[Failure]:
    """What torch saw fail, and what other ranks of this machine wrote before they were ended."""
    found = []
    for rank, process in known.items():
        record = _read_record(Path(process.error_file))
        stderr = next(iter(logs.glob(f"*/attempt_*/{process.local_rank}/stderr.log")), None)
        words = stderr.read_text(encoding="utf-8", errors="replace") if stderr is not None else ""
        at = record["at"] if record else process.timestamp + 1.0  # torch cuts it to whole seconds
        found.append(Failure(rank, process.exitcode, at, record, words))
    for path in logs.glob("*/attempt_*/*/error.json"):
        record = _read_record(path)
        if record is not None and record["rank"] not in known:
            found.append(Failure(record["rank"], record["exit_code"], record["at"], record))
    return found


def _read_record(path: Path) -> Mapping[str, Any] | None:
    try:
        record: Mapping[str, Any] = json.loads(path.read_text(encoding="utf-8"))["memfactory"]
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return None
    return record


def describe(failures: Sequence[Failure]) -> tuple[str, int]:
    """What to print about a run whose ranks failed, and the exit code: the cause first, whoever came to see it first.

    A rank that only lost touch with another, or that the launcher ended, is no cause as long as there is another.
    """
    first = min(failures, key=lambda f: (f.is_consequence, f.at, f.rank))
    again = "run the same command again to go on"
    if first.record is not None:
        who = "" if first.record["exit_code"] == BadInput.exit_code else f"rank {first.rank}: "
        if first.record["user_error"]:
            return f"error: {who}{first.record['message']}", first.record["exit_code"]
        return f"{first.record['traceback'].rstrip()}\nerror: {who}{first.record['message']}", 1
    if first.exit_code < 0:
        name = signal.Signals(-first.exit_code).name
        hint = " (the operating system does that when memory runs out)" if name == "SIGKILL" else ""
        return f"error: rank {first.rank} was killed by {name}{hint}; {again}", 1
    tail = "\n".join(first.last_words.strip().splitlines()[-20:])
    return f"{tail}\nerror: rank {first.rank} ended with exit code {first.exit_code}; {again}", 1


@contextmanager
def as_rank(rank: int, *, several: bool = True) -> Iterator[None]:
    """Around the work of a rank: it ends when its launcher does, and its error is kept for the launcher.

    After an error the process ends here and now: what Python does at its end may wait for the other ranks, which wait
    for this one.
    """
    _end_with_launcher()
    try:
        yield
    except Exception as error:
        if not several:
            raise
        _end_rank(error, rank)


def _end_rank(error: Exception, rank: int) -> None:
    """Keep the error for the launcher, print it, and end this process here and now, from whichever thread."""
    record = _record(error, rank)
    text, code = describe([Failure(rank, record["exit_code"], record["at"], record)])
    print(plain(text), file=sys.stderr, flush=True)
    sys.stdout.flush()
    os._exit(code)


def _end_with_launcher() -> None:
    """Ask Linux to kill this process when the launcher dies, however it dies: no orphan may hold the run folder."""
    launcher = os.environ.get(_LAUNCHER)
    if launcher is None or not sys.platform.startswith("linux"):
        return
    import ctypes

    set_death_signal = 1  # PR_SET_PDEATHSIG of <linux/prctl.h>
    ctypes.CDLL(None).prctl(set_death_signal, signal.SIGKILL)
    if os.getppid() != int(launcher):  # it died before the line above
        os._exit(1)


def _record(error: Exception, rank: int) -> dict[str, Any]:
    """Write the error where torch's launchers look for it (`TORCHELASTIC_ERROR_FILE`), with what ours wants more."""
    user_error = isinstance(error, UserError)
    message = " ".join(str(error).split()) if user_error else f"{type(error).__name__}: {error}"
    trace = "".join(traceback.format_exception(error))
    lost = not user_error and any(word in message.lower() for word in _LOST_PEER)
    record = {
        "rank": rank,
        "at": time.time(),
        "message": message,
        "traceback": trace,
        "user_error": user_error,
        "exit_code": error.exit_code if isinstance(error, UserError) else 1,
        "lost_peer": lost,
    }
    path = os.environ.get("TORCHELASTIC_ERROR_FILE")
    if path:
        extra = {"py_callstack": trace, "timestamp": str(int(time.time()))}
        text = json.dumps({"message": {"message": message, "extraInfo": extra}, "memfactory": record})
        write_text(Path(path), text)
    return record


def on_ranks(
    layout: Layout,
    arguments: Sequence[str],
    work: Callable[[Any], int],
    environment: Mapping[str, str] = os.environ,
) -> int:
    """Start ranks that run `arguments`, or do `work(ranks)` as one of those that a launcher started, or alone.

    Under torchrun, the deepspeed launcher or srun this process is a rank already and joins the others. Only where
    srun started one task for each machine and `layout` asks for several, they are started below it.
    """
    from memfactory.core.rank_watch import limit_of
    from memfactory.core.ranks import find_place, join_ranks

    place = find_place(environment)
    one_a_node = place is not None and place.local_world == 1 and "RANK" not in environment
    if layout.world > 1 and (place is None or (one_a_node and layout.nproc > 1)):
        return launch(arguments, layout)
    rank, limit = 0 if place is None else place.rank, limit_of(environment)
    with as_rank(rank, several=place is not None):
        ranks = join_ranks(environment)
        with ranks.watched(lambda said: _end_rank(ServiceError(said), rank), limit) as watched:
            return work(watched)
