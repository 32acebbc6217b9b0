"""One reading of a dialogue for all questions about it.

LoCoMo asks some 150 questions about one conversation of 30 sessions. For an agent that reads without knowing
the question, reading it once and asking 150 times gives the same answers at a small part of the cost.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Hashable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field

from memfactory.agents.base import Reading, ReadOnceAgent
from memfactory.core.chat import Models
from memfactory.core.types import Call, MemoryState, Task
from memfactory.data.dialogue import Dialogue


@dataclass
class SharedReading:
    """A reading, its calls and memory over time. `paid` is set once these are in somebody's rollout."""

    calls: list[Call] = field(default_factory=list)
    states: list[MemoryState] = field(default_factory=list)
    work: asyncio.Task[Reading] | None = None
    paid: bool = False

    def note(self, done: int, total: int, memory: str | None) -> None:
        """Keep what the memory holds now, and after how many calls."""
        if memory is not None:
            self.states.append(MemoryState(len(self.calls), memory))

    async def result(self) -> Reading:
        """The reading, when it is done. Raises what it raised, for everybody who waits for it."""
        assert self.work is not None
        return await asyncio.shield(self.work)  # one who stops waiting stops nobody else


class Readings:
    """The readings of one evaluation set: made as they are asked for, kept until the set is done."""

    def __init__(
        self,
        agent: ReadOnceAgent,
        models: Callable[[Task, int, list[Call], Callable[[int, int, str | None], None]], Models],
        gate: AbstractAsyncContextManager[object],
    ) -> None:
        """`models(task, index, calls, progress)` are a reading's; like a rollout it passes `gate` while it works."""
        self._agent = agent
        self._models = models
        self._gate = gate
        self._found: dict[Hashable, SharedReading] = {}

    def of(self, dialogue: Dialogue, index: int) -> SharedReading:
        """The reading of a dialogue for repeat `index`, begun now if it was not yet.

        Its seeds come from the dialogue's id and the repeat, so it does not matter which question asks first, or
        which questions an earlier, interrupted evaluation has asked already.
        """
        shared = self._found.get((dialogue, index))
        if shared is None:
            shared = self._found[dialogue, index] = SharedReading()
            task = Task(id=f"reading of {dialogue.id}", question="", evidence=dialogue)
            models = self._models(task, index, shared.calls, shared.note)
            shared.work = asyncio.ensure_future(self._read(dialogue, models))
        return shared

    async def _read(self, dialogue: Dialogue, models: Models) -> Reading:
        async with self._gate:
            return await self._agent.read(dialogue, models)
