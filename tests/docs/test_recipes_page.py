"""The table of keys in docs/recipes.md names every key of a recipe with its type and default, and no other."""

from __future__ import annotations

import dataclasses
import json
import types
import typing
from collections.abc import Iterator, Mapping
from typing import Annotated, Any, Literal

import yaml

from memfactory.recipe.schema import RecipeSchema
from memfactory.recipe.values import plain
from tests.docs.pages import ROOT

_NAMES = {int: "whole number", float: "number", str: "text", bool: "true, false", type(None): "null"}


def schema_rows() -> list[tuple[str, str, str]]:
    """Key, type and default of every key of the schema, as the page's table writes them."""
    return list(_rows(RecipeSchema, ""))


def _rows(cls: Any, prefix: str, values: Any = None) -> Iterator[tuple[str, str, str]]:
    """Rows of a dataclass; `values` is the instance that stands there by default, if there is one."""
    hints = typing.get_type_hints(cls, include_extras=True)
    for field in dataclasses.fields(cls):
        key, hint = f"{prefix}{field.name}", hints[field.name]
        kind = field.metadata.get("component")
        if field.metadata.get("inline"):
            yield f"{prefix}type", f"name of a {kind}", "needed"
        elif field.metadata.get("each"):
            yield f"{key}.<name>", f"{kind} component", "none"
        elif kind:
            default = _default(field)
            yield key, f"{kind} component", default["type"] if default else "null"
        elif dataclasses.is_dataclass(hint):
            default = _default(field)
            yield from _rows(hint, f"{key}.", None if default is dataclasses.MISSING else default)
        elif typing.get_origin(hint) is dict and dataclasses.is_dataclass(typing.get_args(hint)[1]):
            yield from _rows(typing.get_args(hint)[1], f"{key}.<name>.")
        else:
            yield key, _kind(hint), _show(_default(field) if values is None else getattr(values, field.name))


def _default(field: dataclasses.Field[Any]) -> Any:
    if field.default is not dataclasses.MISSING:
        return field.default
    return (
        field.default_factory() if field.default_factory is not dataclasses.MISSING else dataclasses.MISSING
    )


def _show(value: Any) -> str:
    if value is dataclasses.MISSING:
        return "needed"
    return value if isinstance(value, str) else json.dumps(plain(value))


def _kind(hint: Any) -> str:
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin is Annotated:
        return _kind(arguments[0])
    if origin is Literal:
        return ", ".join(map(str, arguments))
    if origin in (typing.Union, types.UnionType):
        return " or ".join(map(_kind, arguments))
    container = origin or hint
    if container in (tuple, list):
        return "list"
    if isinstance(container, type) and issubclass(container, Mapping | dict):
        return "mapping"
    return _NAMES[hint]


def test_the_table_of_keys_is_the_schema() -> None:
    rows = []
    for line in (ROOT / "docs" / "recipes.md").read_text(encoding="utf-8").splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if line.startswith("| `") and len(cells) == 4:
            rows.append((cells[0].strip("`"), cells[1], cells[2].strip("`")))
            assert cells[3], f"{cells[0]} is not explained"
    # `name` and `output_dir` are filled in before the schema sees them.
    expected = [
        (key, kind, {"name": "the file's name", "output_dir": "runs/<name>"}.get(key, default))
        for key, kind, default in schema_rows()
    ]
    assert rows == expected


def test_the_lengths_on_the_memagent_page_are_those_of_the_configs() -> None:
    page = (ROOT / "docs" / "memagent.md").read_text(encoding="utf-8")
    folder = ROOT / "configs" / "agent"
    files = ["memagent", "memagent/qwen3_1.7b", "memagent/smollm2", "memagent/tiny"]
    layers = [yaml.safe_load((folder / f"{name}.yaml").read_text(encoding="utf-8")) for name in files]
    assert layers[1] == yaml.safe_load((folder / "memagent/qwen3_4b.yaml").read_text(encoding="utf-8"))
    for key in ("block_tokens", "memory_tokens", "answer_tokens"):
        assert f"| `agent.{key}` | " + " | ".join(str(layer[key]) for layer in layers) + " |" in page
