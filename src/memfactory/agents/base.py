"""What an agent is.

An agent is an async callable: it takes a task and the models, talks to them, and returns an
outcome. The same agent runs under train, eval and infer; who answers it is not its business.

An agent that keeps a memory bank also says how one session enters a bank and how a question is answered
from one. With these two methods a chat, a dialogue file and a program can use any such agent.

An agent whose reading does not depend on the question may say so: then a dialogue is read once for all
questions about it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeGuard

from memfactory.core.chat import ChatModel, Models
from memfactory.core.types import Outcome, Task
from memfactory.data.dialogue import Dialogue, Session
from memfactory.memory.bank import MemoryBank
from memfactory.memory.item import MemoryItem

__all__ = [
    "Agent",
    "Answer",
    "BankAgent",
    "ChatModel",
    "Models",
    "ReadOnceAgent",
    "Reading",
    "Remembered",
    "keeps_bank",
    "reads_once",
]


class Agent(Protocol):
    """A memory agent."""

    async def __call__(self, task: Task, models: Models) -> Outcome:
        """Do the task. Raises `TaskError` for a task it cannot do; model replies never make it raise."""
        ...


@dataclass(frozen=True)
class Remembered:
    """What reading a session did to a bank: operations by kind, and one line for each that was wrong.

    `unread` says what was wrong with a reply of which nothing was understood: the session is then not in the bank, and
    the caller undoes what else was done for it. A reply of which a part was understood has `errors` alone.
    """

    operations: Mapping[str, int] = field(default_factory=dict)
    errors: tuple[str, ...] = ()
    unread: tuple[str, ...] = ()


@dataclass(frozen=True)
class Answer:
    """A reply as sampled, the memories that were shown for it, best first, and the ids of those it uses."""

    reply: str
    found: tuple[MemoryItem, ...] = ()
    used: tuple[str, ...] = ()


class BankAgent(Agent, Protocol):
    """An agent whose memory is a bank that outlives a task: what a chat needs of it."""

    def new_bank(self) -> MemoryBank:
        """An empty bank in memory; its embedder and dimension are those that a bank on disk must have."""
        ...

    async def remember(self, session: Session, bank: MemoryBank, models: Models) -> Remembered:
        """Read a session into the bank.

        The caller holds a transaction of the bank around this call: what raises, or is cancelled, changes
        nothing. Raises `TaskError` for a session that does not fit the model's context.
        """
        ...

    async def answer(self, question: str, bank: MemoryBank, models: Models) -> Answer:
        """Answer a question from the bank, which stays as it is."""
        ...


def keeps_bank(agent: object) -> TypeGuard[BankAgent]:
    """Whether an agent, or a class of agents, has what `BankAgent` declares."""
    return all(callable(getattr(agent, name, None)) for name in ("new_bank", "remember", "answer"))


@dataclass(frozen=True)
class Reading:
    """A dialogue that was read: the bank after it, what the bank held after each session, and the agent's own notes."""

    bank: MemoryBank
    memories: tuple[str, ...] = ()
    notes: Any = None


class ReadOnceAgent(Agent, Protocol):
    """An agent that reads a dialogue without knowing what will be asked: `await agent(task, models)` is both in turn.

    What comes of a reading may be asked by many rollouts at once, so `ask` must leave it as it is: it works on a
    fork of the bank and on a copy of the notes.
    """

    async def read(self, dialogue: Dialogue, models: Models) -> Reading:
        """Read all sessions, into a bank that begins with `dialogue.memories`. Raises `TaskError` as the agent does."""
        ...

    async def ask(self, task: Task, reading: Reading, models: Models) -> Outcome:
        """Answer the task's question from a reading of its dialogue."""
        ...


def reads_once(agent: object) -> TypeGuard[ReadOnceAgent]:
    """Whether an agent has what `ReadOnceAgent` declares."""
    return all(callable(getattr(agent, name, None)) for name in ("read", "ask"))
