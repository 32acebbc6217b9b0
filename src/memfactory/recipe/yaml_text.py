"""YAML as recipes write it: read within limits of size, depth and count, so that no file hangs or fills the memory.

Beside what PyYAML refuses by itself: aliases that lead into themselves or multiply, tags that would make objects,
one key twice. Numbers are as YAML 1.2 has them: `1e-6` is one; `1:30` and `010` are texts, not 90 and 8. So are dates.
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from yaml.constructor import ConstructorError
from yaml.nodes import MappingNode, ScalarNode

from memfactory.recipe.interpolations import DEEPEST as NESTED
from memfactory.recipe.interpolations import nested_too_deep

#: Bytes of a file, values in it with aliases followed, levels of nesting, digits of a number.
LONGEST, MOST_VALUES, DEEPEST, MOST_DIGITS = 2**20, 20_000, 50, 400

_Base: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_PREFIX = "tag:yaml.org,2002:"
_TAGS = ("!", f"{_PREFIX}str", f"{_PREFIX}map", f"{_PREFIX}seq")
_INT = re.compile(r"[-+]?(?:0|[1-9][0-9]*(?:_[0-9]+)*|0x[0-9a-fA-F]+|0b[01]+)")
_FLOAT = re.compile(
    r"[-+]?(?:[0-9]+(?:_[0-9]+)*\.[0-9_]*(?:[eE][-+]?[0-9]+)?|[0-9]+(?:_[0-9]+)*[eE][-+]?[0-9]+"
    r"|\.[0-9]+(?:_[0-9]+)*(?:[eE][-+]?[0-9]+)?|\.(?:inf|Inf|INF))|\.(?:nan|NaN|NAN)"
)


class _Loader(_Base):  # type: ignore[misc]
    """PyYAML's safe loader with the numbers of YAML 1.2, without dates, and with one value for a key."""

    def construct_mapping(self, node: MappingNode, deep: bool = False) -> Any:
        seen = set()
        for key, _ in node.value:
            if isinstance(key, ScalarNode):
                if (key.tag, key.value) in seen:
                    raise ConstructorError(None, None, f"found duplicate key {key.value}", key.start_mark)
                seen.add((key.tag, key.value))
        return super().construct_mapping(node, deep=deep)

    def construct_yaml_int(self, node: ScalarNode) -> int:
        if len(node.value) > MOST_DIGITS:
            raise ConstructorError(
                None, None, f"a number of {len(node.value)} digits is too large", node.start_mark
            )
        return int(node.value.replace("_", ""), 0)


_replaced = [f"{_PREFIX}{name}" for name in ("timestamp", "int", "float")]
_Loader.yaml_implicit_resolvers = {
    first: [(tag, form) for tag, form in known if tag not in _replaced]
    for first, known in _Base.yaml_implicit_resolvers.items()
}
_Loader.add_implicit_resolver(f"{_PREFIX}int", re.compile(f"(?:{_INT.pattern})\\Z"), list("-+0123456789"))
_Loader.add_implicit_resolver(
    f"{_PREFIX}float", re.compile(f"(?:{_FLOAT.pattern})\\Z"), list("-+0123456789.")
)
_Loader.add_constructor(f"{_PREFIX}int", _Loader.construct_yaml_int)


class NotYaml(Exception):
    """Why a file cannot be read, and at which line if that is known."""

    def __init__(self, problem: str, line: int | None = None) -> None:
        super().__init__(problem)
        self.line = line


def read_bytes(path: Path) -> bytes:
    """The file's content. Raises `NotYaml` for what is no file, cannot be opened, or is no recipe by its size."""
    try:
        kind = os.stat(path)
        if not stat.S_ISREG(kind.st_mode):
            raise NotYaml("is no ordinary file")
        if kind.st_size <= LONGEST:
            with path.open("rb") as file:
                content = file.read(LONGEST + 1)
            if len(content) <= LONGEST:
                return content
    except OSError as error:
        raise NotYaml(f"cannot be read: {error.strerror or error}") from error
    raise NotYaml(
        f"is larger than {LONGEST // 2**20} MiB; a recipe is a page or two, data belong in files of their own"
    )


def parse(content: bytes) -> Any:
    """The value that the YAML stands for, made of mappings, lists, texts, numbers, true, false and null.

    Raises `NotYaml` with the line for what is not YAML, and for what is YAML but no recipe would hold.
    """
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise NotYaml("not UTF-8 text", content.count(b"\n", 0, error.start) + 1) from error
    try:
        _check_events(text)
        return yaml.load(text, Loader=_Loader)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        problem = error.problem or error.context or "cannot be understood"
        raise NotYaml(f"not valid YAML: {problem}", None if mark is None else mark.line + 1) from error
    except yaml.reader.ReaderError as error:
        line = len(re.findall(r"[^\n]*\n", text[: error.position])) + 1
        raise NotYaml(f"not valid YAML: {error.reason}", line) from error
    except yaml.YAMLError as error:
        raise NotYaml(f"not valid YAML: {error}") from error


@dataclass
class _Open:
    """A mapping or list whose end has not come: its anchor, values in it, and levels below it, itself included."""

    anchor: str | None
    values: int = 1
    levels: int = 1


def _check_events(text: str) -> None:
    """Go over the parser's events once, without building anything."""
    finished: dict[str | None, _Open] = {}
    around: list[_Open] = []
    events: Iterator[Any] = yaml.parse(text, Loader=_Base)
    for event in events:
        line = event.start_mark.line + 1
        one = _Open(getattr(event, "anchor", None))
        if isinstance(event, yaml.AliasEvent):
            if any(event.anchor == holder.anchor for holder in around):
                raise NotYaml(f"alias *{event.anchor} leads into itself", line)
            one = finished.get(event.anchor, one)
        elif isinstance(event, yaml.NodeEvent):
            _check_node(event, line)
            if not isinstance(event, yaml.ScalarEvent):
                around.append(one)
                if len(around) > DEEPEST:
                    raise NotYaml(f"nested more than {DEEPEST} levels deep", line)
                continue
            one.levels = 0
        elif isinstance(event, yaml.CollectionEndEvent):
            one = around.pop()
        else:
            continue
        finished[one.anchor] = one
        if around:
            around[-1].values += one.values
            around[-1].levels = max(around[-1].levels, one.levels + 1)
            if around[-1].values > MOST_VALUES:
                raise NotYaml(f"more than {MOST_VALUES:,} values, with aliases followed", line)
            if len(around) - 1 + around[-1].levels > DEEPEST:
                raise NotYaml(f"nested more than {DEEPEST} levels deep, with aliases followed", line)


def _check_node(event: Any, line: int) -> None:
    if event.tag is not None and event.tag not in _TAGS:
        name = event.tag.replace(_PREFIX, "!!")
        raise NotYaml(f"the tag {name} is not for recipes; write plain values", line)
    if isinstance(event, yaml.ScalarEvent) and nested_too_deep(event.value):
        raise NotYaml(f"${{...}} nested more than {NESTED} levels deep", line)
