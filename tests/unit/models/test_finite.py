"""A weight that is no number is named before anything computes with it."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from memfactory.core.errors import BadInput
from memfactory.models.finite import require_finite, require_finite_files
from memfactory.models.load import load_policy
from tests.tiny_models import random_policy


@pytest.mark.parametrize("odd", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16, torch.float8_e4m3fn])
def test_one_odd_number_is_found_in_any_type(tmp_path: Path, odd: float, dtype: torch.dtype) -> None:
    whole, spoilt = torch.ones(3, 5).to(dtype), torch.ones(3, 5)
    spoilt[2, 4] = odd if dtype != torch.float8_e4m3fn else math.nan  # this type has no infinity
    save_file(
        {"a": whole, "b": spoilt.to(dtype), "c": torch.ones(1, dtype=torch.int64)}, tmp_path / "m.safetensors"
    )
    with pytest.raises(BadInput, match=r"^model\.path: mine: weights hold NaN or infinity \('b'\)"):
        require_finite_files(tmp_path, "model.path", "mine")


def test_large_but_finite_numbers_pass(tmp_path: Path) -> None:
    save_file({"a": torch.full((4,), 3e38), "b": torch.zeros(0)}, tmp_path / "m.safetensors")
    require_finite_files(tmp_path, "model.path")
    (tmp_path / "m.safetensors").write_bytes(b"x" * 40)
    with pytest.raises(BadInput, match=r"^model\.path: .*m\.safetensors cannot be read"):
        require_finite_files(tmp_path, "model.path")


@pytest.mark.parametrize("old", [False, True])
def test_torchs_own_files_are_read_where_there_are_no_others(tmp_path: Path, old: bool) -> None:
    """Engines load them too, and nobody looks at what those have loaded; in shards as in one, of any age."""
    one, two = tmp_path / "pytorch_model-00001-of-00002.bin", tmp_path / "pytorch_model-00002-of-00002.bin"
    torch.save({"a": torch.ones(3)}, one, _use_new_zipfile_serialization=not old)
    torch.save({"b": torch.ones(2)}, two, _use_new_zipfile_serialization=not old)
    (tmp_path / "training_args.bin").write_bytes(b"no weights")
    require_finite_files(tmp_path, "model.path")
    torch.save({"b": torch.tensor([0.0, math.nan])}, two, _use_new_zipfile_serialization=not old)
    with pytest.raises(BadInput, match=r"^model\.path: mine: weights hold NaN or infinity \('b'\)"):
        require_finite_files(tmp_path, "model.path", "mine")
    two.write_bytes(one.read_bytes()[:50])
    with pytest.raises(BadInput, match=r"^model\.path: .*00002-of-00002\.bin cannot be read"):
        require_finite_files(tmp_path, "model.path")
    save_file({"a": torch.ones(3)}, tmp_path / "model.safetensors")  # then nobody reads the others
    require_finite_files(tmp_path, "model.path")


def test_a_loaded_model_is_looked_at_too(tmp_path: Path) -> None:
    folder = random_policy(tmp_path / "m")
    model = load_policy(folder, device="cpu")
    with torch.no_grad():
        model.model.norm.weight[0] = math.nan
    (folder / "model.safetensors").unlink()
    torch.save(model.state_dict(), folder / "pytorch_model.bin")
    for look in (
        lambda: require_finite_files(folder, "model.path"),
        lambda: load_policy(folder, device="cpu"),
    ):
        with pytest.raises(BadInput, match=r"^model\.path: .*'model\.norm\.weight'"):
            look()
    with pytest.raises(BadInput, match="'x'"):
        require_finite([("x", torch.tensor([math.nan]))], "here")
