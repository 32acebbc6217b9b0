"""An answerer without a model, for the synthetic worlds: it reads the sentences that its generator can write."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

from memfactory.core.chat import ChatModel
from memfactory.core.registry import register
from memfactory.data.synthetic.vocabulary import FACTS, QUESTIONS, VALUES
from memfactory.memory.item import MemoryItem
from memfactory.modules.distilling_answerer import DistilledAnswer

_UNKNOWN = "\\boxed{unknown} [NO_CITE]"


@dataclass(frozen=True)
class PatternReaderConfig:
    """No settings."""


@register("module", "pattern_reader", config=PatternReaderConfig)
class PatternReader:
    r"""Answers a question of the synthetic world from the memory that states it, and cites that memory; asks no model.

    It is right exactly when a memory with the answer is among those it is shown, so what a reranker shows is all that
    decides.
    """

    asks_model = False

    async def answer(
        self, question: str, memories: Sequence[MemoryItem], model: ChatModel, max_tokens: int
    ) -> DistilledAnswer:
        r"""`\boxed{value} [id]` of the latest memory that states it, else `\boxed{unknown} [NO_CITE]`."""
        asked = _asked(question)
        if asked is not None:
            for item in sorted(memories, key=lambda item: item.number, reverse=True):
                if value := _stated(item.text, *asked):
                    return DistilledAnswer(f"\\boxed{{{value}}} [{item.id}]", (item.id,))
        return DistilledAnswer(_UNKNOWN)


def _asked(question: str) -> tuple[str, str] | None:
    """Whom and which kind of thing a question is about."""
    for kind, pattern in _questions().items():
        if found := pattern.search(question):
            return found.group("n"), kind
    return None


def _stated(text: str, name: str, kind: str) -> str:
    """The value of a kind that a text states of a person; empty if it states none."""
    for pattern in _statements(kind):
        for found in pattern.finditer(text):
            if found.group("n") == name and found.group("v") in VALUES[kind]:
                return found.group("v")
    return ""


@cache
def _questions() -> dict[str, re.Pattern[str]]:
    return {kind: re.compile(_as_regex(shape), re.IGNORECASE) for kind, shape in QUESTIONS.items()}


@cache
def _statements(kind: str) -> tuple[re.Pattern[str], ...]:
    return tuple(re.compile(_as_regex(shape)) for shape in FACTS[kind])


def _as_regex(shape: str) -> str:
    escaped = re.escape(shape)
    return escaped.replace(re.escape("{n}"), r"(?P<n>\w+)").replace(re.escape("{v}"), r"(?P<v>\w+)")
