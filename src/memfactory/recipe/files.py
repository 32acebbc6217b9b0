"""The YAML files that recipes are made of: finding them, reading them, and what to call them in messages."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from memfactory import assets
from memfactory.core.errors import BadInput, did_you_mean


def find_recipe(name: str) -> Path:
    """The recipe file of that path or shipped name. Raises `BadInput` with the nearest name."""
    path = Path(name).expanduser()
    if path.is_file() and path.suffix == ".yaml":
        return path.resolve()
    stem = name.removeprefix("recipes/").removesuffix(".yaml")
    shipped = assets.recipe_names()
    if stem in shipped:
        return assets.recipes() / f"{stem}.yaml"
    if path.is_file():
        raise BadInput(f"recipe '{name}': a recipe's file name must end in .yaml")
    known = [*shipped, *(str(near) for near in path.parent.glob("*.yaml"))]
    problem = "is a folder" if path.is_dir() else "is neither a file nor the name of a recipe that ships"
    raise BadInput(f"recipe '{name}' {problem}{did_you_mean(stem, known) or '; see: memfactory recipes'}")


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
        for path in folder.rglob("*.yaml"):
            group = path.parent.relative_to(folder).as_posix()
            if group != ".":
                groups.setdefault(group, set()).add(path.stem)
    return groups


def read_yaml(path: Path) -> dict[str, Any]:
    """One YAML file as plain values, interpolations untouched. Raises `BadInput` naming file and line."""
    import yaml
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    try:
        content = OmegaConf.load(path)
    except (yaml.YAMLError, UnicodeDecodeError, OmegaConfBaseException, OSError) as error:
        raise unreadable(path, error) from error
    if not OmegaConf.is_dict(content):
        raise BadInput(f"{display(path)}: a recipe is a mapping of keys, not {type(content).__name__}")
    found = OmegaConf.to_container(content, resolve=False)
    return {str(key): value for key, value in found.items()}  # type: ignore[union-attr]


def unreadable(path: Path, error: Exception) -> BadInput:
    """The error to raise for a YAML file; it names the line, and the file that the parser names if any."""
    mark = getattr(error, "problem_mark", None)
    if mark is None:
        return BadInput(f"{display(path)}: cannot be read as YAML: {one_line(error)}")
    named = Path(mark.name)
    where = named if named.is_absolute() else path
    problem = one_line(Exception(getattr(error, "problem", None) or error))
    return BadInput(f"{display(where)}:{mark.line + 1}: not valid YAML: {problem}")


def display(path: Path) -> str:
    """How a file is called in messages: short where it ships or lies below the working folder."""
    for folder in (Path.cwd(), assets.root()):
        if path.is_relative_to(folder):
            return path.relative_to(folder).as_posix()
    return str(path)


def one_line(error: BaseException) -> str:
    """What an error says, without line breaks."""
    return " ".join(str(error).split()) or type(error).__name__
