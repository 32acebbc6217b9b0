"""Prospective reflection, second half: whether a topic is a memory of its own, or part of one that is there already."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from memfactory.core.bounds import AtLeastOne
from memfactory.core.chat import ChatModel
from memfactory.core.registry import register
from memfactory.core.types import Message
from memfactory.memory.item import MemoryItem
from memfactory.modules.ids import id_as_said, shown_id
from memfactory.modules.json_replies import Understood, clean, read_list, share_understood
from memfactory.modules.prompts import fill, require
from memfactory.modules.reflectors import Topic


@dataclass(frozen=True)
class Decision:
    """Merge into memory `id` under a new `text`, or, with an empty id, add.

    And what was wrong with a reply, and how much of it was understood: of nothing comes an add.
    """

    id: str = ""
    text: str = ""
    errors: tuple[str, ...] = ()
    called: bool = False
    understood: Understood = field(default="whole", compare=False)


class Merger(Protocol):
    """Decides what becomes of a topic."""

    similar: int
    """How many of the most similar memories it looks at."""

    async def decide(
        self, topic: Topic, similar: Sequence[MemoryItem], model: ChatModel, max_tokens: int
    ) -> Decision:
        """Add or merge; at most one recorded call, of module `merger`."""
        ...


@dataclass(frozen=True)
class AddConfig:
    """No settings."""


@register("module", "add", config=AddConfig)
class AddAlways:
    """Every topic is a memory of its own; no model is asked."""

    similar = 0
    asks_model = False

    async def decide(
        self, topic: Topic, similar: Sequence[MemoryItem], model: ChatModel, max_tokens: int
    ) -> Decision:
        """Add."""
        return Decision()


@dataclass(frozen=True)
class MergeConfig:
    """`similar` is the number of most similar memories that the model chooses from; its prompt is `prompts.merge`."""

    similar: AtLeastOne = 1


@register("module", "merge", config=MergeConfig, source="RMM, arXiv 2503.08026")
class MergeOrAdd:
    """A model adds a topic, or merges it into a similar memory: `{"actions": [{"op", "id", "text"}]}`."""

    def __init__(self, prompts: Mapping[str, str], similar: int = 1) -> None:
        self.template = require(prompts, "merge", ("memories", "topic"))
        self.similar = similar

    async def decide(
        self, topic: Topic, similar: Sequence[MemoryItem], model: ChatModel, max_tokens: int
    ) -> Decision:
        """Without a memory to merge into nobody is asked; see `parse_decision`."""
        if not similar:
            return Decision()
        shown = "\n".join(f"[{item.id}] {item.text}" for item in similar)
        prompt = fill(self.template, memories=shown, topic=topic.text)
        call = await model.chat([Message("user", prompt)], module="merger", max_tokens=max_tokens)
        return parse_decision(call.text, [item.id for item in similar])


def parse_decision(reply: str, shown: Sequence[str]) -> Decision:
    """The decision of a reply `{"actions": [{"op": "ADD"} or {"op": "MERGE", "id", "text"}]}`. Never raises.

    The first action that makes sense counts; a MERGE needs the id of a memory that was shown and a text. Everything
    else is an error, and when nothing makes sense the topic is added, so that nothing is lost.
    """
    reading = read_list(reply, "actions")
    errors = list(reading.errors)
    decision: Decision | None = None
    sensible = 0
    for number, entry in enumerate(reading.entries, start=1):
        found, problem = _action(entry, shown)
        if problem:
            errors.append(f"action {number}: {problem}")
            continue
        sensible += 1
        if decision is not None:
            errors.append(f"action {number}: one action was given before")
        else:
            decision = found
    if decision is None and not errors:
        errors.append("no action")
    chosen = decision or Decision()
    understood = share_understood(reading, sensible)
    return Decision(chosen.id, chosen.text, tuple(errors), called=True, understood=understood)


def _action(entry: object, shown: Sequence[str]) -> tuple[Decision, str]:
    word = clean(entry.get("op")).upper() if isinstance(entry, dict) else ""
    if word == "ADD":
        return Decision(), ""
    if word != "MERGE" or not isinstance(entry, dict):
        return Decision(), "neither ADD nor MERGE"
    name, text = id_as_said(entry.get("id")), clean(entry.get("text"))
    found = shown_id(name, shown)
    if found is None:
        return Decision(), f"there is no memory '{name[:40]}' among those shown"
    if not text:
        return Decision(), "merge without a text"
    return Decision(found, text), ""
