"""Which layer each value of a recipe came from, by the dotted keys of leaves."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from memfactory.recipe.values import join

COMMAND_LINE = "command line"
DEFAULT = "default"


def origin_of(origins: Mapping[str, str], key: str) -> str:
    """Where the value of a dotted key came from: a file, `command line`, or `default`."""
    key = key.split("[")[0]
    if key in origins:
        return origins[key]
    below = [origin for leaf, origin in origins.items() if leaf.startswith(key + ".")]
    return below[-1] if below else DEFAULT


def nearest_origin(origins: Mapping[str, str], key: str) -> str:
    """The layer to look into when a key is wrong or missing: its own, else that of what is around it."""
    found = origin_of(origins, key)
    while found == DEFAULT and "." in key:
        key = key.rpartition(".")[0]
        found = origins.get(key) or next((o for k, o in origins.items() if k.startswith(key + ".")), DEFAULT)
    return found


def leaves(values: Mapping[Any, Any], prefix: str) -> Iterator[str]:
    """Dotted keys of all values below a mapping that are not mappings with content."""
    for name, value in values.items():
        key = join(prefix, name)
        if isinstance(value, Mapping) and value:
            yield from leaves(value, key)
        else:
            yield key


def set_origin(origins: dict[str, str], key: str, origin: str) -> None:
    """Record a leaf; what was above it as a leaf, or below it, is gone."""
    for other in [o for o in origins if o.startswith(key + ".") or key.startswith(o + ".")]:
        del origins[other]
    origins[key] = origin
