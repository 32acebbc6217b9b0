"""What agents with a memory bank share: session after session goes into a bank, then a question is asked of it.

An agent built on this says who plays it, what becomes of one session, and how a question is answered.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Sequence
from dataclasses import astuple
from typing import Any, Generic, Protocol, TypeVar

from memfactory.agents.base import Reading, Remembered
from memfactory.core.chat import Models
from memfactory.core.errors import TaskError
from memfactory.core.types import Outcome, Task
from memfactory.data.dialogue import Dialogue, Session
from memfactory.memory.bank import MemoryBank
from memfactory.modules.bank_memories import put_memories
from memfactory.modules.distilling_answerer import show_memory
from memfactory.modules.retrievers import Retriever


class BankNotes(Protocol):
    """What an agent notes of its work on a bank: operations by kind, and one line for everything that was wrong.

    `unread` are the lines about replies of which nothing was understood.
    """

    operations: Counter[str]
    errors: list[str]
    unread: list[str]


N = TypeVar("N", bound=BankNotes)


class BankReader(ABC, Generic[N]):
    """Reads a dialogue's sessions into a fork of `bank` (or into an empty one), then answers.

    No rollout sees another's edits. `name` is the agent's, for messages; `roles` is a dataclass of the roles that play
    its modules.
    """

    name: str
    roles: Any
    retriever: Retriever
    bank: MemoryBank | None

    async def __call__(self, task: Task, models: Models) -> Outcome:
        """Read the sessions of `task.evidence` (a dialogue) into a bank, then answer `task.question` from it.

        Raises `TaskError` for evidence that is no dialogue, `BadInput` for a role that no model plays.
        """
        if not isinstance(task.evidence, Dialogue):
            raise TaskError(
                f"task '{task.id}': {self.name} reads a dialogue of sessions, not {type(task.evidence).__name__}"
            )
        for role in astuple(self.roles):
            models[role]  # a role that nobody plays is told before the first call
        return await self.ask(task, await self.read(task.evidence, models), models)

    async def read(self, dialogue: Dialogue, models: Models) -> Reading:
        """Read the sessions of a dialogue into a bank that begins with its memories; see `ReadOnceAgent.read`."""
        bank, notes, memories = self._start(), self._new_notes(), []
        await put_memories(dialogue.memories, bank, self.retriever)
        sessions: Sequence[Session] = dialogue.sessions
        models.report(0, len(sessions), show_bank(bank))
        for number, session in enumerate(sessions, start=1):
            await self._read(session, bank, models, notes)
            memories.append(show_bank(bank))
            models.report(number, len(sessions), memories[-1])
        return Reading(bank, tuple(memories), notes)

    def new_bank(self) -> MemoryBank:
        """An empty bank that the retriever can search."""
        return self.retriever.new_bank()

    async def remember(self, session: Session, bank: MemoryBank, models: Models) -> Remembered:
        """Read one session into a bank; see `BankAgent.remember`."""
        notes = self._new_notes()
        await self._read(session, bank, models, notes)
        return Remembered(dict(notes.operations), tuple(notes.errors), tuple(notes.unread))

    @abstractmethod
    async def ask(self, task: Task, reading: Reading, models: Models) -> Outcome:
        """Answer a task's question from a reading of its dialogue; see `ReadOnceAgent.ask`."""

    @abstractmethod
    async def _read(self, session: Session, bank: MemoryBank, models: Models, notes: N) -> None:
        """Take one session into the bank, and note what was done."""

    @abstractmethod
    def _new_notes(self) -> N:
        """Notes of a rollout that has done nothing yet."""

    def _start(self) -> MemoryBank:
        if self.bank is None:
            return self.new_bank()
        self.retriever.check(self.bank)
        return self.bank.fork()


def show_bank(bank: MemoryBank) -> str:
    """All memories of a bank, one a line."""
    return "\n".join(show_memory(item) for item in bank.items(embeddings=False))
