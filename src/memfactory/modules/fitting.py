"""As many memories in a prompt as its model's context holds."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Sequence

from memfactory.core.chat import ChatModel
from memfactory.core.errors import TaskError
from memfactory.core.types import Call, Message
from memfactory.memory.item import MemoryItem


async def ask_with_memories(
    memories: Sequence[MemoryItem],
    prompt: Callable[[Sequence[MemoryItem]], str],
    model: ChatModel,
    *,
    module: str,
    max_tokens: int,
) -> tuple[Call, Sequence[MemoryItem]]:
    """Chat about memories, best first; where not all of them fit, the last ones are left out.

    Returns the call and the memories shown. Raises `TaskError` when the prompt does not fit without any either.
    """
    try:
        return await _ask(memories, prompt, model, module, max_tokens), memories
    except TaskError:
        # Nothing is measured where all of them fit, which is nearly always.
        def too_long(count: int) -> bool:
            messages = [Message("user", prompt(memories[:count]))]
            return model.tokens_left(messages, max_tokens=max_tokens) < 0

        if too_long(0) or not too_long(len(memories)):
            raise
        shown = memories[: bisect_left(range(len(memories)), True, key=too_long) - 1]
        return await _ask(shown, prompt, model, module, max_tokens), shown


async def _ask(
    memories: Sequence[MemoryItem],
    prompt: Callable[[Sequence[MemoryItem]], str],
    model: ChatModel,
    module: str,
    max_tokens: int,
) -> Call:
    return await model.chat([Message("user", prompt(memories))], module=module, max_tokens=max_tokens)
