"""Baselines: what one would use instead of a memory agent. Each is a single call with some text, or with none.

They share prompts (`answer_without_text`, `answer_from_text`), so what differs between them is the text alone.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy

from memfactory.agents.evidence import text_of
from memfactory.core.bounds import AtLeastOne
from memfactory.core.chat import ChatModel, Models
from memfactory.core.errors import TaskError
from memfactory.core.registry import component_field, register
from memfactory.core.types import Message, Outcome, Task
from memfactory.memory.batching import Embedder
from memfactory.memory.bm25 import TextIndex
from memfactory.memory.item import MemoryItem
from memfactory.modules.prompts import fill, require

#: Stands for what was left out of the middle of a text.
GAP = "\n...\n"


@dataclass(frozen=True)
class BaselineRoles:
    """Which role answers; `policy` is the model of the recipe."""

    answerer: str = "policy"


@dataclass(frozen=True)
class BaselineConfig:
    """`answer_tokens` bounds the reply, in tokens of the model that answers."""

    answer_tokens: AtLeastOne = 1024
    roles: BaselineRoles = BaselineRoles()


@dataclass(frozen=True)
class RetrievalConfig(BaselineConfig):
    """The text is cut into chunks of `chunk_tokens`; the `top_k` best are read, in the order of the text."""

    chunk_tokens: AtLeastOne = 256
    top_k: AtLeastOne = 16


@dataclass(frozen=True)
class EmbeddingRetrievalConfig(RetrievalConfig):
    """The same, with the embedder that compares chunks with the question."""

    embedder: dict = component_field("embedder", "sentence_transformers")


@register("agent", "no_memory", config=BaselineConfig)
class NoMemory:
    """Baseline: answers from the question alone; what it gets right needs no text."""

    def __init__(
        self, answer_tokens: int, prompts: Mapping[str, str], roles: BaselineRoles | None = None
    ) -> None:
        self.answer_tokens = answer_tokens
        self.roles = roles or BaselineRoles()
        self.template = require(prompts, "answer_without_text", ("question",))

    async def __call__(self, task: Task, models: Models) -> Outcome:
        """One call with the question."""
        messages = [Message("user", fill(self.template, question=task.question))]
        model = models[self.roles.answerer]
        call = await model.chat(messages, module="answer", max_tokens=self.answer_tokens)
        return Outcome(reply=call.answer or "")


class FromText(ABC):
    """Answers from a text that a subclass selects, in one call."""

    def __init__(
        self, answer_tokens: int, prompts: Mapping[str, str], roles: BaselineRoles | None = None
    ) -> None:
        self.answer_tokens = answer_tokens
        self.roles = roles or BaselineRoles()
        self.template = require(prompts, "answer_from_text", ("question", "text"))

    async def __call__(self, task: Task, models: Models) -> Outcome:
        """One call with question and selected text. Raises `TaskError` when the two do not fit the context."""
        model = models[self.roles.answerer]
        messages = self.messages(task, await self.select(task, model))
        call = await model.chat(messages, module="answer", max_tokens=self.answer_tokens)
        return Outcome(reply=call.answer or "")

    @abstractmethod
    async def select(self, task: Task, model: ChatModel) -> str:
        """The text to answer from. Raises `TaskError` for a task that has none."""

    def messages(self, task: Task, text: str) -> list[Message]:
        """The conversation that asks the task's question about a text."""
        return [Message("user", fill(self.template, question=task.question, text=text))]


@register("agent", "full_context", config=BaselineConfig)
class FullContext(FromText):
    """Baseline: reads the whole text in one call, its middle cut out where the context is too small."""

    async def select(self, task: Task, model: ChatModel) -> str:
        """The text, or as much of its beginning and end as fits beside prompt and reply.

        Raises `TaskError` when not even the question fits.
        """
        whole = text_of(task)
        over = -self._left(task, whole, model)
        if over <= 0:
            return whole
        total = model.count_tokens(whole)
        keep, text = min(total, self._left(task, "", model)), whole
        # Token counts of parts do not add up exactly, so the first cut may be a little too long.
        while over > 0:
            if keep < 2:
                raise TaskError(
                    f"task '{task.id}': question and reply leave no room for text in the model's context; "
                    f"lower agent.answer_tokens={self.answer_tokens} or raise model.max_model_len"
                )
            text = cut_middle(whole, keep, total, model)
            over = -self._left(task, text, model)
            keep -= max(over, 0)
        return text

    def _left(self, task: Task, text: str, model: ChatModel) -> int:
        return model.tokens_left(self.messages(task, text), max_tokens=self.answer_tokens)


class Retrieval(FromText):
    """Answers from the chunks that a subclass ranks first."""

    def __init__(
        self,
        answer_tokens: int,
        chunk_tokens: int,
        top_k: int,
        prompts: Mapping[str, str],
        roles: BaselineRoles | None = None,
    ) -> None:
        super().__init__(answer_tokens, prompts, roles)
        self.chunk_tokens = chunk_tokens
        self.top_k = top_k

    @staticmethod
    def longest_calls(fields: Mapping[str, Any], count: Callable[[str], int]) -> dict[str, int]:
        """Tokens of prompt and reply that each module needs; `count` is of a named prompt."""
        read = int(fields["top_k"]) * int(fields["chunk_tokens"])
        return {"answerer": count("answer_from_text") + read + int(fields["answer_tokens"])}

    async def select(self, task: Task, model: ChatModel) -> str:
        """The best chunks in the order of the text; neighbours are joined again, gaps are marked."""
        chunks = model.split_text(text_of(task), self.chunk_tokens)
        if len(chunks) <= self.top_k:
            return "".join(chunks)
        best = sorted((await self.rank(task.question, chunks))[: self.top_k])
        text = chunks[best[0]]
        for before, here in pairwise(best):
            text += chunks[here] if here == before + 1 else GAP + chunks[here]
        return text

    @abstractmethod
    async def rank(self, question: str, chunks: list[str]) -> list[int]:
        """All chunks by number, the best first; between equal ones the earlier in the text."""


@register("agent", "rag_bm25", config=RetrievalConfig)
class RagBm25(Retrieval):
    """Baseline: answers from the chunks of the text that BM25 finds for the question."""

    async def rank(self, question: str, chunks: list[str]) -> list[int]:
        """Chunks that share words with the question by their score, then the others."""
        index = TextIndex(MemoryItem(id=str(number), text=chunk) for number, chunk in enumerate(chunks))
        found = [int(name) for name, _ in index.search(question, self.top_k)]
        return [*found, *(number for number in range(len(chunks)) if number not in found)]


@register("agent", "rag_embedding", config=EmbeddingRetrievalConfig)
class RagEmbedding(Retrieval):
    """Baseline: answers from the chunks of the text whose embeddings are nearest to the question's."""

    def __init__(
        self,
        answer_tokens: int,
        chunk_tokens: int,
        top_k: int,
        embedder: Embedder,
        prompts: Mapping[str, str],
        roles: BaselineRoles | None = None,
    ) -> None:
        super().__init__(answer_tokens, chunk_tokens, top_k, prompts, roles)
        self.embedder = embedder

    async def rank(self, question: str, chunks: list[str]) -> list[int]:
        """Chunks by the cosine of their embedding with the question's."""
        vectors = await self.embedder.embed(chunks)
        [asked] = await self.embedder.embed([question], query=True)
        order = numpy.argsort(-(vectors @ asked), kind="stable")
        return [int(number) for number in order]


@register("agent", "oracle", config=BaselineConfig)
class Oracle(FromText):
    """Baseline: answers from the gold evidence alone, as if retrieval were perfect."""

    async def select(self, task: Task, model: ChatModel) -> str:
        """`meta["gold_evidence"]`. Raises `TaskError` for a task without it."""
        gold = task.meta.get("gold_evidence")
        if not isinstance(gold, str) or not gold.strip():
            raise TaskError(
                f"task '{task.id}': oracle needs a text in meta 'gold_evidence', and this task has none"
            )
        return gold


def cut_middle(text: str, keep: int, total: int, model: ChatModel) -> str:
    """The first and the last half of `keep` tokens, cut at token boundaries, of a text of `total` tokens."""
    if keep >= total:
        return text
    head = model.split_text(text, keep - keep // 2)[0]
    before_tail = model.split_text(text, total - keep // 2)[0]
    return head + GAP + text[len(before_tail) :]
