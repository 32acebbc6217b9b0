"""Weights that are no numbers are named before anything computes with them."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from memfactory.core.errors import BadInput
from memfactory.models.weight_files import WeightFiles

if TYPE_CHECKING:
    from torch import Tensor


def require_finite_files(folder: Path, key: str, name: str | None = None) -> None:
    """Read every weight file of a model folder once, a tensor at a time (see `weight_files.weight_paths`).

    Raises `BadInput` for a weight that is NaN or infinite, or a file that cannot be read, with the recipe's `key` and
    the folder's `name` there.
    """
    files = WeightFiles(folder, key)
    require_finite(((tensor, files[tensor]) for tensor in files), f"{key}: {name or folder}")


def require_finite_model(model: Any, where: str) -> None:
    """As `require_finite_files`, for the floating parameters of a loaded model that are not packed."""
    require_finite(model.named_parameters(), where)


def require_finite(tensors: Iterable[tuple[str, Tensor]], where: str) -> None:
    """Raise `BadInput`, beginning with `where`, for the first tensor that holds NaN or infinity."""
    for name, tensor in tensors:
        if _odd(tensor.detach()):
            raise BadInput(
                f"{where}: weights hold NaN or infinity ('{name}'); take a checkpoint from before training diverged"
            )


def _odd(tensor: Tensor) -> bool:
    import torch

    if not tensor.is_floating_point() or not tensor.numel():
        return False
    if tensor.element_size() < 2:  # 8 bits have no sum
        tensor = tensor.float()
    # One pass without a copy; a sum that overflows by itself is looked at again.
    if bool(torch.isfinite(tensor.sum(dtype=torch.float32))):
        return False
    return not bool(torch.isfinite(tensor).all())
