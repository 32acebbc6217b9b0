"""RMM: reflective memory management.

After a session it looks ahead: what to keep, and with what to join it. At question time it looks back: which of what it
keeps is of use.

The bank belongs to the rollout: each one begins with a fork, so no rollout sees another's edits.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass, field
from typing import Any, ClassVar

from memfactory.agents.bank_reader import BankReader
from memfactory.agents.base import Answer, Reading
from memfactory.agents.components import ComponentLearner
from memfactory.core.bounds import AtLeastOne
from memfactory.core.chat import Models
from memfactory.core.errors import BadInput
from memfactory.core.registry import component_field, register
from memfactory.core.types import Outcome, Task
from memfactory.data.dialogue import Session
from memfactory.memory.bank import MemoryBank
from memfactory.memory.item import MemoryItem, Vector
from memfactory.modules.distilling_answerer import DistilledAnswer, MemoryAnswerer
from memfactory.modules.mergers import Merger
from memfactory.modules.reflectors import Reflector, Topic, unite
from memfactory.modules.rerankers import Ranking, Reranker, learns_online
from memfactory.modules.retrievers import Retriever

_ERRORS_KEPT = 20


@dataclass(frozen=True)
class RmmRoles:
    """Which role plays which module; `policy` is the model being trained."""

    reflector: str = "policy"
    merger: str = "policy"
    reranker: str = "policy"
    answerer: str = "policy"


@dataclass(frozen=True)
class RmmConfig:
    """Limits of the replies in tokens; `top_k` memories are retrieved for a question, `top_m` of them are shown."""

    reflector_tokens: AtLeastOne = 1024
    merger_tokens: AtLeastOne = 512
    reranker_tokens: AtLeastOne = 1024
    answer_tokens: AtLeastOne = 1024
    top_k: AtLeastOne = 20
    top_m: AtLeastOne = 5
    roles: RmmRoles = RmmRoles()
    reflector: dict = component_field("module", "topics")
    merger: dict = component_field("module", "merge")
    retriever: dict = component_field("module", "bank")
    reranker: dict = component_field("module", "linear_reinforce")
    answerer: dict = component_field("module", "citing")

    def __post_init__(self) -> None:
        if self.top_m > self.top_k:
            raise ValueError("top_m must be at most top_k")


@dataclass
class Notes:
    """What happened in one rollout, for rewards and reports."""

    operations: Counter[str] = field(default_factory=Counter)
    errors: list[str] = field(default_factory=list)
    unread: list[str] = field(default_factory=list)
    formats: dict[str, list[bool]] = field(
        default_factory=lambda: {"reflector": [], "merger": [], "reranker": [], "answerer": []}
    )

    def note(self, module: str, called: bool, errors: Sequence[str]) -> None:
        """What was wrong with a reply of a module; one that was not asked has no layout to keep."""
        if called:
            self.formats[module].append(not errors)
        self.errors += [f"{module}: {error}" for error in errors]

    def info(self, bank: MemoryBank, found: _Found) -> dict[str, Any]:
        """All of it as plain values; the share of well-formed replies is None for a module without a call."""
        return {
            "operations": {kind: self.operations[kind] for kind in ("add", "merge")},
            "format": {
                module: sum(kept) / len(kept) if kept else None for module, kept in self.formats.items()
            },
            "errors": self.errors[:_ERRORS_KEPT],
            "bank_size": len(bank),
            "retrieved": [item.id for item in found.candidates],
            "reranked": [item.id for item in found.ranking.items],
            "used": list(found.answer.used),
            "sources": {item.id: list(item.sources) for item in found.candidates},
            "draw": found.ranking.draw,
        }


@dataclass(frozen=True)
class _Found:
    """What became of a question: the memories retrieved, those shown, and the answer."""

    candidates: Sequence[MemoryItem]
    ranking: Ranking
    answer: DistilledAnswer


@register("agent", "rmm", config=RmmConfig, source="RMM, arXiv 2503.08026")
class Rmm(BankReader[Notes]):
    """Keeps topics of each session, merged with what is kept already; reranks what it retrieves, and cites."""

    name = "rmm"
    reading_modules: ClassVar = ("reflector", "merger")

    def __init__(
        self,
        reflector_tokens: int,
        merger_tokens: int,
        reranker_tokens: int,
        answer_tokens: int,
        top_k: int,
        top_m: int,
        roles: RmmRoles,
        reflector: Reflector,
        merger: Merger,
        retriever: Retriever,
        reranker: Reranker,
        answerer: MemoryAnswerer,
        bank: MemoryBank | None = None,
    ) -> None:
        """Every rollout begins with a fork of `bank`, or with an empty one, and its dialogue's memories."""
        self.reflector_tokens = reflector_tokens
        self.merger_tokens = merger_tokens
        self.reranker_tokens = reranker_tokens
        self.answer_tokens = answer_tokens
        self.top_k = top_k
        self.top_m = top_m
        self.roles = roles
        self.reflector = reflector
        self.merger = merger
        self.retriever = retriever
        self.reranker = reranker
        self.answerer = answerer
        self.bank = bank

    @property
    def component_learners(self) -> Mapping[str, ComponentLearner]:
        """The reranker, if it learns by itself; see `agents.components`."""
        learner: Any = self.reranker
        return {"reranker": learner} if hasattr(learner, "update") else {}

    async def ask(self, task: Task, reading: Reading, models: Models) -> Outcome:
        """Answer a task's question from a reading of its dialogue; see `ReadOnceAgent.ask`."""
        notes = deepcopy(reading.notes)
        found = await self._answer(task.question, reading.bank, models, notes)
        return Outcome(found.answer.reply, reading.memories, notes.info(reading.bank, found))

    async def answer(self, question: str, bank: MemoryBank, models: Models) -> Answer:
        """Answer from a bank; see `BankAgent.answer`. An online reranker learns from what the answer cites."""
        found = await self._answer(question, bank, models, Notes())
        if found.ranking.draw is not None and learns_online(self.reranker):
            self.reranker.feedback(found.ranking.draw, found.answer.used)
        return Answer(found.answer.reply, found.ranking.items, found.answer.used)

    def _new_notes(self) -> Notes:
        return Notes()

    async def _answer(self, question: str, bank: MemoryBank, models: Models, notes: Notes) -> _Found:
        """Question → K candidates → M of them → an answer that cites."""
        self.reranker.check(bank)
        candidates = await self.retriever.retrieve(bank, question, self.top_k)
        vector = await self._vector(question) if self.reranker.needs_vectors else None
        ranking = await self.reranker.rerank(
            question, vector, candidates, self.top_m, models, self.roles.reranker, self.reranker_tokens
        )
        notes.note("reranker", ranking.called, ranking.errors)
        answer = await self.answerer.answer(
            question, ranking.items, models[self.roles.answerer], self.answer_tokens
        )
        notes.note("answerer", True, answer.errors)
        return _Found(candidates, ranking, answer)

    async def _vector(self, question: str) -> Vector:
        vector = await self.retriever.query_vector(question)
        if vector is None:
            raise BadInput(
                "agent.retriever.method: this reranker works on embeddings; use embedding or hybrid, not bm25"
            )
        return vector

    async def _read(self, session: Session, bank: MemoryBank, models: Models, notes: Notes) -> None:
        """Session → topics → each added, or merged into a memory that is like it."""
        reflection = await self.reflector.reflect(
            session, models[self.roles.reflector], self.reflector_tokens
        )
        notes.note("reflector", reflection.called, reflection.errors)
        if (
            reflection.understood == "nothing"
        ):  # a merger's reply loses nothing: what it leaves unclear is added
            notes.unread += [f"reflector: {error}" for error in reflection.errors]
        vectors = await self.retriever.vectors([topic.text for topic in reflection.topics])
        for topic in reflection.topics:
            similar: list[MemoryItem] = []
            if self.merger.similar:
                similar = await self.retriever.retrieve(bank, topic.text, self.merger.similar)
            decision = await self.merger.decide(topic, similar, models[self.roles.merger], self.merger_tokens)
            notes.note("merger", decision.called, decision.errors)
            if decision.text and decision.text not in vectors:
                vectors |= await self.retriever.vectors([decision.text])
            notes.operations[keep(topic, bank, vectors, session, decision.id, decision.text)] += 1


def keep(
    topic: Topic,
    bank: MemoryBank,
    vectors: Mapping[str, Vector | None],
    session: Session,
    into: str = "",
    text: str = "",
) -> str:
    """Add a topic, or merge it into memory `into` under a new text; returns `add` or `merge`.

    A merged memory rests on the turns of both. No text comes twice: a topic whose text the bank has already is merged
    into that memory, and so is a merge into the text of a third one, which both become part of.
    """
    when = {"session": session.id, "time": session.time}
    text = text or topic.text
    old = bank.get(into) if into else None
    same = [item for item in bank.with_text(text) if item.id != into]
    with bank.transaction():
        if old is None and not same:
            bank.add(text, embedding=vectors[text], key=topic.key, sources=topic.sources, **when)
            return "add"
        target = same[0] if same else old
        assert target is not None
        joined = [item.sources for item in (target, old) if item is not None]
        if old is not None and old.id != target.id:
            bank.delete(old.id)
        sources = unite(*joined, topic.sources)
        bank.update(target.id, text=text, embedding=vectors[text], sources=sources, **when)
        return "merge"
