"""Memory-R1: an explicit memory bank, edited by learned operations session after session, and asked at the end.

The bank belongs to the rollout: each one forks the bank it starts from, so no rollout sees another's edits.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Sequence
from copy import deepcopy
from dataclasses import dataclass, field
from typing import Any, ClassVar

from memfactory.agents.bank_reader import BankReader
from memfactory.agents.base import Answer, Reading
from memfactory.core.bounds import AtLeastOne
from memfactory.core.chat import Models
from memfactory.core.registry import component_field, register
from memfactory.core.types import Outcome, Task
from memfactory.data.dialogue import Dialogue, Session
from memfactory.memory.bank import MemoryBank
from memfactory.memory.item import MemoryItem
from memfactory.modules.distilling_answerer import DistilledAnswer, MemoryAnswerer
from memfactory.modules.extractors import Extractor, Fact
from memfactory.modules.managers import Manager
from memfactory.modules.operations import KINDS, Plan, carry_out, is_lost, settle
from memfactory.modules.retrievers import Retriever, retrieve_per_speaker
from memfactory.modules.sources import supporting_turns

_ERRORS_KEPT = 20


@dataclass(frozen=True)
class Roles:
    """Which role plays which module; `policy` is the model being trained."""

    extractor: str = "policy"
    manager: str = "policy"
    answerer: str = "policy"


@dataclass(frozen=True)
class MemoryR1Config:
    """Limits of the replies in tokens, and how many memories are looked at.

    `related` memories are retrieved for each fact that the manager decides on, `top_k` for the question. With
    `per_speaker_top_k` as many are retrieved for each speaker of the dialogue instead; a chat, which knows no
    speakers, takes `top_k`.
    """

    extractor_tokens: AtLeastOne = 1024
    manager_tokens: AtLeastOne = 1024
    answer_tokens: AtLeastOne = 1024
    related: AtLeastOne = 5
    top_k: AtLeastOne = 60
    per_speaker_top_k: AtLeastOne | None = None
    roles: Roles = Roles()
    extractor: dict = component_field("module", "facts")
    manager: dict = component_field("module", "manager")
    retriever: dict = component_field("module", "bank")
    answerer: dict = component_field("module", "distilling")


@dataclass
class Notes:
    """What happened in one rollout, for rewards and reports."""

    operations: Counter[str] = field(default_factory=Counter)
    errors: list[str] = field(default_factory=list)
    unread: list[str] = field(default_factory=list)
    op_errors: int = 0
    managed: int = 0
    formats: dict[str, list[bool]] = field(
        default_factory=lambda: {"extractor": [], "manager": [], "answerer": []}
    )

    def note(self, module: str, well_formed: bool, errors: Sequence[str], *, lost: bool = False) -> None:
        """A reply of a module, whether its layout was kept, what was wrong with it, and whether nothing came of it."""
        self.formats[module].append(well_formed)
        lines = [f"{module}: {error}" for error in errors]
        self.errors += lines
        if lost:
            self.unread += lines

    def info(self, bank: MemoryBank, answer: DistilledAnswer, found: Sequence[MemoryItem]) -> dict[str, Any]:
        """All of it as plain values; the share of well-formed replies is None for a module without a call."""
        return {
            "operations": {kind: self.operations[kind] for kind in KINDS},
            "op_errors": self.op_errors,
            "manager_calls": self.managed,
            "format": {
                module: sum(kept) / len(kept) if kept else None for module, kept in self.formats.items()
            },
            "errors": self.errors[:_ERRORS_KEPT],
            "bank_size": len(bank),
            "retrieved": [item.id for item in found],
            "used": list(answer.used),
        }


@register("agent", "memory_r1", config=MemoryR1Config, source="Memory-R1, arXiv 2508.19828")
class MemoryR1(BankReader[Notes]):
    """Extracts facts from each session, orders operations on a memory bank, then answers from what it retrieves."""

    name = "memory_r1"
    reading_modules: ClassVar = ("extractor", "manager")

    def __init__(
        self,
        extractor_tokens: int,
        manager_tokens: int,
        answer_tokens: int,
        related: int,
        top_k: int,
        roles: Roles,
        extractor: Extractor,
        manager: Manager,
        retriever: Retriever,
        answerer: MemoryAnswerer,
        per_speaker_top_k: int | None = None,
        bank: MemoryBank | None = None,
    ) -> None:
        """Every rollout begins with a fork of `bank`, or with an empty one, and its dialogue's memories."""
        self.extractor_tokens = extractor_tokens
        self.manager_tokens = manager_tokens
        self.answer_tokens = answer_tokens
        self.related = related
        self.top_k = top_k
        self.per_speaker_top_k = per_speaker_top_k
        self.roles = roles
        self.extractor = extractor
        self.manager = manager
        self.retriever = retriever
        self.answerer = answerer
        self.bank = bank

    async def ask(self, task: Task, reading: Reading, models: Models) -> Outcome:
        """Answer a task's question from a reading of its dialogue; see `ReadOnceAgent.ask`."""
        bank, notes = reading.bank.fork(), deepcopy(reading.notes)
        speakers = task.evidence.speakers if isinstance(task.evidence, Dialogue) else ()
        found, answer = await self._answer(task.question, bank, models, notes, speakers)
        return Outcome(answer.reply, reading.memories, notes.info(bank, answer, found))

    async def answer(self, question: str, bank: MemoryBank, models: Models) -> Answer:
        """Answer from the memories that are retrieved from a bank; see `BankAgent.answer`."""
        found, answer = await self._answer(question, bank, models, Notes())
        return Answer(answer.reply, tuple(found), answer.used)

    def _new_notes(self) -> Notes:
        return Notes()

    async def _answer(
        self, question: str, bank: MemoryBank, models: Models, notes: Notes, speakers: Sequence[str] = ()
    ) -> tuple[list[MemoryItem], DistilledAnswer]:
        """Question → memories → answer, and the memories that were shown for it."""
        if self.per_speaker_top_k is not None and speakers:
            found = await retrieve_per_speaker(
                self.retriever, bank, question, speakers, self.per_speaker_top_k
            )
        else:
            found = await self.retriever.retrieve(bank, question, self.top_k)
        answer = await self.answerer.answer(question, found, models[self.roles.answerer], self.answer_tokens)
        notes.note("answerer", not answer.errors, answer.errors)
        return found, answer

    async def _read(self, session: Session, bank: MemoryBank, models: Models, notes: Notes) -> None:
        """Session → facts → operations → bank. Without facts there is nothing to manage, and no call."""
        extraction = await self.extractor.extract(
            session, models[self.roles.extractor], self.extractor_tokens
        )
        lost = extraction.understood == "nothing"
        notes.note("extractor", not extraction.errors, extraction.errors, lost=lost)
        if not extraction.facts:
            return
        related = await self._related(bank, extraction.facts)
        ordered = await self.manager.manage(
            related, extraction.facts, models[self.roles.manager], self.manager_tokens
        )
        plan = settle(ordered, bank, related, self.manager.on_error)
        lost = is_lost(ordered, plan, bank)
        vectors = await self.retriever.vectors(plan.texts)
        sources = {text: supporting_turns(text, session) for text in plan.texts}
        carry_out(plan, bank, vectors, session=session.id, time=session.time, sources=sources)
        notes.note("manager", not plan.malformed, plan.errors, lost=lost)
        _count(plan, notes)

    async def _related(self, bank: MemoryBank, facts: Sequence[Fact]) -> list[MemoryItem]:
        """The memories nearest to any of the facts, each once, in the order of the bank."""
        found = await asyncio.gather(
            *(self.retriever.retrieve(bank, fact.text, self.related) for fact in facts)
        )
        unique = {item.id: item for items in found for item in items}
        return sorted(unique.values(), key=lambda item: item.number)


def _count(plan: Plan, notes: Notes) -> None:
    notes.managed += 1
    notes.op_errors += len(plan.errors)
    notes.operations.update(operation.kind for operation in plan.operations)
