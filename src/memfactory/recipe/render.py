"""Writing a resolved recipe as YAML that composes again, optionally saying where each value came from."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

import yaml

from memfactory.recipe.values import join

_INTERPOLATION = re.compile(r"(\\*)\$\{")


class Interpolation(str):
    """A text that is written as it is, so that it is filled in when the recipe is composed again."""


class _Dumper(yaml.SafeDumper):
    """SafeDumper that keeps long texts readable and text that looks like a number quoted."""


def _represent_text(dumper: yaml.SafeDumper, text: str) -> yaml.Node:
    escaped = _INTERPOLATION.sub(lambda match: match[1] * 2 + r"\${", text)
    style = "|" if "\n" in escaped else None
    if _looks_like_number(escaped):
        # YAML 1.1 takes 1e-3 for text, OmegaConf for a number.
        style = "'"
    return dumper.represent_scalar("tag:yaml.org,2002:str", escaped, style=style)


def _represent_interpolation(dumper: yaml.SafeDumper, text: str) -> yaml.Node:
    return dumper.represent_scalar("tag:yaml.org,2002:str", str(text), style="|" if "\n" in text else "'")


_Dumper.add_representer(str, _represent_text)
_Dumper.add_representer(Interpolation, _represent_interpolation)


def to_yaml(values: Mapping[str, Any], origin: Callable[[str], str] | None = None) -> str:
    """The mapping as YAML. `origin` gives the text after `# from` for each dotted key of a leaf."""
    lines: list[str] = []
    _write(values, "", "", origin, lines)
    return "\n".join(lines) + "\n"


def _write(
    values: Mapping[str, Any], key: str, indent: str, origin: Callable[[str], str] | None, lines: list[str]
) -> None:
    for name, value in values.items():
        where = join(key, name)
        if isinstance(value, Mapping) and value:
            lines.append(f"{indent}{_dump(name)[0]}:")
            _write(value, where, indent + "  ", origin, lines)
            continue
        first, *rest = _dump({name: value}) if isinstance(value, str) else _dump_leaf(name, value)
        comment = f"  # from {origin(where)}" if origin is not None else ""
        lines.append(f"{indent}{first}{comment}")
        lines.extend(f"{indent}{line}" if line else "" for line in rest)


def _dump_leaf(name: str, value: Any) -> list[str]:
    return [f"{_dump(name)[0]}: {_dump(value, flow=True)[0]}"]


def _dump(value: Any, flow: bool = False) -> list[str]:
    text = yaml.dump(
        value, Dumper=_Dumper, allow_unicode=True, width=2**31, default_flow_style=flow, sort_keys=False
    )
    return text.removesuffix("\n...\n").removesuffix("\n").split("\n")


def _looks_like_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True
