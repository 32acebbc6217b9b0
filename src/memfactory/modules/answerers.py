"""Answerers: from what an agent remembers to its reply to the question."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

from memfactory.core.chat import ChatModel
from memfactory.core.registry import register
from memfactory.core.types import Message
from memfactory.modules.prompts import fill, require


class Answerer(Protocol):
    """Turns (question, memory) into a reply."""

    async def answer(self, question: str, memory: str, model: ChatModel, max_tokens: int) -> str:
        """The reply, at most `max_tokens` long; one recorded call."""
        ...


@dataclass(frozen=True)
class DirectAnswererConfig:
    """No settings: its prompt is `prompts.answer`."""


@register("module", "direct", config=DirectAnswererConfig, source="MemAgent, arXiv 2507.02259, section 3.1")
class DirectAnswerer:
    """One call with question and memory, and no other text; the prompt asks for a boxed answer."""

    def __init__(self, prompts: Mapping[str, str]) -> None:
        self.template = require(prompts, "answer", ("question", "memory"))

    async def answer(self, question: str, memory: str, model: ChatModel, max_tokens: int) -> str:
        """Ask for the answer; the reply without its thought, empty where there is none."""
        prompt = fill(self.template, question=question, memory=memory)
        call = await model.chat([Message("user", prompt)], module="answer", max_tokens=max_tokens)
        return call.answer or ""
