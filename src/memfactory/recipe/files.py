"""The YAML files that recipes are made of: finding them, reading them, and what to call them in messages."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from memfactory import assets
from memfactory.core.errors import BadInput, did_you_mean
from memfactory.recipe.yaml_text import NotYaml, parse, read_bytes

#: What the names of YAML files end in; the first goes before the other.
ENDINGS = (".yaml", ".yml")


def find_recipe(name: str) -> Path:
    """The recipe file of that path or shipped name. Raises `BadInput` with the nearest name."""
    try:
        path = Path(name).expanduser()
        is_file, is_folder = path.is_file(), path.is_dir()
        beside = [str(near) for near in path.parent.glob("*.y*ml")]
    except (OSError, RuntimeError, ValueError) as error:  # no such user, too long a name, a zero byte
        raise BadInput(f"recipe {name[:80]!r} is no file: {one_line(error)[:80]}") from error
    if is_file and path.suffix in ENDINGS:
        return path.resolve()
    stem = name.removeprefix("recipes/").removesuffix(".yaml")
    shipped = assets.recipe_names()
    if stem in shipped:
        return assets.recipes() / f"{stem}.yaml"
    if is_file:
        raise BadInput(f"recipe '{name}': a recipe's file name must end in .yaml or .yml")
    unnamed = config_file(path) if name and not is_folder else None
    if unnamed is not None:
        return unnamed.resolve()
    if not is_folder and path.exists():
        raise BadInput(f"recipe '{name}' is no ordinary file")
    known = [known for known in (*shipped, *beside) if known != name]
    problem = "is a folder" if is_folder else "is neither a file nor the name of a recipe that ships"
    raise BadInput(f"recipe '{name}' {problem}{did_you_mean(stem, known) or '; see: memfactory recipes'}")


def config_file(path: Path) -> Path | None:
    """The YAML file of that path with or without its ending; None if there is none."""
    named = [path] if path.suffix in ENDINGS else []
    try:
        return next((p for p in [*named, *(Path(f"{path}{end}") for end in ENDINGS)] if p.is_file()), None)
    except OSError:
        return None


def config_folders(recipe: Path) -> list[Path]:
    """Where config groups are looked for: beside the user's recipe first, then those that ship."""
    beside = [recipe.parent / "configs"]
    if recipe.parent.name == "recipes":
        beside.append(recipe.parent.parent / "configs")
    folders = [folder.resolve() for folder in [*beside, assets.configs()] if folder.is_dir()]
    return list(dict.fromkeys(folders))


def config_groups(folders: Iterable[Path]) -> dict[str, set[str]]:
    """The config groups below the folders, and the options of each."""
    groups: dict[str, set[str]] = {}
    for folder in folders:
        for path in (path for ending in ENDINGS for path in folder.rglob(f"*{ending}")):
            group = path.parent.relative_to(folder).as_posix()
            if group != ".":
                groups.setdefault(group, set()).add(path.stem)
    return groups


def read_yaml(path: Path) -> dict[str, Any]:
    """One YAML file as plain values, interpolations untouched. Raises `BadInput` naming file and line."""
    try:
        content = parse(read_bytes(path))
    except NotYaml as error:
        line = "" if error.line is None else f":{error.line}"
        raise BadInput(f"{display(path)}{line}: {one_line(error)}") from error
    if content is None:
        return {}
    if not isinstance(content, dict):
        kind = "a list" if isinstance(content, list) else f"the single value {str(content)[:40]!r}"
        raise BadInput(f"{display(path)}: expected a mapping of keys, got {kind}")
    return {str(key): value for key, value in content.items()}


def display(path: Path) -> str:
    """How a file is called in messages: short where it ships or lies below the working folder."""
    for folder in (Path.cwd(), assets.root()):
        if path.is_relative_to(folder):
            return path.relative_to(folder).as_posix()
    return str(path)


def one_line(error: BaseException) -> str:
    """What an error says, without line breaks."""
    return " ".join(str(error).split()) or type(error).__name__
