"""Reading what the command line changes: `key=value`, `group=option`, `+key=value`, `~key`."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from memfactory.core.errors import BadInput, did_you_mean
from memfactory.recipe.interpolations import DEEPEST, find_nested

_FORM = re.compile(r"(?P<sign>\+\+|\+|~)?(?P<key>[^=\s~+]+?)(?P<rest>=.*)?", re.DOTALL)


@dataclass(frozen=True)
class SetValue:
    """Give one key a value."""

    key: str
    value: Any


@dataclass(frozen=True)
class ChooseOption:
    """Pick an option of a config group."""

    group: str
    option: str


@dataclass(frozen=True)
class Delete:
    """Leave a key, or a whole group, out."""

    key: str


Override = SetValue | ChooseOption | Delete


def parse_overrides(arguments: Iterable[str], groups: Mapping[str, Iterable[str]]) -> list[Override]:
    """Read the arguments; `groups` maps the config groups there are to their options.

    `+` and `++` are accepted for those used to Hydra; every key of a recipe can be set without.
    Raises `BadInput` for an argument that has none of the forms, and for an unknown option.
    """
    return [_parse(argument, groups) for argument in arguments]


def _parse(argument: str, groups: Mapping[str, Iterable[str]]) -> Override:
    if not argument.isprintable() and any("\ud800" <= letter <= "\udfff" for letter in argument):
        raise BadInput(f"command line: {ascii(argument)[:80]} is not UTF-8 text")
    match = _FORM.fullmatch(argument)
    if match is None or not (match["rest"] or match["sign"] == "~"):
        raise BadInput(f"command line: '{argument}' is neither key=value nor group=option nor ~key")
    key = match["key"]
    if "" in key.split("."):
        raise BadInput(f"command line: '{key}' is not a dotted key")
    if match["sign"] == "~":
        return Delete(key)
    value = parse_value(match["rest"][1:])
    if find_nested(value) or find_nested(key):
        raise BadInput(f"command line: {key[:60]}: ${{...}} nested more than {DEEPEST} levels deep")
    if key in groups and not isinstance(value, Mapping):
        if value is None:
            return Delete(key)
        options = sorted(groups[key])
        if not isinstance(value, str) or value not in options:
            hint = did_you_mean(str(value), options) or f"; options: {', '.join(options)}"
            raise BadInput(f"command line: {argument}: group '{key}' has no option '{value}'{hint}")
        return ChooseOption(key, value)
    return SetValue(key, value)


def parse_value(text: str) -> Any:
    """The value that a text stands for in Hydra's grammar (numbers, lists, mappings, quoted text, ...).

    A text outside the grammar, such as a sentence with brackets, stands for itself.
    """
    from hydra.core.override_parser.overrides_parser import OverridesParser
    from hydra.errors import HydraException

    try:
        parsed = OverridesParser.create().parse_override(f"key={text}")
        if parsed.is_sweep_override():
            return text
        return _plain(parsed.value())
    except (HydraException, ValueError, TypeError, RecursionError):
        return text


def _plain(value: Any) -> Any:
    """Without the grammar's own text and key classes."""
    if isinstance(value, Mapping):
        return {str(key): _plain(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [_plain(inner) for inner in value]
    if value is None or isinstance(value, bool | int | float):
        return value
    return str(value)
