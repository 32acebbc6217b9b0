"""Limits on `${...}`: how deep they may stand in each other, and how long a value becomes when they are filled in."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

#: Levels of `${${...}}`: the grammar's time doubles with each. Characters of a recipe with all of them filled in.
DEEPEST, LONGEST = 6, 2**19

_MARKS = re.compile(r"\\*\$\{|\}")
_REFERENCE = re.compile(r"\$\{\s*(\.*)([\w./@-]+(?:\[[^\]{}]*\][\w.]*)*)\s*\}")


def nested_too_deep(text: str) -> bool:
    """Whether interpolations stand in each other more than `DEEPEST` levels deep."""
    depth = 0
    for mark in _MARKS.finditer(text):
        depth = max(0, depth - 1) if mark[0] == "}" else depth + 1
        if depth > DEEPEST:
            return True
    return False


def find_nested(value: Any) -> bool:
    """The same for all texts in a value of mappings and lists."""
    if isinstance(value, Mapping):
        return any(find_nested(key) or find_nested(inner) for key, inner in value.items())
    if isinstance(value, list):
        return any(find_nested(inner) for inner in value)
    return isinstance(value, str) and nested_too_deep(value)


def grows_too_long(values: Mapping[Any, Any]) -> str | None:
    """The dotted key of a value that would be longer than `LONGEST` with its references filled in; None if none is.

    A reference in circles counts as nothing: whoever fills it in says what is wrong with it.
    """
    sizes: dict[str, int] = {}

    def size(value: Any, key: str) -> int:
        if key in sizes:
            return sizes[key]
        sizes[key] = 0  # while it is counted
        if isinstance(value, Mapping):
            found = sum(size(inner, f"{key}.{name}" if key else str(name)) for name, inner in value.items())
        elif isinstance(value, list):
            found = sum(size(inner, f"{key}.{number}") for number, inner in enumerate(value))
        else:
            found = 1
            if isinstance(value, str):
                found += len(value) + sum(referred(key, *pair) for pair in _REFERENCE.findall(value))
        sizes[key] = min(found, LONGEST + 1)
        return sizes[key]

    def referred(key: str, dots: str, name: str) -> int:
        parts = [part for part in re.split(r"[.\[\]]+", name) if part]
        base = key.split(".")[: -len(dots)] if dots else []
        place: Any = values
        for part in [*base, *parts]:
            if isinstance(place, Mapping):
                place = place.get(part)
            elif isinstance(place, list) and part.isdigit() and int(part) < len(place):
                place = place[int(part)]
            else:
                return 0
        return size(place, ".".join([*base, *parts]))

    try:
        size(values, "")
    except RecursionError:
        return max(sizes, key=len)
    return max((key for key, found in sizes.items() if found > LONGEST), key=len, default=None)
