"""`memfactory export`: the policy of a run as a folder that other programs load: a model, or an adapter."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from rich.console import Console

from memfactory.core.errors import BadInput, ServiceError
from memfactory.core.files import new_folder
from memfactory.core.manifest import damage, read_manifest, require_ours, seal
from memfactory.recipe.load import Recipe, load_recipe
from memfactory.training.run_folder import RunFolder

_KIND = "export"
_REPOSITORY = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")


def export(
    run_path: Path,
    *,
    output: Path | None,
    merge: bool,
    step: int | None,
    push_to: str | None,
    public: bool,
    console: Console,
) -> int:
    """Write the policy of a run to `output` (default: `export/` in the run folder); returns the exit code.

    A run that trained adapters gives the adapter, as peft loads it, or with `merge` an ordinary model folder; any
    other run gives a model folder. `step`: of that checkpoint instead of the newest weights. `push_to` uploads the
    folder to this repository of the Hugging Face hub, made private unless `public`; nothing is uploaded otherwise.

    Raises:
        BadInput: no run, no weights yet or damaged ones, no such step, or `output` is there and holds anything that an
            export did not write.
        DiskError: the folder cannot be written.
        ServiceError: the hub cannot be reached or refuses.
    """
    if push_to is not None and not _REPOSITORY.fullmatch(push_to):
        raise BadInput(f"--push-to-hub: '{push_to}' is not like owner/name")
    run = RunFolder(run_path)
    if not run.recipe_path.is_file():
        raise BadInput(f"{run_path}: not a run folder: no recipe.yaml")
    recipe = load_recipe(str(run.recipe_path))
    rank = int(recipe.schema.learner.get("lora_rank") or 0)
    target = output if output is not None else run_path / "export"
    source = _source(run, step, adapter=rank > 0 and not merge)
    _require_whole(source)
    with new_folder(target, replaces=_only_an_export, option="--output") as folder:
        if rank > 0 and not merge:
            _write_adapter(source, folder, recipe)
        else:
            shutil.copytree(source, folder, dirs_exist_ok=True)
        seal(folder, _KIND)
    console.print(f"exported: {target}", highlight=False, markup=False, soft_wrap=True)
    if push_to is not None:
        address = _push(target, push_to, private=not public)
        console.print(f"uploaded: {address}", highlight=False, markup=False, soft_wrap=True)
    return 0


def _source(run: RunFolder, step: int | None, *, adapter: bool) -> Path:
    """The folder to take weights from: `final/` or a checkpoint's policy; for an adapter, the learner's state."""
    checkpoints = dict(run.checkpoints.all())
    if step is None:
        if run.final_path.is_dir() and not adapter:
            return run.final_path
        step = max(checkpoints, default=None)
        if step is None:
            raise BadInput(f"{run.path}: there are no trained weights yet; the first come with a checkpoint")
    if step not in checkpoints:
        kept = ", ".join(map(str, sorted(checkpoints))) or "none"
        raise BadInput(f"{run.path}: no checkpoint of step {step}; there are: {kept}")
    return checkpoints[step] / ("learner" if adapter else "policy")


def _require_whole(source: Path) -> None:
    """Raise `BadInput` if the weights, or the checkpoint that they are of, are not as they were written."""
    for folder in (source, source.parent):
        manifest = read_manifest(folder)
        if manifest is not None and (wrong := damage(folder, manifest)):
            raise BadInput(f"{folder}: {wrong}; put it back from a copy, or export another --step")


def _only_an_export(target: Path) -> None:
    require_ours(target, _KIND, "choose another --output")


def _write_adapter(state: Path, folder: Path, recipe: Recipe) -> None:
    """An adapter folder of peft from a learner's state: its weights, and the settings of the recipe."""
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    from memfactory.learners.adapters import Adapter
    from memfactory.learners.files import WEIGHTS
    from memfactory.models.load import load_tokenizer

    file = state / WEIGHTS
    try:
        tensors = load_file(file)
    except (OSError, SafetensorError) as error:
        raise BadInput(f"{file}: cannot be read: {error}") from error
    learner: Mapping[str, Any] = recipe.schema.learner
    Adapter(
        rank=learner["lora_rank"],
        alpha=learner["lora_alpha"],
        dropout=learner["lora_dropout"],
        targets=learner["lora_targets"],
        tensors=tensors,
    ).write(folder, base=recipe.schema.model.path)
    load_tokenizer(state.parent / "policy").save_pretrained(folder)


def _push(folder: Path, repository: str, *, private: bool) -> str:
    """Upload a folder; returns its address. The hub's own login is used. Raises `ServiceError`."""
    import huggingface_hub

    make: Callable[..., Any] = huggingface_hub.create_repo
    try:
        address = make(repository, private=private, exist_ok=True)
        huggingface_hub.upload_folder(
            repo_id=repository, folder_path=folder, commit_message="Export of a MemFactory run"
        )
    except Exception as error:  # httpx's, OSError, HfHubHTTPError: not reached, not logged in, not allowed
        first = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise ServiceError(
            f"--push-to-hub {repository}: the upload failed ({first[:200]}); {folder} is written, log in with "
            "`hf auth login` and run the same command again"
        ) from error
    return str(address)
