"""Managers: from facts and the memories related to them to operations on the bank."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

from memfactory.core.chat import ChatModel
from memfactory.core.registry import register
from memfactory.core.types import Message
from memfactory.memory.item import MemoryItem
from memfactory.modules.extractors import Fact
from memfactory.modules.operations import OnError, Plan, parse_addressed, parse_numbered
from memfactory.modules.prompts import fill, require

NOTHING = "(none)"


class Manager(Protocol):
    """Decides what becomes of facts, in view of what the bank has."""

    on_error: OnError
    """What an error in a reply costs: the operation that has it, or the whole plan."""

    async def manage(
        self, existing: Sequence[MemoryItem], facts: Sequence[Fact], model: ChatModel, max_tokens: int
    ) -> Plan:
        """Ask for operations; one recorded call of module `manager`."""
        ...


class AddressedManager:
    """ADD, UPDATE, DELETE and NOOP with the ids of the bank, as in Memory-R1; prompt `manage`.

    A prompt `existing_memory` with `{id}` and `{text}` shows memories otherwise than as `[m3] text`.
    """

    def __init__(self, prompts: Mapping[str, str], on_error: OnError = "skip") -> None:
        self.template = require(prompts, "manage", ("memories", "facts"))
        self.line = prompts.get("existing_memory", "[{id}] {text}")
        self.on_error: OnError = on_error

    async def manage(
        self, existing: Sequence[MemoryItem], facts: Sequence[Fact], model: ChatModel, max_tokens: int
    ) -> Plan:
        """Show memories under their own ids, and the facts; see `parse_addressed`."""
        prompt = fill(
            self.template,
            memories="\n".join(fill(self.line, id=item.id, text=item.text) for item in existing) or NOTHING,
            facts="\n".join(f"- {fact.text}" for fact in facts) or NOTHING,
        )
        call = await model.chat([Message("user", prompt)], module="manager", max_tokens=max_tokens)
        return parse_addressed(call.text, facts)


class NumberedManager:
    """DEL or NONE for memories, ADD, UPDATE or NONE for candidates, in one numbered list; prompt `manage_numbered`."""

    def __init__(self, prompts: Mapping[str, str], on_error: OnError = "void") -> None:
        self.template = require(prompts, "manage_numbered", ("memories", "facts"))
        self.on_error: OnError = on_error

    async def manage(
        self, existing: Sequence[MemoryItem], facts: Sequence[Fact], model: ChatModel, max_tokens: int
    ) -> Plan:
        """Show memories and facts as one list of JSON objects, numbered from 1; see `parse_numbered`."""
        entries = [(entry.key, entry.text) for entry in existing] + [(fact.key, fact.text) for fact in facts]
        shown = [
            json.dumps({"id": number, "key": key, "value": text}, ensure_ascii=False)
            for number, (key, text) in enumerate(entries, start=1)
        ]
        prompt = fill(
            self.template,
            memories="\n".join(shown[: len(existing)]) or NOTHING,
            facts="\n".join(shown[len(existing) :]) or NOTHING,
        )
        call = await model.chat([Message("user", prompt)], module="manager", max_tokens=max_tokens)
        return parse_numbered(call.text, existing, facts)


@dataclass(frozen=True)
class ManagerConfig:
    """`operations` is addressed (Memory-R1, prompt `manage`) or numbered (MemFactory, prompt `manage_numbered`).

    `on_error` says what a wrong operation costs: `skip` only itself, `void` the whole plan. Null is what the layout's
    authors do: skip for addressed, void for numbered.
    """

    operations: Literal["addressed", "numbered"] = "addressed"
    on_error: Literal["skip", "void"] | None = None


@register("module", "manager", config=ManagerConfig, source="Memory-R1, arXiv 2508.19828")
def manager(
    prompts: Mapping[str, str],
    operations: Literal["addressed", "numbered"] = "addressed",
    on_error: OnError | None = None,
) -> Manager:
    """Orders ADD, UPDATE, DELETE or NOOP for what was extracted, in one of two layouts."""
    if operations == "numbered":
        return NumberedManager(prompts, on_error or "void")
    return AddressedManager(prompts, on_error or "skip")
