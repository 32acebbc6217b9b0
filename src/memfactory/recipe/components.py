"""Finding components: those that ship, those of installed plugins, and those of a recipe's own files."""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import sys
import traceback
from collections.abc import Iterable
from importlib.metadata import entry_points
from pathlib import Path

from memfactory.core.errors import BadInput, did_you_mean

ENTRY_POINT_GROUP = "memfactory.plugins"

#: Modules that register components when imported; all of them are cheap to import.
BUILTIN = (
    "memfactory.samplers.vllm",
    "memfactory.samplers.vllm_server",
    "memfactory.samplers.hf",
    "memfactory.samplers.openai",
    "memfactory.samplers.scripted",
    "memfactory.learners.local",
    "memfactory.learners.deepspeed",
    "memfactory.modules.recurrent",
    "memfactory.modules.answerers",
    "memfactory.modules.extractors",
    "memfactory.modules.managers",
    "memfactory.modules.retrievers",
    "memfactory.modules.distilling_answerer",
    "memfactory.modules.citing_answerer",
    "memfactory.modules.pattern_reader",
    "memfactory.modules.reflectors",
    "memfactory.modules.mergers",
    "memfactory.modules.rerankers",
    "memfactory.learners.linear_reranker",
    "memfactory.learners.none",
    "memfactory.agents.memagent",
    "memfactory.agents.memory_r1",
    "memfactory.agents.rmm",
    "memfactory.agents.baselines",
    "memfactory.environments.long_context",
    "memfactory.environments.memory_bank",
    "memfactory.data.sources",
    "memfactory.data.starting_banks",
    "memfactory.memory.embedders",
    "memfactory.rewards.answer",
    "memfactory.rewards.format",
    "memfactory.rewards.judge",
    "memfactory.rewards.operations",
    "memfactory.rewards.evidence",
    "memfactory.training.trackers.base",
    "memfactory.training.trackers.tensorboard",
    "memfactory.training.trackers.wandb",
    "memfactory.training.trackers.trackio",
    "memfactory.training.trackers.swanlab",
)

_loaded_files: dict[Path, float] = {}
_entry_points_loaded = False


def load_components(plugins: Iterable[Path] = ()) -> None:
    """Import everything that registers components.

    Raises `BadInput` naming the plugin (and the line of its file) that could not be loaded.
    """
    for module in BUILTIN:
        importlib.import_module(module)
    _load_entry_points()
    for path in plugins:
        _load_file(path)


def find_plugin(name: str, recipe_folder: Path) -> Path:
    """The file of a recipe's `plugins` entry. Raises `BadInput` when there is none."""
    candidates = [recipe_folder / name, Path.cwd() / name]
    for path in candidates:
        if path.is_file():
            return path.resolve()
    near = [path.name for path in candidates[0].parent.glob("*.py")] if candidates[0].parent.is_dir() else []
    raise BadInput(f"plugin file '{name}' does not exist{did_you_mean(Path(name).name, near)}")


def _load_entry_points() -> None:
    global _entry_points_loaded
    if _entry_points_loaded:
        return
    for point in entry_points(group=ENTRY_POINT_GROUP):
        try:
            point.load()
        except Exception as error:
            package = point.dist.name if point.dist is not None else "unknown package"
            problem = f"{type(error).__name__}: {error}"
            raise BadInput(
                f"installed plugin '{point.name}' ({package}) cannot be loaded: {problem}"
            ) from error
    _entry_points_loaded = True


def _load_file(path: Path) -> None:
    stamp = path.stat().st_mtime
    if _loaded_files.get(path) == stamp:
        return
    # One module name for a path, so that loading an edited file again replaces its components.
    name = f"memfactory_plugin_{path.stem}_{hashlib.sha1(str(path).encode()).hexdigest()[:8]}"
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise BadInput(f"plugin '{path}' is not a Python file")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except (Exception, SystemExit) as error:
        del sys.modules[name]
        raise BadInput(f"plugin {path}{_line(error, path)}: {type(error).__name__}: {error}") from error
    _loaded_files[path] = stamp


def _line(error: BaseException, path: Path) -> str:
    """`:12` for the line of the file at which it went wrong, or nothing."""
    if isinstance(error, SyntaxError) and error.filename == str(path):
        return f":{error.lineno}"
    lines = [
        frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == str(path)
    ]
    return f":{lines[-1]}" if lines else ""
