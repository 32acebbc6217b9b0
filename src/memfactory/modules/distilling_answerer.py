"""An answerer that first names the memories it will use, then answers from them (memory distillation)."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from memfactory.core.chat import ChatModel
from memfactory.core.registry import register
from memfactory.core.replies import answer_in
from memfactory.memory.item import MemoryItem
from memfactory.metrics.boxed import last_boxed
from memfactory.modules.fitting import ask_with_memories
from memfactory.modules.managers import NOTHING
from memfactory.modules.prompts import fill, require

# The line ends where the box begins: a model without line breaks writes both in one.
_USED = re.compile(r"^[ \t*#]*memories(?: used)?[ \t*]*:([^\n\\]*)", re.IGNORECASE | re.MULTILINE)


@dataclass(frozen=True)
class DistilledAnswer:
    """The reply without its thought, the ids of the memories that it says it uses, and what was wrong with it."""

    reply: str
    used: tuple[str, ...] = ()
    errors: tuple[str, ...] = ()


class MemoryAnswerer(Protocol):
    """Turns a question and retrieved memories into a reply."""

    async def answer(
        self, question: str, memories: Sequence[MemoryItem], model: ChatModel, max_tokens: int
    ) -> DistilledAnswer:
        """Ask for the answer; one recorded call of module `answerer`."""
        ...


@dataclass(frozen=True)
class DistillingAnswererConfig:
    """No settings: its prompts are `prompts.answer_from_memories` and, to show a memory otherwise, `prompts.memory`."""


@register("module", "distilling", config=DistillingAnswererConfig, source="Memory-R1, arXiv 2508.19828")
class DistillingAnswerer:
    r"""One call: a line `Memories: m1, m4` names what it will use, then comes the answer in \boxed{}."""

    def __init__(self, prompts: Mapping[str, str]) -> None:
        self.template = require(prompts, "answer_from_memories", ("question", "memories"))
        self.line = prompts.get("memory", "")

    async def answer(
        self, question: str, memories: Sequence[MemoryItem], model: ChatModel, max_tokens: int
    ) -> DistilledAnswer:
        """Show the memories (best first) with ids and times, in the order of the bank: what is later comes later."""

        def prompt(chosen: Sequence[MemoryItem]) -> str:
            ordered = sorted(chosen, key=lambda item: item.number)
            lines = "\n".join(show_memory(item, self.line) for item in ordered)
            return fill(self.template, question=question, memories=lines or NOTHING)

        call, shown = await ask_with_memories(
            memories, prompt, model, module="answerer", max_tokens=max_tokens
        )
        return parse_distilled(call.text, [item.id for item in shown])


def show_memory(item: MemoryItem, line: str = "") -> str:
    """A memory as models read it: `[m3] (8 May) text`, or as `line` says it with `{id}`, `{time}` and `{text}`."""
    if line:
        return fill(line, id=item.id, time=item.updated_time, text=item.text).strip()
    time = f"({item.updated_time}) " if item.updated_time else ""
    return f"[{item.id}] {time}{item.text}"


def parse_distilled(reply: str, shown: Sequence[str]) -> DistilledAnswer:
    """The memories that a reply names in its first line `Memories: ...`, and whether its layout is kept. Never raises.

    Ids that were not shown are errors and not used; `none` names nothing.
    """
    reply = answer_in(reply)
    errors = []
    used: dict[str, None] = {}
    line = _USED.search(reply)
    if line is None:
        errors.append("no line 'Memories: ...'")
    else:
        for word in re.findall(r"\w+", line.group(1)):
            if word in shown:
                used[word] = None
            elif word.lower() != "none":
                errors.append(f"'{word[:40]}' is none of the memories shown")
    if last_boxed(reply) is None:
        errors.append("no answer in \\boxed{}")
    return DistilledAnswer(reply, tuple(used), tuple(errors))
