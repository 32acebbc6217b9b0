"""The list that a reply carries in JSON, read from whatever a model wrote around, inside or instead of it."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from memfactory.core.replies import answer_in

#: Places at which JSON is tried to begin; a longer reply of nothing but braces is no reply.
_MOST_STARTS = 200
NO_ANSWER = "no answer: nothing was said, or a thought was not finished"
_DECODER = json.JSONDecoder()
_SEPARATOR = re.compile(r"[\s,]*")


@dataclass(frozen=True)
class Reading:
    """The entries that were understood, in order, and one line for everything that was wrong."""

    entries: tuple[Any, ...] = ()
    errors: tuple[str, ...] = ()


def read_list(reply: str, key: str) -> Reading:
    """The list under `key` of the last JSON object in the reply that has this key. Never raises.

    Thoughts are left out before (`core.replies`). Text around the object is passed
    over without an error, so a model may think aloud. Of an object that is cut off, or broken further on, the entries
    before the break are read, and the break is an error.
    """
    text = answer_in(reply)
    if not text.strip():
        return Reading(errors=(NO_ANSWER,))
    found = [value for value in _objects(text) if key in value]
    if found:
        entries = found[-1][key]
        if isinstance(entries, list):
            return Reading(tuple(entries))
        return Reading(errors=(f"'{key}' is not a list",))
    openings = list(re.finditer(rf'"{re.escape(key)}"\s*:\s*\[', text))
    if not openings:
        return Reading(errors=(f"no JSON object with '{key}'",))
    return Reading(_entries(text, openings[-1].end()), (f"the JSON with '{key}' is cut off or broken",))


def clean(value: object) -> str:
    """A text of a reply as a bank may keep it: one line, no broken surrogates; empty for all that is no text."""
    if not isinstance(value, str):
        return ""
    return " ".join(value.encode("utf-8", "replace").decode("utf-8").replace("\x00", " ").split())


def clean_list(value: object) -> tuple[str, ...]:
    """The texts of a list, clean and not empty; nothing for all that is no list."""
    if not isinstance(value, list):
        return ()
    return tuple(text for entry in value if (text := clean(entry)))


def _objects(text: str) -> Iterator[Mapping[str, Any]]:
    """Every whole JSON object of the text, outermost ones only, in order."""
    position = 0
    for _ in range(_MOST_STARTS):
        position = text.find("{", position)
        if position < 0:
            return
        value, end = _decode(text, position)
        if isinstance(value, dict):
            yield value
            position = end
        else:
            position += 1


def _entries(text: str, position: int) -> tuple[Any, ...]:
    """Whole values from a place inside a list on, until the list ends or breaks off."""
    entries: list[Any] = []
    while True:
        position = _SEPARATOR.match(text, position).end()  # type: ignore[union-attr]
        if position >= len(text) or text[position] not in '{["':  # a bare number may be cut off unseen
            return tuple(entries)
        value, end = _decode(text, position)
        if end == position:
            return tuple(entries)
        entries.append(value)
        position = end


def _decode(text: str, position: int) -> tuple[Any, int]:
    """The JSON value at a place and where it ends; the same place again when there is none."""
    try:
        return _DECODER.raw_decode(text, position)
    except (
        ValueError,
        RecursionError,
    ):  # no JSON, a number of thousands of digits, lists in lists without end
        return None, position
