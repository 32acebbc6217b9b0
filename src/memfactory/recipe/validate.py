"""Checking plain YAML values against dataclasses, and making those dataclasses of them."""

from __future__ import annotations

import dataclasses
import types
import typing
from collections.abc import Callable, Mapping, Sequence
from typing import Annotated, Any, Literal, Union

from memfactory.core import registry
from memfactory.core.bounds import Bounds, Form
from memfactory.core.errors import BadInput, did_you_mean
from memfactory.recipe.values import (
    MISSING,
    SCALARS,
    Invalid,
    check_any,
    check_declared,
    check_literal,
    check_scalar,
    join,
    nearest,
    plain,
    show,
)


class Validator:
    """Turns plain values into what the type hints ask for. Raises `Invalid` at the first that does not fit.

    Values `???` are refused, except below keys for which `may_be_missing` says so: those stay `???`.
    """

    def __init__(self, may_be_missing: Callable[[str], bool] = lambda key: False) -> None:
        self._may_be_missing = may_be_missing

    def value(self, value: Any, hint: Any, key: str) -> Any:
        """`value` as an instance of `hint`; `key` is its dotted name, for errors."""
        if isinstance(value, str) and value == MISSING:
            return self._missing(key)
        origin = typing.get_origin(hint)
        if origin is Annotated:
            base, *extras = typing.get_args(hint)
            found = self.value(value, base, key)
            for extra in extras:
                if isinstance(extra, Bounds | Form):
                    check_declared(found, extra, key)
            return found
        if origin in (Union, types.UnionType):
            return self._union(value, typing.get_args(hint), key)
        if origin is Literal:
            return check_literal(value, typing.get_args(hint), key)
        if hint is Any or hint is object:
            return check_any(value, key)
        if dataclasses.is_dataclass(hint):
            return self.dataclass(value, typing.cast(type, hint), key)
        if hint in SCALARS:
            return check_scalar(value, hint, key)
        container = origin or hint
        if isinstance(container, type) and issubclass(container, Mapping):
            return self._mapping(value, typing.get_args(hint), key)
        if isinstance(container, type) and issubclass(container, Sequence | set | frozenset):
            return self._sequence(value, container, typing.get_args(hint), key)
        return value

    def dataclass(self, value: Any, cls: type, key: str) -> Any:
        """A mapping as an instance of the dataclass."""
        fields = self.fields(value, cls, key)
        return _construct(cls, fields, key)

    def fields(self, value: Any, cls: type, key: str) -> dict[str, Any]:
        """All fields of the dataclass, from the mapping or by default, checked one by one."""
        if not isinstance(value, Mapping):
            raise Invalid(key, f"expected a mapping of keys, got {show(value)}")
        hints = typing.get_type_hints(cls, include_extras=True)
        declared = {field.name: field for field in dataclasses.fields(cls) if field.init}
        inline = next((f for f in declared.values() if f.metadata.get("inline")), None)
        known = [name for name, field in declared.items() if field is not inline]
        given = {name: value[name] for name in value if name in known}
        rest = {name: value[name] for name in value if name not in known}
        if inline is None:
            for name in rest:
                raise Invalid(join(key, name), f"unknown key{_suggest(name, known)}")
        found: dict[str, Any] = {}
        for name, field in declared.items():
            where = join(key, name)
            if field is inline:
                found[name] = self.component(rest, field.metadata["component"], key, extra=known)
            elif name in given:
                found[name] = self._field(given[name], field, hints[name], where)
            elif _has_default(field):
                found[name] = self._default(field, where)
            else:
                found[name] = self._missing(where)
        return found

    def component(
        self, value: Any, kind: str, key: str, default: str | None = None, extra: Sequence[str] = ()
    ) -> dict[str, Any]:
        """A component's spec with all its fields filled in; `extra` keys are only named in suggestions."""
        if not isinstance(value, Mapping):
            raise Invalid(key, f"expected a mapping with a 'type', got {show(value)}")
        name = value.get("type", default)
        if name is None and "type" not in value:
            wrong = next((k for k in value if did_you_mean(str(k), ["type"])), None)
            hint = f" (is '{wrong}' a misspelt 'type'?)" if wrong is not None else ""
            kinds = ", ".join(registry.names(kind))
            raise Invalid(join(key, "type"), f"missing; which {kind} should it be? known: {kinds}{hint}")
        if not isinstance(name, str):
            raise Invalid(join(key, "type"), f"expected the name of a {kind}, got {show(name)}")
        if name == MISSING:
            self._missing(join(key, "type"))
            return dict(value)
        try:
            component = registry.get(kind, name)
        except BadInput as error:
            raise Invalid(join(key, "type"), str(error)) from None
        given = {k: v for k, v in value.items() if k != "type"}
        known = [field.name for field in dataclasses.fields(component.config) if field.init]
        for unknown in (k for k in given if k not in known):
            hint = _suggest(unknown, [*known, *extra, "type"])
            problem = f"unknown key for {kind} '{name}'{hint}"
            owner = next(
                (other for other in registry.names(kind) if unknown in _fields_of(kind, other)), None
            )
            if owner is not None:
                problem = (
                    f"{kind} '{name}' has no such key, '{owner}' has; if it is left over from a lower layer, "
                    f"leave that block out first: ~{key}"
                )
            raise Invalid(join(key, unknown), problem)
        fields = self.fields(given, component.config, key)
        _construct(component.config, fields, key)
        return {"type": name, **fields}

    def _field(self, value: Any, field: dataclasses.Field[Any], hint: Any, key: str) -> Any:
        kind = field.metadata.get("component")
        if kind is None:
            default = _default_value(field)
            if dataclasses.is_dataclass(default) and isinstance(value, Mapping):
                value = {**plain(default), **value}  # a block's own defaults, not those of its class
            return self.value(value, hint, key)
        if field.metadata.get("each"):
            if not isinstance(value, Mapping):
                raise Invalid(key, f"expected a mapping of names, got {show(value)}")
            return {_name(k, key): self.component(v, kind, join(key, k)) for k, v in value.items()}
        default = _default_value(field)
        if value is None and default is None:
            return None
        return self.component(value, kind, key, default=default["type"] if default else None)

    def _default(self, field: dataclasses.Field[Any], key: str) -> Any:
        default = _default_value(field)
        if field.metadata.get("component") and not field.metadata.get("each") and default is not None:
            return self.component(default, field.metadata["component"], key)
        return default

    def _missing(self, key: str) -> str:
        if not self._may_be_missing(key):
            raise Invalid(key, f"a value is needed; set it in the recipe or on the command line: {key}=...")
        return MISSING

    def _union(self, value: Any, members: Sequence[Any], key: str) -> Any:
        if value is None and types.NoneType in members:
            return None
        members = [member for member in members if member is not types.NoneType]
        if len(members) == 1:
            return self.value(value, members[0], key)
        problems = []
        for member in members:
            try:
                return self.value(value, member, key)
            except Invalid as error:
                if error.key != key:
                    raise
                problems.append(error.problem.split(", got ")[0].removeprefix("expected "))
        raise Invalid(key, f"expected {' or '.join(problems)}, got {show(value)}")

    def _mapping(self, value: Any, arguments: Sequence[Any], key: str) -> dict[str, Any]:
        if not isinstance(value, Mapping):
            raise Invalid(key, f"expected a mapping of keys, got {show(value)}")
        hint = arguments[1] if len(arguments) == 2 else Any
        return {_name(k, key): self.value(v, hint, join(key, k)) for k, v in value.items()}

    def _sequence(self, value: Any, container: type, arguments: Sequence[Any], key: str) -> Any:
        if isinstance(value, str) or not isinstance(value, Sequence):
            raise Invalid(key, f"expected a list, got {show(value)}")
        fixed = container is tuple and arguments and arguments[-1] is not Ellipsis
        if fixed and len(value) != len(arguments):
            raise Invalid(key, f"expected a list of {len(arguments)}, got {show(value)}")
        hints = list(arguments) if fixed else [arguments[0] if arguments else Any] * len(value)
        items = [
            self.value(item, hint, f"{key}[{number}]")
            for number, (item, hint) in enumerate(zip(value, hints, strict=True))
        ]
        return tuple(items) if container is tuple else items


def _construct(cls: type, fields: Mapping[str, Any], key: str) -> Any:
    """Make the dataclass; a `ValueError` of its own checks is laid at the field that it names first."""
    if MISSING in [value for value in fields.values() if isinstance(value, str)]:
        return None
    try:
        return cls(**fields)
    except ValueError as error:
        words = str(error).replace(":", " ").replace("'", " ").split()
        named = next((word for word in words if word in fields), None)
        raise Invalid(join(key, named) if named else key, str(error)) from None


def _fields_of(kind: str, name: str) -> list[str]:
    return [field.name for field in dataclasses.fields(registry.get(kind, name).config) if field.init]


def _has_default(field: dataclasses.Field[Any]) -> bool:
    return field.default is not dataclasses.MISSING or field.default_factory is not dataclasses.MISSING


def _default_value(field: dataclasses.Field[Any]) -> Any:
    if field.default is not dataclasses.MISSING:
        return field.default
    return field.default_factory() if field.default_factory is not dataclasses.MISSING else None


def _suggest(name: object, known: Sequence[str]) -> str:
    return nearest(str(name), known) or f"; known: {', '.join(known) or 'none'}"


def _name(key: Any, where: str) -> str:
    if not isinstance(key, str):
        raise Invalid(join(where, key), "names must be text; put this one in quotes")
    return key
