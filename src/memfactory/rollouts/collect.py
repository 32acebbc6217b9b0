"""Running an agent on tasks, many rollouts at once: the one code path of train, eval and infer."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Iterator, Sequence
from contextlib import AbstractAsyncContextManager, nullcontext
from dataclasses import replace
from typing import Any, Protocol, TypeVar

from memfactory.agents.base import Agent, Reading, reads_once
from memfactory.core.chat import Models
from memfactory.core.errors import ServiceError, TaskError
from memfactory.core.types import Call, MemoryState, Rollout, Task
from memfactory.data.dialogue import Dialogue
from memfactory.rewards.rubric import as_number
from memfactory.rollouts.readings import Readings

ProgressFn = Callable[[int, int, "str | None"], None]
T = TypeVar("T")

#: Rollouts in flight where nothing bounds them and jobs are made as they are asked for.
_MOST_AT_ONCE = 1024


class ModelsFactory(Protocol):
    """Gives each rollout its own models, which record into `calls` and draw from seeds of their own."""

    def __call__(
        self, *, phase: str, task: Task, index: int, calls: list[Call], progress: ProgressFn | None = None
    ) -> Models:
        """Models of rollout `index` on `task`; `phase` ("train-12", "eval", ...) enters the seeds."""
        ...


class Collector:
    """Turns tasks into scored rollouts."""

    def __init__(
        self,
        agent: Agent,
        make_models: ModelsFactory,
        score: Callable[[Rollout], Awaitable[dict[str, float]]] | None = None,
        concurrency: int | None = None,
        share_readings: bool = False,
    ) -> None:
        """`concurrency` bounds the rollouts in flight (None: all at once).

        With `share_readings` all questions about a dialogue are asked of one reading of it, if the agent can. The
        reading's calls and memories are then those of the first rollout that asks, and of no other. Training must
        not share: there every rollout is paid for its own reading.
        """
        self.agent = agent
        self.make_models = make_models
        self.score = score
        self.concurrency = concurrency
        self.share_readings = share_readings

    async def rollout(
        self,
        task: Task,
        index: int,
        phase: str,
        progress: ProgressFn | None = None,
        *,
        gate: AbstractAsyncContextManager[object] | None = None,
        readings: Readings | None = None,
    ) -> Rollout:
        """Run the agent once. A task it cannot do, or a service that failed, is recorded as `error`.

        It passes `gate` while it works; while it waits for a reading that it shares with others it does not.
        """
        gate = gate or nullcontext()
        rollout = Rollout(task=task, index=index)
        started = time.perf_counter()

        def note(done: int, total: int, memory: str | None) -> None:
            if memory is not None:
                rollout.states.append(MemoryState(len(rollout.calls), memory))
            if progress is not None:
                progress(done, total, memory)

        models = self.make_models(phase=phase, task=task, index=index, calls=rollout.calls, progress=note)
        try:
            reading = None if readings is None else await self._reading(rollout, readings)
            async with gate:
                if reading is not None and reads_once(self.agent):
                    rollout.outcome = await self.agent.ask(task, reading, models)
                else:
                    rollout.outcome = await self.agent(task, models)
                if self.score is not None:
                    scored = await self.score(rollout)
                    rollout.rewards = {name: as_number(value, name, task) for name, value in scored.items()}
        except (TaskError, ServiceError) as error:
            rollout.error = str(error)
            rollout.lost = isinstance(error, ServiceError)
        rollout.seconds = time.perf_counter() - started
        return rollout

    def collect(
        self,
        tasks: Sequence[Task],
        copies: int,
        phase: str,
        on_done: Callable[[Rollout], None] | None = None,
    ) -> list[list[Rollout]]:
        """Run `copies` rollouts of each task, all concurrent; return one group per task, in order.

        Rollouts start in a fixed order, so an in-process sampler sees the same requests in the same
        order on every run. What an agent raises beyond the errors that are recorded stops all of them,
        and comes out as it was raised (the first, when several failed at once).
        """
        return _run(self._collect(tasks, copies, phase, on_done))

    def work_off(
        self, jobs: Iterable[tuple[Task, int]], phase: str, on_done: Callable[[Rollout], None]
    ) -> None:
        """Run jobs (task, index) in their order, at most `concurrency` at once; each is made when its turn comes.

        Once a service has lost a rollout no further job is started; what is under way is finished. What an
        agent raises comes out as from `collect`.
        """
        _run(self._work_off(iter(jobs), phase, on_done))

    async def _work_off(
        self, jobs: Iterator[tuple[Task, int]], phase: str, on_done: Callable[[Rollout], None]
    ) -> None:
        lost = False
        workers = self.concurrency or _MOST_AT_ONCE
        gate = asyncio.Semaphore(workers)
        readings = self.readings(phase, gate)
        if readings is not None:  # who waits for another's reading works on nothing
            workers = max(workers, _MOST_AT_ONCE)

        async def worker() -> None:
            nonlocal lost
            while not lost and (job := next(jobs, None)) is not None:
                rollout = await self.rollout(*job, phase, gate=gate, readings=readings)
                lost = lost or rollout.lost
                on_done(rollout)

        async with asyncio.TaskGroup() as group:
            for _ in range(workers):
                group.create_task(worker())

    async def _collect(
        self,
        tasks: Sequence[Task],
        copies: int,
        phase: str,
        on_done: Callable[[Rollout], None] | None,
    ) -> list[list[Rollout]]:
        gate = asyncio.Semaphore(self.concurrency or max(1, copies * len(tasks)))
        readings = self.readings(phase, gate)

        async def one(task: Task, index: int) -> Rollout:
            rollout = await self.rollout(task, index, phase, gate=gate, readings=readings)
            if on_done is not None:
                on_done(rollout)
            return rollout

        async with asyncio.TaskGroup() as group:
            running = [[group.create_task(one(task, index)) for index in range(copies)] for task in tasks]
        return [[task.result() for task in copies_of_task] for copies_of_task in running]

    def readings(self, phase: str, gate: AbstractAsyncContextManager[object]) -> Readings | None:
        """Where the rollouts of one evaluation set share their readings; None if they do not."""
        if not self.share_readings or not reads_once(self.agent):
            return None

        def models(task: Task, index: int, calls: list[Call], note: ProgressFn) -> Models:
            return self.make_models(phase=phase, task=task, index=index, calls=calls, progress=note)

        return Readings(self.agent, models, gate)

    async def _reading(self, rollout: Rollout, readings: Readings) -> Reading | None:
        """The shared reading of the rollout's dialogue; its calls and memories go to the first that asks for it."""
        if not isinstance(rollout.task.evidence, Dialogue):
            return None
        shared = readings.of(rollout.task.evidence, rollout.index)
        first, shared.paid = not shared.paid, True
        try:
            reading = await shared.result()
        finally:
            if first:
                rollout.calls.extend(shared.calls)
                rollout.states.extend(shared.states)
        return reading if first else replace(reading, memories=())


def _run(work: Coroutine[Any, Any, T]) -> T:
    """Run to the end; of several errors at once the first comes out, as it was raised."""
    try:
        return asyncio.run(work)
    except BaseExceptionGroup as group:
        first = group.exceptions[0]
    raise first
