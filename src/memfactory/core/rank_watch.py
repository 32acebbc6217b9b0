"""Notices that the ranks of a run wait for each other for ever, and ends them with a word about it.

A time limit on an exchange would not do: a rank may rightly wait for hours while another evaluates. So each rank tells
the others how long it has had nothing to do, and only when *no* rank has done anything for `limit` seconds is it a
hang: a rank that stands still is one, whatever the reason. Work is processor time of the process and its children,
file input and output, and what `beat` is told (replies of servers, which cost neither).
"""

from __future__ import annotations

import contextlib
import json
import os
import resource
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from types import FrameType
from typing import Any, Protocol

from memfactory.core.errors import BadInput

#: The variable that sets the limit in seconds, and the limit without it.
LIMIT_VARIABLE, LIMIT = "MEMFACTORY_RANK_TIMEOUT_S", 1800.0
#: The limit after SIGTERM or Ctrl-C: whoever asks a run to end does not wait half an hour for one that stands still.
LIMIT_WHEN_ASKED = 20.0
#: Share of a core below which a process counts as idle: its clocks and background threads use some.
_BUSY = 0.02


def limit_of(environment: Mapping[str, str]) -> float:
    """The limit in seconds that the environment sets. Raises `BadInput` for what is no such number."""
    text = environment.get(LIMIT_VARIABLE)
    if text is None:
        return LIMIT
    with contextlib.suppress(ValueError):
        if 1 <= float(text) < float("inf"):
            return float(text)
    raise BadInput(f"{LIMIT_VARIABLE}: a number of seconds, at least 1, is needed, not '{text}'")


class Store(Protocol):
    """What the watch needs of torch's key-value stores."""

    def set(self, key: str, value: str) -> None:
        """Write a value."""
        ...

    def check(self, keys: list[str]) -> bool:
        """Whether all keys have a value."""
        ...

    def get(self, key: str) -> bytes:
        """The value of a key."""
        ...


@dataclass
class Idleness:
    """How long no rank has done anything, as far as this one knows. Times are seconds of one clock.

    What a rank says of itself ages: from one that has fallen silent (stopped, gone) no work is known of.
    """

    world: int
    start: float
    heard: dict[int, tuple[int, float, float, str]] = field(default_factory=dict)

    def hear(self, rank: int, number: int, idle: float, doing: str, now: float) -> None:
        """A rank's report: its running number, its seconds without work, and where it stands."""
        if rank not in self.heard or self.heard[rank][0] != number:
            self.heard[rank] = (number, idle, now, doing)

    def seconds(self, now: float) -> float:
        """How long the rank that worked last has been idle."""
        return min(self._of(rank, now) for rank in range(self.world))

    def _of(self, rank: int, now: float) -> float:
        if rank not in self.heard:
            return now - self.start
        _, idle, when, _ = self.heard[rank]
        return idle + now - when

    def places(self) -> str:
        """Where each rank stands, for the message; at most four of them."""
        told = [f"rank {rank} in {self.heard[rank][3]}" for rank in sorted(self.heard)[:4]]
        return ", ".join([*told, *(["..."] if len(self.heard) > 4 else [])])


class RankWatch:
    """The thread that reports for this rank, listens to the others, and calls `give_up` with a message at a hang."""

    def __init__(
        self,
        rank: int,
        world: int,
        store: Store,
        give_up: Callable[[str], None],
        limit: float = LIMIT,
    ) -> None:
        self._rank = rank
        self._world = world
        self._store = store
        self._give_up = give_up
        self._limit = limit
        self._pause = min(5.0, max(0.2, limit / 20))
        self._beats = 0
        self._over = threading.Event()
        self._signals: tuple[int, int] | None = None
        self._asked: signal.Signals | None = None
        self._thread = threading.Thread(target=self._run, name="rank watch", daemon=True)

    def beat(self) -> None:
        """Something was done that costs no processor time here."""
        self._beats += 1

    @contextlib.contextmanager
    def watching(self) -> Iterator[None]:
        """Watch while active. In the main thread it also hears signals that Python has had no time to handle."""
        if threading.current_thread() is threading.main_thread():
            self._signals = os.pipe()
            for end in self._signals:
                os.set_blocking(end, False)
            before = signal.set_wakeup_fd(self._signals[1], warn_on_full_buffer=False)
        self._thread.start()
        try:
            yield
        finally:
            self._over.set()
            self._thread.join(timeout=5)
            if self._signals is not None:
                signal.set_wakeup_fd(before)
                for end in self._signals:
                    os.close(end)

    def _run(self) -> None:
        now = time.monotonic()
        known = Idleness(self._world, now)
        worked, before, when, number = now, _work(), now, 0
        beats = self._beats
        while not self._over.wait(self._pause if self._asked is None else min(1.0, self._pause)):
            now, work, number = time.monotonic(), _work(), number + 1
            busy = work.seconds - before.seconds
            if (
                not -1e-6 < busy < _BUSY * (now - when)
                or work.events != before.events
                or self._beats != beats
            ):
                worked = now
            before, when, beats = work, now, self._beats
            self._exchange(known, number, now - worked, now)
            self._listen()
            limit = self._limit if self._asked is None else min(LIMIT_WHEN_ASKED, self._limit)
            idle = known.seconds(now)
            if idle >= limit and not self._over.is_set():
                asked = "" if self._asked is None else f"asked to end by {self._asked.name}, "
                self._give_up(
                    f"{asked}but no rank has done anything for {idle:.0f} s: they wait for each other, or one stands "
                    f"still ({known.places()}); run the same command again to go on, and set {LIMIT_VARIABLE} to "
                    "wait longer"
                )
                return

    def _exchange(self, known: Idleness, number: int, idle: float, now: float) -> None:
        place = _standing()
        known.hear(self._rank, number, idle, place, now)
        # A store that does not answer is another sign of a rank that stands still: nothing new is heard then.
        with contextlib.suppress(RuntimeError, OSError, ValueError):
            self._store.set(f"rank_watch/{self._rank}", json.dumps([number, idle, place]))
            for rank in range(self._world):
                key = f"rank_watch/{rank}"
                if rank != self._rank and self._store.check([key]):
                    said = json.loads(self._store.get(key))
                    known.hear(rank, int(said[0]), float(said[1]), str(said[2]), now)

    def _listen(self) -> None:
        """Note signals that came. Python's own handlers wait for the main thread, which may wait for another rank."""
        if self._signals is None:
            return
        with contextlib.suppress(BlockingIOError):
            for number in os.read(self._signals[0], 64):
                if number in (signal.SIGTERM, signal.SIGINT):
                    self._asked = signal.Signals(number)


@dataclass(frozen=True)
class _Work:
    seconds: float
    events: tuple[int, ...]


def _work() -> _Work:
    """What this process and its children have done so far, without what this thread has."""
    import psutil

    own = resource.getrusage(resource.RUSAGE_SELF)
    seconds = time.process_time() - time.thread_time()
    for child in psutil.Process().children(recursive=True):
        with contextlib.suppress(psutil.Error):
            times = child.cpu_times()
            seconds += times.user + times.system
    return _Work(seconds, (own.ru_majflt, own.ru_inblock, own.ru_oublock))


def _standing() -> str:
    """Where the main thread is: the innermost function of ours."""
    frames: dict[int, Any] = sys._current_frames()
    frame: FrameType | None = frames.get(threading.main_thread().ident or 0)
    while frame is not None:
        name = frame.f_globals.get("__name__", "")
        if name.startswith("memfactory.") and name != __name__:
            return f"{name.removeprefix('memfactory.')}.{frame.f_code.co_name}:{frame.f_lineno}"
        frame = frame.f_back
    return "a library"
