"""A benchmark in a recipe: a file of `configs/benchmark/` takes the place of the recipe's own held-out sets.

Other groups are merged key by key. A benchmark must not be: a set that the recipe happened to have would be scored
with it. So its blocks are moved to where the rest of the program reads them, and what was there is dropped.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from memfactory.core.errors import BadInput, did_you_mean
from memfactory.recipe.files import display, read_yaml
from memfactory.recipe.origins import leaves, set_origin

if TYPE_CHECKING:
    from omegaconf import DictConfig

#: The keys of a benchmark file, and the key of a recipe that each becomes.
KEYS = {
    "sets": "data.eval",
    "metrics": "evaluation.metrics",
    "environment": "environment",
    "prompts": "prompts",
}
#: Added to what the recipe has; the others replace it.
_ADDED = ("prompts",)


def put_benchmark(
    config: DictConfig, origins: dict[str, str], files: Sequence[tuple[Path, str]], given: Path | None
) -> None:
    """Move the benchmark's blocks to their places; `benchmark` is its name then.

    `files` are the layers with the key below which each was put; `given` is the file of a benchmark that none of
    them is. Raises `BadInput` for a benchmark without sets or with unknown keys.
    """
    from omegaconf import OmegaConf

    chosen = [path for path, package in files if package == "benchmark"]
    if given is not None:
        content: Any = read_yaml(given)
        chosen = [given]
    elif chosen:
        content = OmegaConf.to_container(config.benchmark, resolve=False)
    else:
        return
    for key in [key for key in origins if key == "benchmark" or key.startswith("benchmark.")]:
        del origins[key]
    own = chosen[-1]  # those before it are what it builds upon
    origin = display(own)
    _check(content, origin)
    for name, key in KEYS.items():
        if name not in content:
            continue
        if name not in _ADDED:
            for old in [old for old in origins if old == key or old.startswith(key + ".")]:
                del origins[old]
            OmegaConf.update(config, key, None, force_add=True)
        OmegaConf.update(config, key, content[name], merge=name in _ADDED, force_add=True)
        block = content[name]
        for leaf in leaves(block, key) if isinstance(block, dict) else [key]:
            set_origin(origins, leaf, origin)
    OmegaConf.update(config, "benchmark", own.stem, merge=False, force_add=True)
    origins["benchmark"] = origin


def _check(content: Any, origin: str) -> None:
    unknown = [key for key in content if key not in KEYS]
    if unknown:
        known = did_you_mean(str(unknown[0]), KEYS) or f"; known: {', '.join(KEYS)}"
        raise BadInput(f"{origin}: {unknown[0]}: unknown key of a benchmark{known}")
    if not isinstance(content.get("sets"), dict) or not content["sets"]:
        raise BadInput(
            f"{origin}: sets: a benchmark needs at least one named set, e.g. sets: {{mine: {{type: jsonl, path: ...}}}}"
        )
