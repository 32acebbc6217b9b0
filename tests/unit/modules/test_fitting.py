"""Answerers with more memories than the context holds, on a model whose tokens are words."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import pytest

from memfactory.core.errors import TaskError
from memfactory.core.types import Message
from memfactory.memory.item import MemoryItem
from memfactory.modules.citing_answerer import CitingAnswerer
from memfactory.modules.distilling_answerer import DistillingAnswerer

REPLY = "Memories: m1, m2, m3, m9\n\\boxed{x} [m1, m2, m3, m9]"


class Words:
    """Has a context of `limit` words; notes what it was asked."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.asked: list[str] = []
        self.measured = 0

    def tokens_left(self, messages: Sequence[Message], *, max_tokens: int) -> int:
        self.measured += 1
        return self.limit - len(messages[0].content.split()) - max_tokens

    async def chat(self, messages: Sequence[Message], *, module: str, max_tokens: int) -> Any:
        if self.limit < len(messages[0].content.split()) + max_tokens:
            raise TaskError("too long")
        self.asked.append(messages[0].content)
        return SimpleNamespace(text=REPLY)


def memory(number: int) -> MemoryItem:
    return MemoryItem(id=f"m{number}", number=number, text=f"fact number {number}")


#: As retrieved: best first.
FOUND = [memory(9), memory(2), memory(1), memory(3)]


def answer(kind: type, limit: int) -> tuple[Words, Any]:
    prompts = {
        "answer_from_memories": "{question} {memories}",
        "answer_with_citations": "{question} {memories}",
    }
    model = Words(limit)
    return model, asyncio.run(kind(prompts).answer("Who?", FOUND, model, 5))


@pytest.mark.parametrize("kind", [DistillingAnswerer, CitingAnswerer])
def test_the_worst_memories_are_left_out_and_cannot_be_used(kind: type) -> None:
    # A memory is four words, the question one, the reply five.
    for limit, kept in ((22, [1, 2, 3, 9]), (21, [1, 2, 9]), (14, [2, 9]), (10, [9])):
        model, found = answer(kind, limit)
        assert [int(line.split()[-1]) for line in model.asked[0].split("\n")] == kept
        assert sorted(found.used) == [f"m{number}" for number in kept]
        assert len(found.errors) == 4 - len(kept)
        assert (model.measured == 0) == (len(kept) == 4), "nothing is measured where all fit"


@pytest.mark.parametrize("kind", [DistillingAnswerer, CitingAnswerer])
def test_a_question_too_long_by_itself_is_the_models_own_error(kind: type) -> None:
    with pytest.raises(TaskError, match="too long"):
        answer(kind, 5)
