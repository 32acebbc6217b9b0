"""Extractors: from a session of a dialogue to the facts worth remembering."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

from memfactory.core.chat import ChatModel
from memfactory.core.registry import register
from memfactory.core.types import Message
from memfactory.data.dialogue import Session
from memfactory.modules.json_replies import (
    Reading,
    Understood,
    clean,
    clean_list,
    read_list,
    share_understood,
)
from memfactory.modules.prompts import fill, require


@dataclass(frozen=True)
class Fact:
    """Something that a session says. `key` is a short title, `type` a class of memories; both may be empty."""

    text: str
    key: str = ""
    type: str = ""
    tags: tuple[str, ...] = ()


@dataclass(frozen=True)
class Extraction:
    """What a reply says is worth remembering, no text twice, what was wrong with it, and how much was understood."""

    facts: tuple[Fact, ...] = ()
    errors: tuple[str, ...] = ()
    understood: Understood = "whole"


class Extractor(Protocol):
    """Turns a session into facts."""

    async def extract(self, session: Session, model: ChatModel, max_tokens: int) -> Extraction:
        """Ask for the facts of a session; one recorded call of module `extractor`."""
        ...


@dataclass(frozen=True)
class FactsExtractorConfig:
    """No settings: its prompt is `prompts.extract`."""


@register("module", "facts", config=FactsExtractorConfig, source="Memory-R1, arXiv 2508.19828")
class FactsExtractor:
    """Facts as plain sentences: `{"facts": ["...", ...]}`."""

    def __init__(self, prompts: Mapping[str, str]) -> None:
        self.template = require(prompts, "extract", ("session",))

    async def extract(self, session: Session, model: ChatModel, max_tokens: int) -> Extraction:
        """Ask for the facts; see `parse_facts`."""
        return parse_facts(await _ask(self.template, session, model, max_tokens))


@dataclass(frozen=True)
class MemoryListExtractorConfig:
    """No settings: its prompt is `prompts.extract_memory_list`."""


@register("module", "memory_list", config=MemoryListExtractorConfig, source="MemFactory, arXiv 2603.29493")
class MemoryListExtractor:
    """Facts with title, type and tags: `{"memory_list": [{"key", "memory_type", "value", "tags"}, ...], "summary"}`."""

    def __init__(self, prompts: Mapping[str, str]) -> None:
        self.template = require(prompts, "extract_memory_list", ("session",))

    async def extract(self, session: Session, model: ChatModel, max_tokens: int) -> Extraction:
        """Ask for the facts; see `parse_memory_list`."""
        return parse_memory_list(await _ask(self.template, session, model, max_tokens))


def parse_facts(reply: str) -> Extraction:
    """The facts of a reply `{"facts": [...]}`. Never raises."""
    reading = read_list(reply, "facts")
    facts, errors = [], list(reading.errors)
    for number, entry in enumerate(reading.entries, start=1):
        if text := clean(entry):
            facts.append(Fact(text))
        else:
            errors.append(f"fact {number} is not a text")
    return _extraction(reading, facts, errors)


def parse_memory_list(reply: str) -> Extraction:
    """The facts of a reply `{"memory_list": [...], "summary": ...}`; the summary is not kept. Never raises.

    An entry needs a `value`; the other fields are left empty when they are missing or of a wrong type.
    """
    reading = read_list(reply, "memory_list")
    facts, errors = [], list(reading.errors)
    for number, entry in enumerate(reading.entries, start=1):
        text = clean(entry.get("value")) if isinstance(entry, dict) else ""
        if not text:
            errors.append(f"memory {number} has no text as its 'value'")
            continue
        facts.append(
            Fact(
                text, clean(entry.get("key")), clean(entry.get("memory_type")), clean_list(entry.get("tags"))
            )
        )
    return _extraction(reading, facts, errors)


async def _ask(template: str, session: Session, model: ChatModel, max_tokens: int) -> str:
    prompt = fill(template, session=str(session), time=session.time)
    call = await model.chat([Message("user", prompt)], module="extractor", max_tokens=max_tokens)
    return call.text


def _extraction(reading: Reading, facts: list[Fact], errors: list[str]) -> Extraction:
    first: dict[str, Fact] = {}
    for fact in facts:
        first.setdefault(fact.text, fact)
    return Extraction(tuple(first.values()), tuple(errors), share_understood(reading, len(facts)))
