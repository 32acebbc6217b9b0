"""Names for components, so that a recipe can pick one by `type: name`.

A component is a class (or factory) registered under a kind and a name together with a dataclass of
its fields. The recipe layer validates YAML against that dataclass and then calls
`component(**fields, **dependencies)`. Modules that register components must be cheap to import:
torch, vllm and friends are imported inside the methods that need them.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from memfactory.core.errors import BadInput, did_you_mean

KINDS = ("sampler", "learner", "agent", "module", "environment", "data", "reward", "tracker", "embedder")


@dataclass(frozen=True)
class Component:
    """A registered part: how to build it, which fields it takes, what it is, where it comes from."""

    kind: str
    name: str
    build: Callable[..., Any]
    config: type
    summary: str
    source: str = ""


_COMPONENTS: dict[tuple[str, str], Component] = {}


def register(
    kind: str, name: str, *, config: type | None = None, summary: str = "", source: str = ""
) -> Callable[[Any], Any]:
    """Register the decorated class or factory as component `name` of `kind`.

    `config` is the dataclass of its YAML fields; left out when the decorated class is itself that
    dataclass. `summary` defaults to the first line of the docstring; `source` names the paper.
    """
    if kind not in KINDS:
        raise ValueError(f"unknown kind of component: {kind}")

    def decorate(build: Any) -> Any:
        fields = config or build
        if not dataclasses.is_dataclass(fields):
            raise TypeError(f"{kind} '{name}': config must be a dataclass")
        line = summary or (build.__doc__ or "").strip().split("\n")[0]
        key = (kind, name)
        known = _COMPONENTS.get(key)
        if known is not None and known.build.__module__ != build.__module__:
            raise BadInput(
                f"{kind} '{name}' is registered twice: {known.build.__module__} and {build.__module__}"
            )
        _COMPONENTS[key] = Component(kind, name, build, fields, line, source)  # type: ignore[arg-type]
        return build

    return decorate


def component_field(kind: str, default: str) -> Any:
    """A dataclass field that holds another component's spec (`{type: name, ...}`), `default` if left out.

    The recipe layer validates the spec as a component of `kind` and hands the built object to the
    owner's constructor under the field's name.
    """
    return dataclasses.field(default_factory=lambda: {"type": default}, metadata={"component": kind})


def get(kind: str, name: str) -> Component:
    """Return the component; raise `BadInput` naming the nearest known name when there is none."""
    found = _COMPONENTS.get((kind, name))
    if found is None:
        known = names(kind)
        hint = did_you_mean(name, known) or f"; known: {', '.join(known) or 'none'}"
        raise BadInput(f"unknown {kind} '{name}'{hint}")
    return found


def names(kind: str) -> list[str]:
    """All registered names of a kind, sorted."""
    return sorted(name for k, name in _COMPONENTS if k == kind)


def everything() -> Mapping[tuple[str, str], Component]:
    """A snapshot of all registered components."""
    return dict(_COMPONENTS)
