"""The tensors in the files of a model folder, one at a time, whatever loads them later."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from memfactory.core.compat import prepare_imports
from memfactory.core.errors import BadInput

if TYPE_CHECKING:
    from torch import Tensor


def weight_paths(folder: Path) -> list[Path]:
    """The files that hold weights: safetensors, or else torch's own (`pytorch_model*.bin`), as loaders choose."""
    return sorted(folder.glob("*.safetensors")) or sorted(folder.glob("pytorch_model*.bin"))


class WeightFiles(Mapping[str, "Tensor"]):
    """Tensors of a folder by name, read when they are asked for; torch's files are mapped, not loaded.

    Raises `BadInput`, beginning with `where`, for a file that cannot be read.
    """

    def __init__(self, folder: Path, where: str) -> None:
        self._where = where
        self._files: dict[str, tuple[Path, Any]] = {}
        for path in weight_paths(folder):
            for name, file in self._open(path):
                self._files[name] = (path, file)

    def __iter__(self) -> Iterator[str]:
        return iter(self._files)

    def __len__(self) -> int:
        return len(self._files)

    def __contains__(self, name: object) -> bool:
        return name in self._files

    def __getitem__(self, name: str) -> Tensor:
        from safetensors import SafetensorError

        path, file = self._files[name]
        try:
            tensor: Tensor = file[name] if isinstance(file, dict) else file.get_tensor(name)
        except (OSError, SafetensorError) as error:
            raise self._unreadable(path, error) from error
        return tensor

    def _open(self, path: Path) -> Iterator[tuple[str, Any]]:
        prepare_imports()
        from safetensors import safe_open

        try:
            if path.suffix == ".bin":
                tensors = _torch_file(path)
                yield from ((name, tensors) for name in tensors)
            else:
                file = safe_open(path, "pt")
                yield from ((name, file) for name in file.keys())  # noqa: SIM118 (not a mapping)
        except Exception as error:  # safetensors', torch's, pickle's
            raise self._unreadable(path, error) from error

    def _unreadable(self, path: Path, error: Exception) -> BadInput:
        return BadInput(f"{self._where}: {path} cannot be read: {' '.join(str(error).split())[:200]}")


def _torch_file(path: Path) -> dict[str, Tensor]:
    import torch

    try:
        found = torch.load(path, map_location="cpu", mmap=True, weights_only=True)
    except RuntimeError:  # older files are no archives, and cannot be mapped
        found = torch.load(path, map_location="cpu", weights_only=True)
    return {name: value for name, value in found.items() if isinstance(value, torch.Tensor)}


def same_weights(folder: Path, first: Path) -> bool:
    """Whether every tensor of `folder` is the one that `first` has under its name, in the type that is written.

    False as well where none can be compared, because `first` holds its weights under other names or in other files.
    """
    import torch

    ours, theirs = WeightFiles(folder, "final"), WeightFiles(first, "model.path")
    compared = 0
    for name in ours:
        if name not in theirs:
            continue
        new, old = ours[name], theirs[name]
        if new.shape != old.shape or not torch.equal(new, old.to(new.dtype)):
            return False
        compared += 1
    return compared > 0
