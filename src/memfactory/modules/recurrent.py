"""Recurrent memories: a text of bounded size, rewritten after each block that was read."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

from memfactory.core.chat import ChatModel
from memfactory.core.registry import register
from memfactory.core.types import Message
from memfactory.modules.echoes import tags_of, without_echo
from memfactory.modules.prompts import fill, require


class RecurrentMemory(Protocol):
    """Turns (question, memory, block) into the next memory."""

    empty: str
    """What the memory says before anything was read."""

    async def update(self, question: str, memory: str, block: str, model: ChatModel, max_tokens: int) -> str:
        """The memory after the block, at most `max_tokens` long; one recorded call (or none)."""
        ...


@dataclass(frozen=True)
class RewriteMemoryConfig:
    """No settings: its prompts are `prompts.update` and `prompts.empty_memory`."""


@register("module", "rewrite", config=RewriteMemoryConfig, source="MemAgent, arXiv 2507.02259, section 3.1")
class RewriteMemory:
    """The model rewrites the whole memory at every block; what it wrote is the next memory.

    A reply without an answer (a thought that was not finished) leaves the memory as it was.
    """

    def __init__(self, prompts: Mapping[str, str]) -> None:
        self.template = require(prompts, "update", ("question", "memory", "block"))
        self.empty = require(prompts, "empty_memory")
        self.tags = tags_of(self.template)

    async def update(self, question: str, memory: str, block: str, model: ChatModel, max_tokens: int) -> str:
        """Ask for the new memory; the reply, cut at `max_tokens`, is it, without thoughts and echoed tags."""
        prompt = fill(self.template, question=question, memory=memory, block=block)
        call = await model.chat([Message("user", prompt)], module="update", max_tokens=max_tokens)
        return memory if call.answer is None else without_echo(call.answer, self.tags)
