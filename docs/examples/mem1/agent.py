"""MEM1: an agent whose context does not grow. Each turn it rewrites one internal state, then searches or answers."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from memfactory.agents.evidence import text_of
from memfactory.core.chat import ChatModel, Models
from memfactory.core.registry import component_field, register
from memfactory.core.types import Message, Outcome, Task
from memfactory.memory.bank import MemoryBank
from memfactory.modules.prompts import fill, require
from memfactory.modules.retrievers import Retriever

_TEXTS_KEPT = 256
_LENGTHS = ("chunk_tokens", "top_k", "state_tokens", "reply_tokens", "max_turns")


@dataclass(frozen=True)
class Mem1Config:
    """Lengths in tokens. The text is cut into chunks of `chunk_tokens`; a query shows the `top_k` best of them."""

    chunk_tokens: int = 256
    top_k: int = 3
    state_tokens: int = 512
    reply_tokens: int = 1024
    max_turns: int = 8
    retriever: dict = component_field("module", "bank")

    def __post_init__(self) -> None:
        for name in _LENGTHS:
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1")


@dataclass(frozen=True)
class Step:
    """What a reply says: the new state, and a query or an answer; None for what is not there."""

    state: str | None = None
    query: str | None = None
    answer: str | None = None


@register("agent", "mem1", config=Mem1Config, source="MEM1, arXiv 2506.15841")
class Mem1:
    """Rewrites one internal state each turn and searches the text or answers; all else is forgotten."""

    def __init__(self, retriever: Retriever, prompts: Mapping[str, str], **lengths: int) -> None:
        self.chunk_tokens, self.top_k, self.state_tokens, self.reply_tokens, self.max_turns = (
            lengths[name] for name in _LENGTHS
        )
        self.retriever = retriever
        self.template = require(prompts, "step", ("question", "state", "observation"))
        self.empty, self.nothing = require(prompts, "empty_state"), require(prompts, "nothing_found")
        self._tags = {require(prompts, f"{name}_tag"): name for name in ("state", "query", "answer")}
        tags = "|".join(map(re.escape, self._tags))
        self._part = re.compile(rf"<\s*({tags})\s*>(.*?)(?:<\s*/\s*\1\s*>|\Z)", re.DOTALL)
        self._banks: dict[str, MemoryBank] = {}

    async def __call__(self, task: Task, models: Models) -> Outcome:
        """Turns until there is an answer, or `max_turns` (then the reply is empty). `TaskError` if there is no text."""
        policy = models["policy"]
        bank = await self._bank(task, policy)
        state, seen, step = self.empty, self.nothing, Step()
        states, formed = list[str](), 0
        models.report(0, self.max_turns, state)
        while step.answer is None and len(states) < self.max_turns:
            shown = {"state": state, "query": step.query or "", "observation": seen}
            prompt = fill(self.template, question=task.question, **shown)
            call = await policy.chat([Message("user", prompt)], module="step", max_tokens=self.reply_tokens)
            step = self.read(call.text)
            formed += step.state is not None and (step.query or step.answer) is not None
            state = policy.truncate_text(state if step.state is None else step.state, self.state_tokens)
            states.append(state)
            models.report(len(states), self.max_turns, state)
            found = await self.retriever.retrieve(bank, step.query, self.top_k) if step.query else []
            seen = "\n".join(item.text for item in found) or self.nothing
        info = {"turns": len(states), "format": {"step": formed / len(states)}}
        return Outcome(reply=step.answer or "", memories=tuple(states), info=info)

    def read(self, reply: str) -> Step:
        """The first state, and the first query or answer, of a reply; a part that was cut off counts as it is."""
        parts: dict[str, str] = {}
        for tag, text in self._part.findall(reply):
            if self._tags[tag] == "state" or not parts.keys() & {"query", "answer"}:
                parts.setdefault(self._tags[tag], text.strip())
        return Step(**parts)

    async def _bank(self, task: Task, policy: ChatModel) -> MemoryBank:
        """The chunks of the task's text, ready to be searched; kept for the other rollouts of the group."""
        text = text_of(task)
        if text not in self._banks:
            bank, chunks = self.retriever.new_bank(), policy.split_text(text, self.chunk_tokens)
            vectors = await self.retriever.vectors(chunks)
            for chunk in chunks:
                bank.add(chunk, embedding=vectors[chunk])
            self._banks[text] = bank
            if len(self._banks) > _TEXTS_KEPT:
                del self._banks[next(iter(self._banks))]
        return self._banks[text]
