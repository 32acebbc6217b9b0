"""Ids and numbers as models write them: prompts show `[m3] text`, so a reply may say `[m3]`, `m3.` or all of it."""

from __future__ import annotations

import re
from collections.abc import Collection

from memfactory.core.texts import one_line

_DIGITS = 18
_AROUND = "[](){}<>.,;:`'\"*# "
_IN_BRACKETS = re.compile(r"\[([^\[\]]{1,100})\]")
_ID = re.compile(
    r"(?:(?:memory|id)\s*)?[\[(#<\"'`*\s]*(?P<letter>m?)0*(?P<digits>\d{1,18})[\])>\"'`*\s.,;:]*",
    re.IGNORECASE,
)
#: A line as a prompt shows it, with the text behind the id.
_LINE = re.compile(
    r"\[(?P<letter>m)0*(?P<digits>\d{1,18})\]\s|(?P<bare>m)0*(?P<number>\d{1,18}):\s", re.IGNORECASE
)


def id_as_said(value: object) -> str:
    """The id that a reply gives for a memory, as one line; nothing for what is none. Never raises.

    One id in a list, and a whole number as a float, are understood too.
    """
    if isinstance(value, list) and len(value) == 1:
        value = value[0]
    if isinstance(value, float) and 0 <= value < 2**53 and value.is_integer():
        value = int(value)
    if isinstance(value, str):
        return one_line(value)
    number = whole_number(value)
    return "" if number is None else str(number)


def shown_id(said: str, shown: Collection[str]) -> str | None:
    """Which of the ids that were shown a reply means: the one it says, else `m3` for `[M3]`, `3.` or `m3: text`."""
    in_brackets = _IN_BRACKETS.match(said)
    for name in (said, said.strip(_AROUND), in_brackets[1] if in_brackets else ""):
        if name and name in shown:
            return name
    found = _ID.fullmatch(said) if len(said) < 100 else None
    if found is None:
        line = _LINE.match(said)
        digits, letter = (line["digits"] or line["number"], "m") if line else ("", "")
    else:
        digits, letter = found["digits"], found["letter"]
    if not digits:
        return None
    names = [f"m{int(digits)}"] if letter else [str(int(digits)), f"m{int(digits)}"]
    return next((name for name in names if name in shown), None)


def whole_number(value: object) -> int | None:
    """A number of a list as a reply gives it: 3, "3", "[3]" or "3."; None for all that is none. Never raises."""
    if isinstance(value, bool):
        return None
    if isinstance(value, int):
        return value if 0 <= value < 10**_DIGITS else None
    if isinstance(value, str) and len(value) < 100 and (found := _ID.fullmatch(value.strip())):
        return None if found["letter"] or not found["digits"].isascii() else int(found["digits"])
    return None
