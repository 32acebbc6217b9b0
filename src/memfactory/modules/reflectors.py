"""Prospective reflection, first half: from a session to topics worth remembering, with the turns that support them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

from memfactory.core.chat import ChatModel
from memfactory.core.registry import register
from memfactory.core.types import Message
from memfactory.data.dialogue import Session
from memfactory.modules.ids import whole_number
from memfactory.modules.json_replies import Understood, clean, read_list, share_understood
from memfactory.modules.prompts import fill, require


@dataclass(frozen=True)
class Topic:
    """Something that was talked about: a summary, a short title, and the ids of the turns that support it."""

    text: str
    key: str = ""
    sources: tuple[str, ...] = ()


@dataclass(frozen=True)
class Reflection:
    """The topics of a session, no text twice, what was wrong with a reply, and how much of it was understood.

    `called`: a model was asked.
    """

    topics: tuple[Topic, ...] = ()
    errors: tuple[str, ...] = ()
    called: bool = False
    understood: Understood = "whole"


class Reflector(Protocol):
    """Turns a session into topics."""

    async def reflect(self, session: Session, model: ChatModel, max_tokens: int) -> Reflection:
        """The topics of a session; at most one recorded call, of module `reflector`."""
        ...


@dataclass(frozen=True)
class TopicsReflectorConfig:
    """No settings: its prompt is `prompts.reflect`."""


@register("module", "topics", config=TopicsReflectorConfig, source="RMM, arXiv 2503.08026")
class TopicsReflector:
    """A model lists topics with their supporting turns: `{"topics": [{"topic", "summary", "turns"}]}`."""

    def __init__(self, prompts: Mapping[str, str]) -> None:
        self.template = require(prompts, "reflect", ("session",))

    async def reflect(self, session: Session, model: ChatModel, max_tokens: int) -> Reflection:
        """Show the turns numbered from 1; see `parse_topics`."""
        shown = "\n".join(f"{number}. {turn}" for number, turn in enumerate(session.turns, start=1))
        prompt = fill(self.template, session=shown, time=session.time)
        call = await model.chat([Message("user", prompt)], module="reflector", max_tokens=max_tokens)
        return parse_topics(call.text, [turn.id for turn in session.turns])


@dataclass(frozen=True)
class TurnsReflectorConfig:
    """`speakers` puts the speaker before what was said."""

    speakers: bool = True


@register("module", "turns", config=TurnsReflectorConfig, source="LongMemEval, arXiv 2410.10813")
class TurnsReflector:
    """Every turn is a topic of its own, word by word; no model is asked."""

    asks_model = False

    def __init__(self, speakers: bool = True) -> None:
        self.speakers = speakers

    async def reflect(self, session: Session, model: ChatModel, max_tokens: int) -> Reflection:
        """One topic a turn; a text that comes twice rests on both turns."""
        said = [(clean(str(turn) if self.speakers else turn.text), turn.id) for turn in session.turns]
        return Reflection(_united(Topic(text, "", (turn,)) for text, turn in said if text))


def parse_topics(reply: str, turns: Sequence[str]) -> Reflection:
    """The topics of a reply `{"topics": [{"topic", "summary", "turns": [1, 2]}, ...]}`. Never raises.

    An entry needs a `summary`, else it is left out. A number of no turn is left out of its topic; a topic that names no
    turn is kept without sources. Both are errors.
    """
    reading = read_list(reply, "topics")
    topics, errors = [], list(reading.errors)
    for number, entry in enumerate(reading.entries, start=1):
        text = clean(entry.get("summary")) if isinstance(entry, dict) else ""
        if not text:
            errors.append(f"topic {number} has no text as its 'summary'")
            continue
        named = entry.get("turns")
        places = [whole_number(value) for value in named] if isinstance(named, list) else []
        legal = [place for place in places if place is not None and 1 <= place <= len(turns)]
        if len(legal) < len(places):
            errors.append(f"topic {number} names turns that are not there")
        elif not legal:
            errors.append(f"topic {number} names no turn")
        sources = tuple(dict.fromkeys(turns[place - 1] for place in legal))
        topics.append(Topic(text, clean(entry.get("topic")), sources))
    understood = share_understood(reading, len(topics))
    return Reflection(_united(topics), tuple(errors), called=True, understood=understood)


def unite(*sources: Sequence[str]) -> tuple[str, ...]:
    """Ids of turns, each once, in the order of their first mention."""
    return tuple(dict.fromkeys(turn for ids in sources for turn in ids))


def _united(topics: Iterable[Topic]) -> tuple[Topic, ...]:
    first: dict[str, Topic] = {}
    for topic in topics:
        known = first.get(topic.text)
        first[topic.text] = (
            topic if known is None else replace(known, sources=unite(known.sources, topic.sources))
        )
    return tuple(first.values())
