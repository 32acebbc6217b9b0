"""What an agent is.

An agent is an async callable: it takes a task and the models, talks to them, and returns an
outcome. The same agent runs under train, eval and infer; who answers it is not its business.
"""

from __future__ import annotations

from typing import Protocol

from memfactory.core.chat import ChatModel, Models
from memfactory.core.types import Outcome, Task

__all__ = ["Agent", "ChatModel", "Models"]


class Agent(Protocol):
    """A memory agent."""

    async def __call__(self, task: Task, models: Models) -> Outcome:
        """Do the task. Raises `TaskError` for a task it cannot do; model replies never make it raise."""
        ...
