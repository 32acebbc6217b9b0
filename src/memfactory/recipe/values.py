"""Checking single values, and turning typed values back into plain ones."""

from __future__ import annotations

import dataclasses
import math
import types
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from memfactory.core.bounds import Bounds, Form
from memfactory.core.errors import did_you_mean

#: What stands in YAML where a value must still be given.
MISSING = "???"


class Invalid(Exception):
    """A value that does not fit: the dotted key, and what is wrong with it."""

    def __init__(self, key: str, problem: str) -> None:
        super().__init__(f"{key}: {problem}")
        self.key = key
        self.problem = problem


def plain(value: Any) -> Any:
    """Dataclasses, tuples and paths as the mappings, lists and strings that YAML has."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        result: dict[str, Any] = {}
        for field in dataclasses.fields(value):
            inner = plain(getattr(value, field.name))
            result.update(inner if field.metadata.get("inline") else {field.name: inner})
        return result
    if isinstance(value, Mapping):
        return {key: plain(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [plain(inner) for inner in value]
    return str(value) if isinstance(value, Path) else value


def join(key: str, name: object) -> str:
    """The dotted key of `name` below `key`."""
    return f"{key}.{name}" if key else str(name)


SCALARS = {
    bool: "true or false",
    int: "a whole number",
    float: "a number",
    str: "text",
    Path: "a path",
    types.NoneType: "null",
}


def check_scalar(value: Any, hint: type, key: str) -> Any:
    """A value of one of the types in `SCALARS`; nothing is guessed: `1` is not text, `"1"` not a number."""
    fits: bool
    if hint is bool:
        fits = isinstance(value, bool)
    elif hint is int:
        fits = isinstance(value, int) and not isinstance(value, bool)
    elif hint is float:
        fits = isinstance(value, int | float) and not isinstance(value, bool)
    elif hint is types.NoneType:
        fits = value is None
    else:
        fits = isinstance(value, str)
    if not fits:
        quotes = " (put it in quotes to make it text)" if hint is str and _is_scalar(value) else ""
        raise Invalid(key, f"expected {SCALARS[hint]}, got {show(value)}{quotes}")
    if hint is float and not _is_finite(value):
        raise Invalid(key, f"expected a finite number, got {show(value)}")
    return value if hint in (bool, types.NoneType) else hint(value)


def check_literal(value: Any, options: Sequence[Any], key: str) -> Any:
    """One of the options, of the same type."""
    for option in options:
        if option == value and type(option) is type(value):
            return option
    known = ", ".join(str(option) for option in options)
    hint = nearest(str(value), [str(option) for option in options])
    raise Invalid(key, f"expected one of {known}, got {show(value)}{hint}")


def check_declared(value: Any, declared: Bounds | Form, key: str) -> None:
    """Refuse a number outside its bounds, and a text without its form."""
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if isinstance(declared, Bounds):
        problem = declared.problem(value) if number else None
    else:
        problem = declared.problem(value) if isinstance(value, str) else None
    if problem is not None:
        raise Invalid(key, f"{problem}, got {show(value)}")


def check_any(value: Any, key: str) -> Any:
    """Refuse numbers that are none, however deep in a value of any type."""
    if isinstance(value, float) and not math.isfinite(value):
        raise Invalid(key, f"expected a finite number, got {show(value)}")
    if isinstance(value, Mapping):
        for name, inner in value.items():
            check_any(inner, join(key, name))
    elif isinstance(value, list | tuple):
        for number, inner in enumerate(value):
            check_any(inner, f"{key}[{number}]")
    return value


def nearest(word: str, known: Sequence[str]) -> str:
    """Like `did_you_mean`, but what the word begins, such as ppo_clip for ppo, comes first."""
    begun = [name for name in known if word and name.startswith(word)]
    return did_you_mean(begun[0], begun) if begun else did_you_mean(word, known)


def _is_finite(value: int | float) -> bool:
    try:
        return math.isfinite(float(value))
    except OverflowError:
        return False


def _is_scalar(value: Any) -> bool:
    return isinstance(value, bool | int | float)


def show(value: Any) -> str:
    """A value as it appears in a message: short, and as YAML calls it."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, Mapping):
        return "a mapping"
    if isinstance(value, int) and value.bit_length() > 200:
        return f"a number of {value.bit_length()} bits"
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."
