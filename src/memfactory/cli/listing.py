"""`memfactory recipes`, `components` and `env`: what there is."""

from __future__ import annotations

import dataclasses
from typing import Annotated, Any

import typer

from memfactory.core.errors import BadInput, did_you_mean


def recipes() -> None:
    """List the recipes that ship, one a line."""
    from memfactory import assets

    names = assets.recipe_names()
    width = max(map(len, names), default=0)
    for name in names:
        first = (assets.recipes() / f"{name}.yaml").read_text(encoding="utf-8").split("\n", 1)[0]
        typer.echo(f"{name:<{width}}  {first.removeprefix('#').strip()}")


def components(
    kind: Annotated[str | None, typer.Argument(help="Only this kind, e.g. reward.")] = None,
    name: Annotated[str | None, typer.Argument(help="One component: show its fields.")] = None,
) -> None:
    """List the components a recipe can name, one a line, or the fields of one."""
    from memfactory.core import registry
    from memfactory.recipe.components import load_components

    load_components()
    if kind is not None and kind not in registry.KINDS:
        hint = did_you_mean(kind, registry.KINDS) or f"; kinds: {', '.join(registry.KINDS)}"
        raise BadInput(f"unknown kind of component '{kind}'{hint}")
    if kind is not None and name is not None:
        _describe(registry.get(kind, name))
        return
    found = [part for part in registry.everything().values() if kind in (None, part.kind)]
    found.sort(key=lambda part: (registry.KINDS.index(part.kind), part.name))
    width = max((len(part.name) for part in found), default=0)
    for part in found:
        source = f"  [{part.source}]" if part.source else ""
        typer.echo(f"{part.kind:<11}  {part.name:<{width}}  {part.summary}{source}")


def env() -> None:
    """Print versions and devices, for bug reports."""
    from memfactory.cli.environment import report

    for name, value in report():
        typer.echo(f"{name:<14}  {value}")


def _describe(part: Any) -> None:
    typer.echo(f"{part.kind} {part.name}: {part.summary}")
    for field in dataclasses.fields(part.config):
        if field.default is not dataclasses.MISSING:
            value = repr(field.default)
        elif field.default_factory is not dataclasses.MISSING:
            value = repr(field.default_factory())
        else:
            value = "(required)"
        kind = field.type if isinstance(field.type, str) else getattr(field.type, "__name__", str(field.type))
        typer.echo(f"  {field.name}: {kind} = {value}")
    lines = (part.config.__doc__ or "").strip().splitlines()
    for line in lines:
        typer.echo(f"  {line.strip()}".rstrip())
