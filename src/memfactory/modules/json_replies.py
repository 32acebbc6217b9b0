"""The list that a reply carries in JSON, read from whatever a model wrote around, inside or instead of it."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from memfactory.core.replies import answer_in
from memfactory.core.texts import one_line
from memfactory.modules.near_json import Entries, bare_list, read_entries, strict_value

#: How much of a reply was understood: all of it, whatever was wrong with its form; the beginning; or nothing at all.
Understood = Literal["whole", "partly", "nothing"]

#: Places at which JSON is tried to begin; a longer reply of nothing but braces is no reply.
_MOST_STARTS = 200
NO_ANSWER = "no answer: nothing was said, or a thought was not finished"


@dataclass(frozen=True)
class Reading:
    """The entries that were understood, in order, and one line for everything that was wrong."""

    entries: tuple[Any, ...] = ()
    errors: tuple[str, ...] = ()
    understood: Understood = "whole"


def read_list(reply: str, key: str) -> Reading:
    """The list under `key` of the last JSON object in the reply that has this key. Never raises.

    Thoughts are left out before (`core.replies`). Text around the object is passed over without an error, so a model
    may think aloud. What is nearly JSON is read (`near_json`), also a list without its object; that it is not
    well-formed is an error. Of a list that is cut off, or broken further on, the entries before the break are read, and
    the break is an error.
    """
    text = answer_in(reply)
    if not text.strip():
        return Reading(errors=(NO_ANSWER,), understood="nothing")
    last: Any = None
    end = -1
    for value, behind in _objects(text):
        if key in value:
            last, end = value[key], behind
    quoted = rf"[\"'\u201c\u2018]{re.escape(key)}[\"'\u201d\u2019]\s*:\s*\[|[{{,]\s*{re.escape(key)}\s*:\s*\["
    begun = [found.end() for found in re.finditer(quoted, text, re.IGNORECASE) if found.start() >= end]
    if begun:
        return _of(read_entries(text, begun[-1]), key)
    if end >= 0:
        if isinstance(last, list):
            return Reading(tuple(last))
        return Reading(errors=(f"'{key}' is not a list",), understood="nothing")
    bare = bare_list(text)
    if bare is None:
        return Reading(errors=(f"no JSON object with '{key}'",), understood="nothing")
    return _of(read_entries(text, bare), key)


def _of(entries: Entries, key: str) -> Reading:
    form = "not well-formed" if entries.closed else "cut off or broken"
    errors = [f"the JSON with '{key}' is {form}"]
    errors += [f"{entries.unread} of its entries cannot be read"] if entries.unread else []
    understood: Understood = "whole" if entries.closed and not entries.unread else "partly"
    return Reading(
        entries.values,
        tuple(errors),
        understood if entries.values or understood == "whole" else "nothing",
    )


def share_understood(reading: Reading, used: int) -> Understood:
    """How much was understood of a reply of whose entries `used` made sense."""
    if reading.understood == "nothing" or used == len(reading.entries):
        return reading.understood
    return "partly" if used else "nothing"


def clean(value: object) -> str:
    """A text of a reply as a bank may keep it (`core.texts.one_line`); empty for all that is no text."""
    return one_line(value) if isinstance(value, str) else ""


def clean_list(value: object) -> tuple[str, ...]:
    """The texts of a list, clean and not empty; nothing for all that is no list."""
    if not isinstance(value, list):
        return ()
    return tuple(text for entry in value if (text := clean(entry)))


def _objects(text: str) -> Iterator[tuple[Mapping[str, Any], int]]:
    """Every whole JSON object of the text with the place behind it, outermost ones only, in order."""
    position = 0
    for _ in range(_MOST_STARTS):
        position = text.find("{", position)
        if position < 0:
            return
        value, end = strict_value(text, position)
        if isinstance(value, dict):
            yield value, end
            position = end
        else:
            position += 1
