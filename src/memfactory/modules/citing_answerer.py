r"""An answerer that cites the memories it used, as in RMM: `\boxed{Paris} [m1, m4]`."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from memfactory.core.chat import ChatModel
from memfactory.core.registry import register
from memfactory.core.replies import answer_in
from memfactory.memory.item import MemoryItem
from memfactory.metrics.boxed import last_boxed
from memfactory.modules.distilling_answerer import DistilledAnswer, show_memory
from memfactory.modules.fitting import ask_with_memories
from memfactory.modules.managers import NOTHING
from memfactory.modules.prompts import fill, require

_BRACKETS = re.compile(r"\[([^\[\]]*)\]")
_ID = re.compile(r"m?\d+")
_NOTHING_CITED = frozenset({"no_cite", "none"})


@dataclass(frozen=True)
class CitingAnswererConfig:
    """No settings: its prompt is `prompts.answer_with_citations`."""


@register("module", "citing", config=CitingAnswererConfig, source="RMM, arXiv 2503.08026")
class CitingAnswerer:
    r"""One call: the answer in \boxed{}, and in square brackets the ids of the memories that it rests on."""

    def __init__(self, prompts: Mapping[str, str]) -> None:
        self.template = require(prompts, "answer_with_citations", ("question", "memories"))

    async def answer(
        self, question: str, memories: Sequence[MemoryItem], model: ChatModel, max_tokens: int
    ) -> DistilledAnswer:
        """Show the memories (best first) with ids and times, in the order of the bank: what is later comes later."""

        def prompt(chosen: Sequence[MemoryItem]) -> str:
            lines = "\n".join(show_memory(item) for item in sorted(chosen, key=lambda item: item.number))
            return fill(self.template, question=question, memories=lines or NOTHING)

        call, shown = await ask_with_memories(
            memories, prompt, model, module="answerer", max_tokens=max_tokens
        )
        return parse_cited(call.text, [item.id for item in shown])


def parse_cited(reply: str, shown: Sequence[str]) -> DistilledAnswer:
    r"""The memories that a reply cites in square brackets, and whether its layout is kept. Never raises.

    `[m1, m4]`, `[m1][m4]` and `[1, 4]` cite two memories; `[NO_CITE]` and `[none]` say that none was of use. An id
    that was not shown is an error and cites nothing. Brackets around other words are text. A reply without any
    citation, or without \boxed{}, does not keep the layout.
    """
    reply = answer_in(reply)
    used: dict[str, None] = {}
    errors = []
    said = False
    for found in _BRACKETS.finditer(reply):
        words = found.group(1).replace(",", " ").replace(";", " ").split()
        if len(words) == 1 and words[0].lower() in _NOTHING_CITED:
            said = True
        if not words or not all(_ID.fullmatch(word) for word in words):
            continue
        said = True
        for word in words:
            cited = next((name for name in (word, f"m{word}") if name in shown), None)
            if cited is None:
                errors.append(f"[{word[:40]}] cites none of the memories shown")
            else:
                used[cited] = None
    if not said:
        errors.append("no citation: [m1, m4], or [NO_CITE]")
    if last_boxed(reply) is None:
        errors.append("no answer in \\boxed{}")
    return DistilledAnswer(reply, tuple(used), tuple(errors))
