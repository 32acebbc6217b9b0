"""Composing the layers of a recipe: Hydra picks and merges the files, we remember where values came from."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from memfactory import assets
from memfactory.core.errors import BadInput, did_you_mean
from memfactory.recipe.benchmarks import put_benchmark
from memfactory.recipe.files import config_file, config_folders, config_groups, display, one_line, read_yaml
from memfactory.recipe.interpolations import grows_too_long
from memfactory.recipe.origins import COMMAND_LINE, DEFAULT, leaves, nearest_origin, set_origin
from memfactory.recipe.overrides import ChooseOption, Delete, Override, SetValue, parse_overrides
from memfactory.recipe.secrets import Environment, from_environment
from memfactory.recipe.values import MISSING, join

if TYPE_CHECKING:
    from omegaconf import DictConfig, ListConfig


@dataclass(frozen=True)
class Layers:
    """The merged values of a recipe, for each dotted key of a leaf its origin, and what the environment gave."""

    values: dict[str, Any]
    origins: dict[str, str]
    environment: Environment


def compose(
    recipe: Path,
    arguments: Iterable[str],
    forced: Mapping[str, Any],
    benchmark: Path | None = None,
    only_options: Iterable[str] = (),
) -> Layers:
    """Merge the recipe's layers, the command line's changes, and last the `forced` keys (options).

    A benchmark that the layers choose, or else the file `benchmark`, takes the place of the recipe's held-out sets
    before the command line changes anything. Of the groups `only_options` the chosen option counts, not what the recipe
    changes in it: that was meant for the option which the recipe chose itself. Raises `BadInput` for anything that is
    wrong with the files or the arguments.
    """
    from omegaconf import OmegaConf

    folders = config_folders(recipe)
    groups = config_groups(folders)
    overrides = parse_overrides(arguments, groups)
    if not read_yaml(recipe):
        raise BadInput(
            f"{display(recipe)}: the recipe is empty; it needs at least defaults: [memagent] or a model"
        )
    listed = _listed_groups(recipe, [recipe.parent, *folders, assets.recipes()])
    config, files = _hydra_compose(recipe, folders, groups, _hydra_overrides(overrides, listed))
    origins: dict[str, str] = {}
    for path, package in files:
        layer = read_yaml(path)
        layer.pop("defaults", None)
        for key in leaves(layer, "" if package in ("", "_global_") else package):
            set_origin(origins, key, display(path))
    OmegaConf.set_struct(config, False)
    for group in only_options:
        _keep_option(group, config, origins, files)
    put_benchmark(config, origins, files, benchmark)
    for override in overrides:
        _apply(override, config, origins, groups)
    for key, value in forced.items():
        OmegaConf.update(config, key, value, force_add=True)
        set_origin(origins, key, COMMAND_LINE)
    for key, fallback in (("name", recipe.stem), ("output_dir", "runs/${name}")):
        if config._get_node(key) is None:
            OmegaConf.update(config, key, fallback, force_add=True)
            origins[key] = DEFAULT
    raw = OmegaConf.to_container(config, resolve=False)
    too_long = grows_too_long(raw)  # type: ignore[arg-type]
    if too_long is not None:
        where = nearest_origin(origins, too_long)
        raise BadInput(f"{where}: {too_long}: becomes endlessly long when its ${{...}} are filled in")
    values = _resolve(config, "", origins)
    return Layers(values, origins, from_environment(raw, values))


def _keep_option(
    group: str, config: DictConfig, origins: dict[str, str], files: list[tuple[Path, str]]
) -> None:
    """Put what the files of a group's option say, and nothing else, below its key."""
    from omegaconf import OmegaConf

    layers = [(path, read_yaml(path)) for path, package in files if package == group]
    for old in [old for old in origins if old == group or old.startswith(group + ".")]:
        del origins[old]
    for path, layer in layers:
        layer.pop("defaults", None)
        for key in leaves(layer, group):
            set_origin(origins, key, display(path))
    merged = OmegaConf.merge(*(OmegaConf.create(layer) for _, layer in layers))
    OmegaConf.update(config, group, merged, merge=False, force_add=True)


def _listed_groups(recipe: Path, folders: list[Path]) -> set[str]:
    """Groups that the defaults lists of a recipe, and of the recipes that it extends, name."""
    found, seen = set(), set()
    waiting: list[tuple[Path, tuple[Path, ...]]] = [(recipe, (recipe,))]
    while waiting:
        path, way = waiting.pop()
        seen.add(path)
        defaults = read_yaml(path).get("defaults")
        for entry in defaults if isinstance(defaults, list) else []:
            if isinstance(entry, dict):
                for name in entry:
                    word = str(name).removeprefix("optional ").removeprefix("override ")
                    found.add(word.strip("/ ").split("@")[0])
            elif isinstance(entry, str) and entry != "_self_":
                extended = [config_file(folder / entry.strip("/")) for folder in folders]
                file = next((file for file in extended if file is not None), None)
                if file in way and file is not None:
                    names = [display(one) for one in (*way[way.index(file) :], file)]
                    circle = " extends ".join(names if len(names) < 6 else [*names[:3], "...", *names[-2:]])
                    raise BadInput(f"{display(path)}: defaults: recipes in a circle: {circle}")
                if file is not None and file not in seen:
                    waiting.append((file, (*way, file)))
    return found


def _hydra_overrides(overrides: list[Override], listed: set[str]) -> list[str]:
    """Only the choice of groups is Hydra's business; keys are set afterwards, by any name YAML allows."""
    chosen: dict[str, str] = {}
    for override in overrides:
        if isinstance(override, ChooseOption):
            sign = "" if override.group in listed else "+"
            chosen[override.group] = f"{sign}{override.group}={override.option}"
        elif isinstance(override, Delete) and override.key in listed:
            chosen[override.key] = f"~{override.key}"
    arguments = list(chosen.values())
    if listed and "model" not in listed | chosen.keys():
        # Options that follow the model (`optional ...: ${model}`) need to know that it is none of ours.
        arguments.append("+model=custom")
    return arguments


def _hydra_compose(
    recipe: Path, folders: list[Path], groups: Mapping[str, Iterable[str]], overrides: list[str]
) -> tuple[DictConfig, list[tuple[Path, str]]]:
    """The merged config, and the files it was merged from with the key below which each was put."""
    from hydra import compose as hydra_compose
    from hydra.core.global_hydra import GlobalHydra
    from hydra.errors import HydraException, MissingConfigException
    from hydra.types import RunMode
    from omegaconf.errors import OmegaConfBaseException

    from memfactory.recipe.source import hydra_over

    search = [folder for folder in [recipe.parent, *folders, assets.recipes()] if folder.is_dir()]
    try:
        # A defaults list without `_self_` gets it at the end, which is what one means; Hydra warns of it.
        with (
            warnings.catch_warnings(action="ignore"),
            hydra_over(search),
        ):
            config = hydra_compose(recipe.stem, overrides)
            chosen = (
                GlobalHydra.instance()
                .config_loader()
                .compute_defaults_list(recipe.stem, overrides, RunMode.RUN)
            )
    except MissingConfigException as error:
        raise BadInput(f"{display(recipe)}: defaults: {_missing(error.missing_cfg_file, groups)}") from error
    except (HydraException, OmegaConfBaseException) as error:
        problem = str(error) or str(error.__cause__ or "its defaults list cannot be understood")
        raise BadInput(f"{display(recipe)}: cannot be composed: {one_line(Exception(problem))}") from error
    except RecursionError as error:
        raise BadInput(f"{display(recipe)}: its defaults lists lead back to themselves") from error
    except (TypeError, ValueError, LookupError, AttributeError, AssertionError) as error:
        raise BadInput(
            f"{display(recipe)}: its defaults list cannot be understood: {one_line(error)}"
        ) from error
    files = []
    for default in chosen.defaults:
        path = str(default.config_path or "")
        if path and not path.startswith("hydra/"):
            for folder in search:
                file = config_file(folder / path)
                if file is not None:
                    files.append((file, default.package or ""))
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
            raise BadInput(f"command line: {override.key}: cannot be set: {one_line(error)}") from error
        if isinstance(override.value, Mapping):
            for key in leaves(override.value, override.key):
                set_origin(origins, key, COMMAND_LINE)
        else:
            set_origin(origins, override.key, COMMAND_LINE)
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


def _resolve(node: DictConfig | ListConfig, key: str, origins: Mapping[str, str]) -> Any:
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
        except (OmegaConfBaseException, ValueError, KeyError, TypeError, RecursionError) as error:
            raise BadInput(f"{nearest_origin(origins, where)}: {where}: {one_line(error)}") from error
        return _resolve(value, where, origins) if isinstance(value, DictConfig | ListConfig) else value

    if isinstance(node, ListConfig):
        return [entry(number) for number in range(len(node))]
    return {name: entry(name) for name in node}
