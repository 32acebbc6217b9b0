"""Composing the layers of a recipe: Hydra picks and merges the files, we remember where values came from."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from memfactory import assets
from memfactory.core.errors import BadInput, did_you_mean
from memfactory.recipe.overrides import ChooseOption, Delete, Override, SetValue, parse_overrides
from memfactory.recipe.validate import MISSING, join

if TYPE_CHECKING:
    from omegaconf import DictConfig

COMMAND_LINE = "command line"
DEFAULT = "default"


@dataclass(frozen=True)
class Layers:
    """The merged values of a recipe, and for each dotted key of a leaf where its value came from."""

    values: dict[str, Any]
    origins: dict[str, str]


def find_recipe(name: str) -> Path:
    """The recipe file of that path or shipped name. Raises `BadInput` with the nearest name."""
    path = Path(name).expanduser()
    if path.is_file():
        if path.suffix != ".yaml":
            raise BadInput(f"recipe '{name}': a recipe's file name must end in .yaml")
        return path.resolve()
    stem = name.removeprefix("recipes/").removesuffix(".yaml")
    shipped = assets.recipe_names()
    if stem in shipped:
        return assets.recipes() / f"{stem}.yaml"
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


def compose(recipe: Path, arguments: Iterable[str], forced: Mapping[str, Any]) -> Layers:
    """Merge the recipe's layers, the command line's changes, and last the `forced` keys (options).

    Raises `BadInput` for anything that is wrong with the files or the arguments.
    """
    from omegaconf import OmegaConf

    folders = config_folders(recipe)
    groups = _groups(folders)
    listed = _read(recipe).get("defaults") or []
    overrides = parse_overrides(arguments, groups)
    config, files = _hydra_compose(
        recipe, folders, groups, _hydra_overrides(overrides, _listed_groups(listed))
    )
    origins: dict[str, str] = {}
    for path, package in files:
        layer = _read(path)
        layer.pop("defaults", None)
        for key, _ in _leaves(layer, "" if package in ("", "_global_") else package):
            _set_origin(origins, key, display(path))
    OmegaConf.set_struct(config, False)
    for override in overrides:
        _apply(override, config, origins, groups)
    for key, value in forced.items():
        OmegaConf.update(config, key, value, force_add=True)
        _set_origin(origins, key, COMMAND_LINE)
    for key, fallback in (("name", recipe.stem), ("output_dir", "runs/${name}")):
        if config._get_node(key) is None:
            OmegaConf.update(config, key, fallback, force_add=True)
            origins[key] = DEFAULT
    return Layers(_resolve(config, "", origins), origins)


def display(path: Path) -> str:
    """How a file is called in messages: short where it ships or lies below the working folder."""
    for folder in (Path.cwd(), assets.root()):
        if path.is_relative_to(folder):
            return path.relative_to(folder).as_posix()
    return str(path)


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


def _groups(folders: Iterable[Path]) -> dict[str, set[str]]:
    groups: dict[str, set[str]] = {}
    for folder in folders:
        for path in folder.rglob("*.yaml"):
            group = path.parent.relative_to(folder).as_posix()
            if group != ".":
                groups.setdefault(group, set()).add(path.stem)
    return groups


def _read(path: Path) -> dict[str, Any]:
    """One YAML file as plain values, interpolations untouched."""
    import yaml
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    try:
        content = OmegaConf.load(path)
    except yaml.MarkedYAMLError as error:
        line = f":{error.problem_mark.line + 1}" if error.problem_mark else ""
        raise BadInput(f"{display(path)}{line}: not valid YAML: {error.problem or error}") from error
    except (yaml.YAMLError, UnicodeDecodeError, OmegaConfBaseException, OSError) as error:
        raise BadInput(f"{display(path)}: cannot be read as YAML: {_one_line(error)}") from error
    if not OmegaConf.is_dict(content):
        raise BadInput(f"{display(path)}: a recipe is a mapping of keys, not {type(content).__name__}")
    found = OmegaConf.to_container(content, resolve=False)
    return {str(key): value for key, value in found.items()}  # type: ignore[union-attr]


def _listed_groups(defaults: Any) -> set[str]:
    """Groups named in a defaults list."""
    found = set()
    for entry in defaults if isinstance(defaults, list) else []:
        if isinstance(entry, dict):
            for name in entry:
                found.add(
                    str(name).removeprefix("optional ").removeprefix("override ").strip("/ ").split("@")[0]
                )
    return found


def _hydra_overrides(overrides: list[Override], listed: set[str]) -> list[str]:
    """Only the choice of groups is Hydra's business; keys are set afterwards, by any name YAML allows."""
    arguments = []
    for override in overrides:
        if isinstance(override, ChooseOption):
            arguments.append(f"{'' if override.group in listed else '+'}{override.group}={override.option}")
        elif isinstance(override, Delete) and override.key in listed:
            arguments.append(f"~{override.key}")
    chosen = {override.group for override in overrides if isinstance(override, ChooseOption)}
    if listed and "model" not in listed | chosen:
        # Options that follow the model (`optional ...: ${model}`) need to know that it is none of ours.
        arguments.append("+model=custom")
    return arguments


def _hydra_compose(
    recipe: Path, folders: list[Path], groups: Mapping[str, Iterable[str]], overrides: list[str]
) -> tuple[DictConfig, list[tuple[Path, str]]]:
    """The merged config, and the files it was merged from with the key below which each was put."""
    from hydra import compose as hydra_compose
    from hydra import initialize_config_dir
    from hydra.core.global_hydra import GlobalHydra
    from hydra.errors import HydraException, MissingConfigException
    from hydra.types import RunMode
    from omegaconf.errors import OmegaConfBaseException

    search = [folder.as_uri() for folder in [*folders, assets.recipes()] if folder.is_dir()]
    quoted = ",".join("'" + _unquote_uri(uri).replace("'", r"\'") + "'" for uri in search)
    arguments = [*overrides, f"hydra.searchpath=[{quoted}]"]
    try:
        # A defaults list without `_self_` gets it at the end, which is what one means; Hydra warns of it.
        with (
            warnings.catch_warnings(action="ignore"),
            initialize_config_dir(str(recipe.parent), job_name="memfactory", version_base="1.3"),
        ):
            config = hydra_compose(recipe.stem, arguments)
            chosen = (
                GlobalHydra.instance()
                .config_loader()
                .compute_defaults_list(recipe.stem, arguments, RunMode.RUN)
            )
    except MissingConfigException as error:
        raise BadInput(f"{display(recipe)}: defaults: {_missing(error.missing_cfg_file, groups)}") from error
    except (HydraException, OmegaConfBaseException) as error:
        raise BadInput(f"{display(recipe)}: cannot be composed: {_one_line(error)}") from error
    except (TypeError, ValueError, KeyError, AttributeError, AssertionError, RecursionError) as error:
        raise BadInput(
            f"{display(recipe)}: its defaults list cannot be understood: {_one_line(error)}"
        ) from error
    files = []
    for default in chosen.defaults:
        path = str(default.config_path or "")
        if path and not path.startswith("hydra/"):
            for folder in [recipe.parent, *folders, assets.recipes()]:
                if (folder / f"{path}.yaml").is_file():
                    files.append((folder / f"{path}.yaml", default.package or ""))
                    break
    return config, files


def _missing(name: object, groups: Mapping[str, Iterable[str]]) -> str:
    group, _, option = str(name).rpartition("/")
    if group in groups:
        options = sorted(groups[group])
        hint = did_you_mean(option, options) or f"; options: {', '.join(options)}"
        return f"group '{group}' has no option '{option}'{hint}"
    if group:
        return f"there is no group '{group}'{did_you_mean(group, groups)}"
    return f"there is no config '{name}'{did_you_mean(str(name), assets.recipe_names())}"


def _apply(
    override: Override, config: DictConfig, origins: dict[str, str], groups: Mapping[str, Any]
) -> None:
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    if isinstance(override, SetValue):
        try:
            OmegaConf.update(config, override.key, override.value, merge=True, force_add=True)
        except (OmegaConfBaseException, ValueError, TypeError, AttributeError) as error:
            raise BadInput(f"command line: {override.key}: cannot be set: {_one_line(error)}") from error
        if isinstance(override.value, Mapping):
            for key, _ in _leaves(override.value, override.key):
                _set_origin(origins, key, COMMAND_LINE)
        else:
            _set_origin(origins, override.key, COMMAND_LINE)
    elif isinstance(override, Delete):
        _delete(override.key, config, origins, groups)


def _delete(key: str, config: DictConfig, origins: dict[str, str], groups: Mapping[str, Any]) -> None:
    from omegaconf import DictConfig, OmegaConf

    parent, _, last = key.rpartition(".")
    holder = OmegaConf.select(config, parent) if parent else config
    if isinstance(holder, DictConfig) and last in holder:
        del holder[last]
    elif key not in groups:
        siblings = [str(name) for name in holder] if isinstance(holder, DictConfig) else []
        raise BadInput(
            f"command line: ~{key}: there is no such key to leave out{did_you_mean(last, siblings)}"
        )
    for leaf in [leaf for leaf in origins if leaf == key or leaf.startswith(key + ".")]:
        del origins[leaf]


def _resolve(node: DictConfig, key: str, origins: Mapping[str, str]) -> Any:
    """Plain values with interpolations filled in; one that leads to a missing value is missing too."""
    from omegaconf import DictConfig, ListConfig
    from omegaconf.errors import InterpolationToMissingValueError, OmegaConfBaseException

    def entry(name: Any) -> Any:
        where = join(key, name)
        try:
            if node._is_none() or node._is_missing():
                return None
            child = node._get_node(name)
            if child._is_missing():  # type: ignore[union-attr]
                return MISSING
            value = node[name]
        except InterpolationToMissingValueError:
            return MISSING
        except (OmegaConfBaseException, ValueError, KeyError) as error:
            raise BadInput(f"{nearest_origin(origins, where)}: {where}: {_one_line(error)}") from error
        return _resolve(value, where, origins) if isinstance(value, DictConfig | ListConfig) else value

    if isinstance(node, ListConfig):
        return [entry(number) for number in range(len(node))]
    return {name: entry(name) for name in node}


def _leaves(values: Mapping[Any, Any], prefix: str) -> Iterator[tuple[str, Any]]:
    for name, value in values.items():
        key = join(prefix, name)
        if isinstance(value, Mapping) and value:
            yield from _leaves(value, key)
        else:
            yield key, value


def _set_origin(origins: dict[str, str], key: str, origin: str) -> None:
    """Record a leaf; what was above it as a leaf, or below it, is gone."""
    for other in [o for o in origins if o.startswith(key + ".") or key.startswith(o + ".")]:
        del origins[other]
    origins[key] = origin


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split()) or type(error).__name__


def _unquote_uri(uri: str) -> str:
    from urllib.parse import unquote

    return unquote(uri)
