"""What an agent is.

An agent is an async callable: it takes a task and the models, talks to them, and returns an
outcome. The same agent runs under train, eval and infer; who answers it is not its business.

An agent that keeps a memory bank also says how one session enters a bank and how a question is answered
from one. With these two methods a chat, a dialogue file and a program can use any such agent.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol, TypeGuard

from memfactory.core.chat import ChatModel, Models
from memfactory.core.types import Outcome, Task
from memfactory.data.dialogue import Session
from memfactory.memory.bank import MemoryBank
from memfactory.memory.item import MemoryItem

__all__ = ["Agent", "Answer", "BankAgent", "ChatModel", "Models", "Remembered", "keeps_bank"]


class Agent(Protocol):
    """A memory agent."""

    async def __call__(self, task: Task, models: Models) -> Outcome:
        """Do the task. Raises `TaskError` for a task it cannot do; model replies never make it raise."""
        ...


@dataclass(frozen=True)
class Remembered:
    """What reading a session did to a bank: operations by kind, and one line for each that was wrong."""

    operations: Mapping[str, int] = field(default_factory=dict)
    errors: tuple[str, ...] = ()


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
