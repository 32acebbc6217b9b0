"""What learners write and read: model folders, and the state a run goes on from."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from memfactory.core.errors import BadInput, DiskError

WEIGHTS, OPTIMIZER, FACTS = "trainable.safetensors", "optimizer.pt", "learner.json"
FORMAT = 1
#: In what torch says when it cannot write; other RuntimeErrors have other causes.
_OF_WRITING = ("pytorchstreamwriter", "inline_container", "iostream", "file")


@contextmanager
def writing(folder: Path) -> Iterator[None]:
    """Create the folder; turn a failure to write into a `DiskError` that names it."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        yield
    except (OSError, SafetensorError) as error:
        raise _cannot_write(folder, error) from error
    except RuntimeError as error:
        if not any(word in str(error).lower() for word in _OF_WRITING):
            raise
        raise _cannot_write(folder, error) from error


def _cannot_write(folder: Path, error: Exception) -> DiskError:
    why = (str(error).splitlines() or [type(error).__name__])[0][:200]
    return DiskError(
        f"cannot write {folder}: {why}; is the disk full? free some space and run the same command again"
    )


def write_policy(
    folder: Path, weights: Iterable[tuple[str, Tensor]], model: Any, tokenizer: Any, dtype: torch.dtype
) -> None:
    """Write an ordinary model folder: safetensors in `dtype` (shards of 5 GB), configuration, tokenizer.

    `model` gives the configuration; `tokenizer` may be None.

    Raises:
        DiskError: the folder cannot be written.
    """
    from huggingface_hub import save_torch_state_dict

    state = {
        name: _own(tensor.to("cpu", dtype if tensor.is_floating_point() else None))
        for name, tensor in weights
    }
    config = copy.deepcopy(model.config)
    config.architectures = [type(model).__name__]
    config.dtype = str(dtype).removeprefix("torch.")
    if hasattr(config, "quantization_config"):  # what is written is whole again
        del config.quantization_config
    with writing(folder):
        save_torch_state_dict(state, folder, max_shard_size="5GB")
        config.save_pretrained(folder)
        if getattr(model, "generation_config", None) is not None:
            model.generation_config.save_pretrained(folder)
        if tokenizer is not None:
            tokenizer.save_pretrained(folder)


@dataclass(frozen=True)
class LearnerState:
    """What a learner goes on from, as full tensors on the CPU: no file knows how many ranks wrote it.

    `weights`: name → trainable parameter, float32. `moments`: place of the parameter in the optimizer's order
    (`optimizer.decay_order`) → its state. `step`: optimizer steps taken.
    """

    weights: Mapping[str, Tensor]
    moments: Mapping[int, Mapping[str, Tensor]]
    step: int


def _own(tensor: Tensor) -> Tensor:
    """A tensor with memory of its own: ZeRO's weights are pieces of one long tensor, which would be saved whole."""
    return tensor if tensor.untyped_storage().nbytes() == tensor.nbytes else tensor.clone()


def write_state(
    folder: Path,
    parameters: Mapping[str, Tensor],
    moments: Mapping[int, Mapping[str, Tensor]],
    facts: Mapping[str, Any],
) -> None:
    """Write trainable parameters (bit for bit), the optimizer's moments, and small facts (step, kind of run).

    Raises:
        DiskError: the folder cannot be written.
    """
    with writing(folder):
        save_file(
            {name: tensor.detach().cpu().contiguous() for name, tensor in parameters.items()},
            folder / WEIGHTS,
        )
        torch.save(moments, folder / OPTIMIZER)
        (folder / FACTS).write_text(json.dumps({"format": FORMAT, **facts}, indent=1) + "\n")


def read_state(folder: Path, shapes: Mapping[str, tuple[int, ...]]) -> LearnerState:
    """Read what `write_state` wrote, for a learner whose trainable parameters have these shapes.

    Raises:
        BadInput: a file is missing or damaged, or belongs to another model.
    """
    try:
        facts = json.loads((folder / FACTS).read_text())
        weights = load_file(folder / WEIGHTS)
        moments = torch.load(folder / OPTIMIZER, map_location="cpu", weights_only=True)
    except Exception as error:
        raise BadInput(f"cannot read the learner's state in {folder}: {error}") from error
    if facts.get("format") != FORMAT:
        raise BadInput(
            f"{folder / FACTS}: format {facts.get('format')} was written by another version of memfactory"
        )
    saved = {name: tuple(tensor.shape) for name, tensor in weights.items()}
    if shapes != saved:
        different = sorted(
            name for name in shapes.keys() | saved.keys() if shapes.get(name) != saved.get(name)
        )
        raise BadInput(
            f"{folder} was saved from another model or LoRA setting: {len(different)} tensors differ, "
            f"the first is {different[0]} ({saved.get(different[0])} saved, {shapes.get(different[0])} here)"
        )
    return LearnerState(weights, moments, int(facts["step"]))
