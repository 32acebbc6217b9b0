"""Rerankers: which of the memories that were retrieved for a question are shown to the answerer, best first."""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, Protocol, TypeGuard

from memfactory.core.chat import Models
from memfactory.core.registry import register
from memfactory.core.replies import answer_in
from memfactory.core.types import Message
from memfactory.memory.bank import MemoryBank
from memfactory.memory.item import MemoryItem, Vector
from memfactory.modules.ids import whole_number
from memfactory.modules.json_replies import NO_ANSWER
from memfactory.modules.managers import NOTHING
from memfactory.modules.prompts import fill, require

if TYPE_CHECKING:
    import numpy

#: A JSON list without lists in it; what is no number inside is an error of its own.
_LIST = re.compile(r"\[([^\[\]]*)\]")


@dataclass(frozen=True)
class Draw:
    """How a learning reranker came to its ranking: all that its learner needs, as plain arrays.

    `query` [D] and `memories` [K, D] are the embeddings, `ids` the K candidates in their order, `order` the places of
    those that were drawn, first drawn first.
    """

    query: numpy.ndarray
    memories: numpy.ndarray
    ids: tuple[str, ...]
    order: tuple[int, ...]


@dataclass(frozen=True)
class Ranking:
    """The memories to show, best first, and what was wrong with a reply; `called` tells that a model was asked."""

    items: tuple[MemoryItem, ...] = ()
    errors: tuple[str, ...] = ()
    called: bool = False
    draw: Draw | None = None


class Reranker(Protocol):
    """Puts candidates in order and keeps the best."""

    needs_vectors: bool
    """Whether it works on embeddings, so that memories found by words alone are of no use to it."""

    def check(self, bank: MemoryBank) -> None:
        """Raise `BadInput` for a bank whose memories it cannot rank."""
        ...

    async def rerank(
        self,
        question: str,
        vector: Vector | None,
        candidates: Sequence[MemoryItem],
        m: int,
        models: Models,
        role: str,
        max_tokens: int,
    ) -> Ranking:
        """At most `m` of the candidates (which come in the order of retrieval), best first.

        `vector` is the question's embedding. A reranker that asks a model asks `role`, in one recorded call of module
        `reranker`. Raises `TaskError` as a call does.
        """
        ...


class LearningReranker(Reranker, Protocol):
    """A reranker that can learn from what became of its draws while it serves."""

    online: bool

    def feedback(self, draw: Draw, cited: Collection[str]) -> None:
        """Learn from one answer: the ids of the memories that it cites."""
        ...


def learns_online(reranker: Reranker) -> TypeGuard[LearningReranker]:
    """Whether a reranker wants feedback while it serves."""
    return bool(getattr(reranker, "online", False))


@dataclass(frozen=True)
class RetrievalOrderConfig:
    """No settings."""


@register("module", "retrieval_order", config=RetrievalOrderConfig)
class RetrievalOrder:
    """Keeps the order of retrieval: what a reranker must beat."""

    needs_vectors = False
    asks_model = False

    def check(self, bank: MemoryBank) -> None:
        """Any bank will do."""

    async def rerank(
        self,
        question: str,
        vector: Vector | None,
        candidates: Sequence[MemoryItem],
        m: int,
        models: Models,
        role: str,
        max_tokens: int,
    ) -> Ranking:
        """The first `m`."""
        return Ranking(tuple(candidates[:m]))


@dataclass(frozen=True)
class PolicyRerankerConfig:
    """`shown` is the order in which candidates are numbered: `bank` (oldest first) or `retrieval` (best first)."""

    shown: Literal["bank", "retrieval"] = "bank"


@register("module", "policy_reranker", config=PolicyRerankerConfig, source="MemFactory, arXiv 2603.29493")
class PolicyReranker:
    """A model reads the numbered candidates and prints a JSON list of the numbers it would keep, best first.

    Prompts: `rerank` (question, memories) and `rerank_memory` (id, text, time), one line a candidate.
    """

    needs_vectors = False

    def check(self, bank: MemoryBank) -> None:
        """Any bank will do."""

    def __init__(self, prompts: Mapping[str, str], shown: Literal["bank", "retrieval"] = "bank") -> None:
        self.template = require(prompts, "rerank", ("question", "memories"))
        self.line = require(prompts, "rerank_memory", ("id", "text"))
        self.shown = shown

    async def rerank(
        self,
        question: str,
        vector: Vector | None,
        candidates: Sequence[MemoryItem],
        m: int,
        models: Models,
        role: str,
        max_tokens: int,
    ) -> Ranking:
        """Ask for at most `m` numbers; see `parse_ranking`. Without candidates nobody is asked."""
        if not candidates:
            return Ranking()
        listed = sorted(candidates, key=lambda item: item.number) if self.shown == "bank" else candidates
        lines = [
            fill(self.line, id=str(number), text=item.text, time=item.updated_time)
            for number, item in enumerate(listed, start=1)
        ]
        prompt = fill(
            self.template,
            question=question,
            memories="\n".join(lines) or NOTHING,
            most=str(m),
        )
        call = await models[role].chat([Message("user", prompt)], module="reranker", max_tokens=max_tokens)
        numbers, errors = parse_ranking(call.text, len(listed), m)
        return Ranking(tuple(listed[number - 1] for number in numbers), errors, called=True)


def parse_ranking(reply: str, shown: int, most: int) -> tuple[tuple[int, ...], tuple[str, ...]]:
    """The numbers 1 .. `shown` that the last JSON list of a reply names, and what was wrong. Never raises.

    A number not shown, one named twice, and those after the first `most` are errors and left out. Text around the
    list is passed over, so a model may think aloud.
    """
    text = answer_in(reply)
    if not text.strip():
        return (), (NO_ANSWER,)
    lists = [entries for found in _LIST.finditer(text) if (entries := _read(found.group(0))) is not None]
    if not lists:
        return (), ("no JSON list of numbers",)
    numbers: dict[int, None] = {}
    errors = []
    for entry in lists[-1]:
        number = whole_number(entry)
        if number is None or not 1 <= number <= shown:
            errors.append(f"{str(entry)[:20]} is none of the numbers shown")
        elif number in numbers:
            errors.append(f"{number} is named twice")
        elif len(numbers) == most:
            errors.append(f"more than {most} numbers")
            break
        else:
            numbers[number] = None
    if not numbers and not errors:
        errors.append("an empty list")
    return tuple(numbers), tuple(errors)


def _read(text: str) -> list[object] | None:
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):  # no JSON, or a number of thousands of digits
        return None
    return value if isinstance(value, list) else None
