"""What agents that read texts make of a task's evidence."""

from __future__ import annotations

from memfactory.core.errors import TaskError
from memfactory.core.types import Task
from memfactory.data.dialogue import Dialogue


def text_of(task: Task) -> str:
    """The task's text; a dialogue is read as one, with the time before each session.

    Raises `TaskError` for evidence of another kind.
    """
    if not isinstance(task.evidence, str | Dialogue):
        raise TaskError(
            f"task '{task.id}': this agent reads a text or a dialogue, not {type(task.evidence).__name__}"
        )
    return str(task.evidence)
