"""Running an agent on tasks, many rollouts at once: the one code path of train, eval and infer."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Protocol

from memfactory.agents.base import Agent
from memfactory.core.chat import Models
from memfactory.core.errors import ServiceError, TaskError
from memfactory.core.types import Call, MemoryState, Rollout, Task

ProgressFn = Callable[[int, int, "str | None"], None]


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
    ) -> None:
        """`concurrency` bounds the rollouts in flight (None: all at once)."""
        self.agent = agent
        self.make_models = make_models
        self.score = score
        self.concurrency = concurrency

    async def rollout(
        self, task: Task, index: int, phase: str, progress: ProgressFn | None = None
    ) -> Rollout:
        """Run the agent once. A task it cannot do, or a service that failed, is recorded as `error`."""
        rollout = Rollout(task=task, index=index)

        def note(done: int, total: int, memory: str | None) -> None:
            if memory is not None:
                rollout.states.append(MemoryState(len(rollout.calls), memory))
            if progress is not None:
                progress(done, total, memory)

        models = self.make_models(phase=phase, task=task, index=index, calls=rollout.calls, progress=note)
        try:
            rollout.outcome = await self.agent(task, models)
            if self.score is not None:
                rollout.rewards = await self.score(rollout)
        except (TaskError, ServiceError) as error:
            rollout.error = str(error)
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
        try:
            return asyncio.run(self._collect(tasks, copies, phase, on_done))
        except BaseExceptionGroup as group:
            first = group.exceptions[0]
        raise first

    async def _collect(
        self,
        tasks: Sequence[Task],
        copies: int,
        phase: str,
        on_done: Callable[[Rollout], None] | None,
    ) -> list[list[Rollout]]:
        gate = asyncio.Semaphore(self.concurrency) if self.concurrency else None

        async def one(task: Task, index: int) -> Rollout:
            if gate is None:
                rollout = await self.rollout(task, index, phase)
            else:
                async with gate:
                    rollout = await self.rollout(task, index, phase)
            if on_done is not None:
                on_done(rollout)
            return rollout

        async with asyncio.TaskGroup() as group:
            running = [[group.create_task(one(task, index)) for index in range(copies)] for task in tasks]
        return [[task.result() for task in copies_of_task] for copies_of_task in running]
