"""Ids and numbers as models write them: prompts show `[m3] text`, so a reply may say `[m3]`, `m3.` or all of it."""

from __future__ import annotations

import re

from memfactory.core.texts import one_line

_DIGITS = 18
_ID = re.compile(
    r"(?:(?:memory|id)\s*)?[\[(#<\"'`*\s]*(?P<letter>m?)0*(?P<digits>\d{1,18})[\])>\"'`*\s.,;:]*",
    re.IGNORECASE,
)
#: A line as a prompt shows it, with the text behind the id.
_LINE = re.compile(
    r"\[(?P<letter>m)0*(?P<digits>\d{1,18})\]\s|(?P<bare>m)0*(?P<number>\d{1,18}):\s", re.IGNORECASE
)


def memory_id(value: object) -> str:
    """The id that a reply gives for a memory: `m3`, or the digits alone where it gives only those.

    One id in a list, and a whole number as a float, are understood too. What is no such id comes back as the text that
    it is; what is no text, as nothing. Never raises.
    """
    if isinstance(value, list) and len(value) == 1:
        value = value[0]
    if isinstance(value, float) and 0 <= value < 2**53 and value.is_integer():
        value = int(value)
    number = whole_number(value)
    if number is not None and not isinstance(value, str):
        return str(number)
    if not isinstance(value, str):
        return ""
    text = one_line(value)
    if found := _ID.fullmatch(text):
        return f"{found['letter'].lower()}{int(found['digits'])}"
    if found := _LINE.match(text):
        return f"m{int(found['digits'] or found['number'])}"
    return text


def whole_number(value: object) -> int | None:
    """A number of a list as a reply gives it: 3, "3", "[3]" or "3."; None for all that is none. Never raises."""
    if isinstance(value, bool):
        return None
    if isinstance(value, int):
        return value if 0 <= value < 10**_DIGITS else None
    if isinstance(value, str) and len(value) < 100 and (found := _ID.fullmatch(value.strip())):
        return None if found["letter"] or not found["digits"].isascii() else int(found["digits"])
    return None
