"""A hash of the source that makes a rollout: a changed agent must not be given old replies."""

from __future__ import annotations

import ast
import hashlib
from collections.abc import Iterable, Iterator
from functools import cache
from pathlib import Path

import memfactory

_NAME = "memfactory"
#: Packages whose code makes a rollout and its rewards. All that they import of the program counts as well.
_PACKAGES = (
    "agents",
    "environments",
    "memory",
    "metrics",
    "models",
    "modules",
    "rewards",
    "rollouts",
    "samplers",
)
#: Modules that put these together, seed them, and say what is kept. They count alone: what else they import is for
#: training, or for figures that are computed anew from what is kept.
_ALONE = ("commands/graph.py", "recipe/build.py", "evaluation/predictions.py", "evaluation/runner.py")


@cache
def code_hash() -> str:
    """16 hex digits of the source that decides what rollouts come to."""
    return hash_of(Path(memfactory.__file__).parent)


def hash_of(root: Path) -> str:
    """`code_hash` of the program in the folder `root`, the package `memfactory`."""
    files = deciding_files(root)
    text = "\n".join(f"{file.relative_to(root)} {file_hash(file)}" for file in files)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def deciding_files(root: Path) -> list[Path]:
    """The source files that decide what rollouts come to, sorted.

    They are those of the packages that make rollouts, whatever these import of the program, at the top of a file or
    inside a function, and the few modules that put them together.
    """
    reached = _closure(root, (file for package in _PACKAGES for file in (root / package).rglob("*.py")))
    return sorted(reached | {root / name for name in _ALONE})


def file_hash(path: Path) -> str:
    """16 hex digits of a file's bytes."""
    return hashlib.sha256(path.read_bytes()).hexdigest()[:16]


def _closure(root: Path, files: Iterable[Path]) -> set[Path]:
    """The files, and what they import of the program, over any number of steps."""
    reached: set[Path] = set()
    waiting = list(files)
    while waiting:
        file = waiting.pop()
        if file not in reached:
            reached.add(file)
            waiting.extend(_imported(root, file))
    return reached


def _imported(root: Path, file: Path) -> Iterator[Path]:
    """The files of the program that a file imports; `from package import name` may mean a module of that name."""
    for node in ast.walk(ast.parse(file.read_bytes())):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module and node.level == 0:
            names = [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
        else:
            continue
        for name in names:
            first, *parts = name.split(".")
            if first == _NAME:
                place = root.joinpath(*parts)
                yield from filter(Path.is_file, (place.with_suffix(".py"), place / "__init__.py"))
