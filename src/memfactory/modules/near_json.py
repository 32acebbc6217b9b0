"""Values of a list that is nearly JSON: where each one ends is told here, what it says by the library json-repair.

json-repair completes what was cut off, so it is only ever given a value that is whole, and what it makes of it counts
only if no word of it was lost. Nothing here raises, and time is bounded.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

#: A value that is longer, or nests deeper, is no entry that anybody asked for.
_LONGEST = 20_000
_DEEPEST = 24

_OPENING_QUOTES = "\"'\u201c\u2018"
_CLOSING = {'"': '"', "'": "'", "\u201c": "\u201d", "\u2018": "\u2019"}
_BRACKETS = {"{": "}", "[": "]"}
_COMMENT = r"//[^\n]*|/\*(?:[^*]|\*(?!/)){0,200}\*/|#[^\n]*"
_GAP = re.compile(rf"(?:\s|,|{_COMMENT})*")
_COMMENTS = re.compile(_COMMENT)
_PIECE = re.compile(rf"[\[\]{{}}\"'\u201c\u2018]|{_COMMENT}")
#: What may follow a string that has really ended: quotation marks inside a text are often not escaped.
_AFTER_STRING = re.compile(
    r"\s*(?:\Z|[\]}:]|//|/\*|,\s*(?:\Z|[\"'\u201c\u2018{\[\]}/#\d-]|(?:true|false|null|None|True|False)\b|\w+\s*:))"
)
_AFTER_VALUE = re.compile(r"\s*(?:\Z|[,\]]|//|/\*|#)")
_ODD_ESCAPE = re.compile(r"\\([^\"\\/bfnrtu\w])")
_ESCAPED = re.compile(r"\\u([0-9a-fA-F]{4})|\\[bfnrt]")
_WORDS = re.compile(r"[^\W_]+")
_CONSTANTS = frozenset({"none", "true", "false", "null"})

_STRICT = json.JSONDecoder()
_LINES_IN_TEXTS = json.JSONDecoder(strict=False)


@dataclass(frozen=True)
class Entries:
    """The whole values of a list in order. `closed`: the list came to its end; `unread` of its values say nothing."""

    values: tuple[Any, ...] = ()
    closed: bool = False
    unread: int = 0


def read_entries(text: str, position: int) -> Entries:
    """The values of a list from a place inside it on. A value that is cut off is left out, and so is all behind it."""
    values: list[Any] = []
    unread = 0
    while True:
        position = _GAP.match(text, position).end()  # type: ignore[union-attr]
        if text[position : position + 1] == "]":
            return Entries(tuple(values), True, unread)
        if position >= len(text) or text[position] not in _OPENING_QUOTES + "{[":
            return Entries(tuple(values), False, unread)  # a bare number may be cut off unseen
        value, end = strict_value(text, position)
        if end > position and _AFTER_VALUE.match(text, end):
            values.append(value)
        else:
            found = _extent(text, position)
            if found is None:
                return Entries(tuple(values), False, unread)
            end = found
            repaired = _repaired(text[position:end])
            if repaired is None:
                unread += 1
            else:
                values.append(repaired)
        position = end


def strict_value(text: str, position: int) -> tuple[Any, int]:
    """The JSON value at a place and where it ends; the same place again when there is none."""
    try:
        return _STRICT.raw_decode(text, position)
    except (
        ValueError,
        RecursionError,
    ):  # no JSON, a number of thousands of digits, lists in lists without end
        return None, position


def bare_list(text: str) -> int | None:
    """The place inside the last list that begins a line and holds objects or quoted texts; None if there is none."""
    position, last = 0, None
    opening = re.compile(r"^[^\S\n]*\[(?=\s*[\]\"'\u201c\u2018{])", re.MULTILINE)
    while found := opening.search(text, position):
        last = found.end()
        end = _extent(text, found.end() - 1, longest=len(text))
        if end is None:
            break
        position = end
    return last


def _extent(text: str, position: int, longest: int = _LONGEST) -> int | None:
    """Where the value at a place ends; None if it is cut off, too long or too deep."""
    if text[position] in _OPENING_QUOTES:
        return _string_end(text, position)
    stack: list[str] = []
    limit = min(len(text), position + longest)
    before = ""
    while position < limit:
        piece = _PIECE.search(text, position, limit)
        if piece is None:
            return None
        between, mark = text[position : piece.start()].strip(), piece[0]
        before, position = between[-1:] or before, piece.end()
        if mark in _BRACKETS:
            stack.append(_BRACKETS[mark])
            if len(stack) > _DEEPEST:
                return None
        elif mark in ("}", "]"):
            if not stack or stack.pop() != mark:
                return None
            if not stack:
                return position
        elif mark == '"' or (mark in _CLOSING and before in ("{", "[", ",", ":")):
            end = _string_end(text, piece.start())
            if end is None:
                return None
            position = end
        if mark[0] not in "/#":
            before = mark
    return None


def _string_end(text: str, position: int) -> int | None:
    """Where the string at a place ends; None if it does not."""
    quote = _CLOSING[text[position]]
    limit = min(len(text), position + _LONGEST)
    end = position
    while (end := text.find(quote, end + 1, limit)) >= 0:
        escapes = 0
        while text[end - 1 - escapes] == "\\":
            escapes += 1
        if escapes % 2 == 0 and _AFTER_STRING.match(text, end + 1):
            return end + 1
    return None


def _repaired(entry: str) -> Any:
    """What a whole value says that is nearly JSON; None if that cannot be told without losing words."""
    import json_repair

    entry = _ODD_ESCAPE.sub(r"\1", entry)
    try:
        return _LINES_IN_TEXTS.decode(entry)
    except (ValueError, RecursionError):
        pass  # nearly JSON, then
    try:
        found: Any = json_repair.loads(f"[{entry}]", skip_json_loads=True)
    except Exception:  # whatever a parser of wild texts may raise
        return None
    if not isinstance(found, list) or len(found) != 1:
        return None
    said = Counter(_words(_unescaped(entry)))
    kept = Counter(word for text in _texts(found[0]) for word in _words(text))
    commented = {word for comment in _COMMENTS.findall(entry) for word in _words(comment)}
    lost = set(said - kept) - commented - _CONSTANTS
    return None if lost else found[0]


def _texts(value: Any) -> Iterator[str]:
    """All keys and values of a value, as text."""
    if isinstance(value, dict):
        for key, inner in value.items():
            yield str(key)
            yield from _texts(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from _texts(inner)
    else:
        yield str(value)


def _words(text: str) -> list[str]:
    return [word.lower() for word in _WORDS.findall(text)]


def _unescaped(entry: str) -> str:
    return _ESCAPED.sub(lambda found: chr(int(found[1], 16)) if found[1] else " ", entry)
