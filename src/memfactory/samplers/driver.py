"""The loop between agents that await completions and an engine that advances all of them at once.

Agents submit and await; while anything is unfinished one task adds what is waiting to the engine,
advances it by one step, and resolves what has finished in order of arrival. The engine runs in the
event loop's own thread: that is what makes the order of requests, and so every draw, the same on
every run.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from memfactory.core.errors import ServiceError, TaskError, UserError
from memfactory.core.types import Completion, SamplingRequest

#: Turns of the event loop without a new request after which all agents count as waiting. Between a
#: reply and the next question an agent takes a few (task groups, time-outs); a turn costs microseconds.
_QUIET_TURNS = 8
#: An agent that keeps the loop busy without ever asking must not hold up the others.
_MOST_TURNS = 100


class StepEngine(Protocol):
    """An engine that holds requests by number and advances all of them together."""

    def add(self, number: int, request: SamplingRequest) -> None:
        """Take a request. Raises `TaskError` when this one request is impossible."""
        ...

    def abort(self, numbers: Sequence[int]) -> None:
        """Forget requests; unknown numbers are ignored."""
        ...

    def step(self) -> list[tuple[int, Completion]]:
        """Advance; return what has finished. Any exception means that the engine is lost."""
        ...


@dataclass
class _Waiting:
    number: int
    request: SamplingRequest
    future: asyncio.Future[Completion]


class Driver:
    """Feeds a `StepEngine` from coroutines; works with any number of successive event loops."""

    def __init__(self, engine: StepEngine, name: str) -> None:
        self._engine = engine
        self._name = name
        self._queue: list[_Waiting] = []
        self._running: dict[int, _Waiting] = {}
        self._task: asyncio.Task[None] | None = None
        self._next = 0
        self._lost: str | None = None

    @property
    def idle(self) -> bool:
        """True when no request is waiting or running."""
        return not self._queue and not self._running

    async def submit(self, request: SamplingRequest) -> Completion:
        """Await the completion of one request.

        Raises `TaskError` when the engine refuses it, `ServiceError` when the engine fails.
        """
        if self._lost is not None:
            raise ServiceError(self._lost)
        loop = asyncio.get_running_loop()
        if self._task is not None and (self._task.done() or self._task.get_loop() is not loop):
            self._reset()
        waiting = _Waiting(self._next, request, loop.create_future())
        self._next += 1
        self._queue.append(waiting)
        if self._task is None:
            self._task = loop.create_task(self._drive(), name=f"{self._name}-driver")
        return await waiting.future

    async def _drive(self) -> None:
        try:
            while not self.idle:
                await self._let_agents_ask()
                self._drop_cancelled()
                self._admit()
                if self._running:
                    self._resolve(self._engine.step())
        except Exception as error:
            self._fail(error)
        finally:
            # Also when the event loop is being closed: the next one must find the engine empty.
            self._reset()

    async def _let_agents_ask(self) -> None:
        """Give agents that just got a completion the turns they need to ask for the next one."""
        quiet, seen = 0, self._next
        for _ in range(_MOST_TURNS):
            await asyncio.sleep(0)
            quiet = quiet + 1 if self._next == seen else 0
            seen = self._next
            if quiet >= _QUIET_TURNS:
                return

    def _drop_cancelled(self) -> None:
        self._queue = [w for w in self._queue if not w.future.done()]
        gone = [number for number, w in self._running.items() if w.future.done()]
        if gone:
            self._engine.abort(gone)
            for number in gone:
                del self._running[number]

    def _admit(self) -> None:
        while self._queue:
            waiting = self._queue[0]
            try:
                self._engine.add(waiting.number, waiting.request)
            except TaskError as error:
                waiting.future.set_exception(error)
            else:
                self._running[waiting.number] = waiting
            del self._queue[0]  # only now: had `add` failed for good, this one would have to be told too

    def _resolve(self, finished: list[tuple[int, Completion]]) -> None:
        for number, completion in sorted(finished, key=lambda item: item[0]):
            waiting = self._running.pop(number, None)
            if waiting is None or waiting.future.done():
                continue
            if all(map(math.isfinite, completion.logprobs)):
                waiting.future.set_result(completion)
            else:
                waiting.future.set_exception(ServiceError(self._no_numbers(waiting.request)))

    def _no_numbers(self, request: SamplingRequest) -> str:
        where = f"{request.label}: " if request.label else ""
        return (
            f"{where}the {self._name} engine computes log-probabilities that are no numbers; its weights have diverged "
            "or are damaged: take a checkpoint from before"
        )

    def _fail(self, error: Exception) -> None:
        line = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        message = str(error) if isinstance(error, UserError) else f"the {self._name} engine failed: {line}"
        self._lost = message
        for waiting in [*self._running.values(), *self._queue]:
            if not waiting.future.done():
                failure = ServiceError(message)
                failure.__cause__ = error
                waiting.future.set_exception(failure)

    def _reset(self) -> None:
        """Leave nothing behind: not in the engine, not among the waiting."""
        leftovers = [*self._running.values(), *self._queue]
        if self._running and self._lost is None:
            self._engine.abort(sorted(self._running))
        self._running, self._queue, self._task = {}, [], None
        for waiting in leftovers:
            if not waiting.future.done() and not waiting.future.get_loop().is_closed():
                waiting.future.cancel()
