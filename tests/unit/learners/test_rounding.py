"""What rounding takes from what was learned, and whether `final/` holds anything of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from memfactory.algorithms.objective import Objective
from memfactory.learners.local import LocalLearner
from memfactory.learners.rounding import rounding
from memfactory.models.weight_files import same_weights
from memfactory.training.final_policy import look_at_final, rounding_line
from tests.tiny_models import random_policy
from tests.unit.learners.models import random_rows

BF = torch.bfloat16


def test_figures_worked_out_by_hand() -> None:
    """Between 1 and 2 neighbours in bfloat16 are 1/128 apart, below 1 they are 1/256 apart."""
    before = torch.tensor([1.0, 1.0, 1.0, 1.0])
    learned = torch.tensor([3 / 512, 1 / 512, 1 / 128, 0.0])  # what is left: 1/128, nothing, 1/128, nothing
    found = rounding([(before[:2], before[:2] + learned[:2]), (before[2:], before[2:] + learned[2:])], BF)
    assert found is not None and found.dtype == "bfloat16"
    assert found.learned == pytest.approx((9 + 1 + 16) ** 0.5 / 512)
    assert found.lost == pytest.approx((2 / 26) ** 0.5)  # off by 1/512 twice
    assert found.correlation == pytest.approx((3 * 4 + 4 * 4) / (26 * 32) ** 0.5)


def test_a_first_weight_that_was_rounded_itself_counts_as_what_it_became() -> None:
    before = torch.tensor([1 + 3 / 512])  # in bfloat16 1 + 1/128
    found = rounding([(before, torch.tensor([1 + 7 / 512]))], BF)  # and this 1 + 2/128
    assert found is not None
    assert (found.lost, found.correlation) == (0.0, 1.0)


def test_nothing_learned_has_no_figures_and_all_lost_is_all() -> None:
    assert rounding([], BF) is None
    assert rounding([(torch.ones(3), torch.ones(3))], BF) is None
    found = rounding([(torch.ones(3), torch.ones(3) + 1e-4)], BF)
    assert found is not None and (found.lost, found.correlation) == (1.0, 0.0)
    exact = rounding([(torch.ones(3), torch.ones(3) + 1e-4)], torch.float32)
    assert exact is not None and exact.lost == 0.0


@pytest.mark.parametrize("lora_rank", [0, 4])
def test_a_learners_figures_are_those_of_the_folders(tmp_path: Path, lora_rank: int) -> None:
    """Against an independent way: float32 adapters merged by hand, the files of both folders."""
    first = random_policy(tmp_path / "first")
    half = {name: tensor.to(BF) for name, tensor in load_file(first / "model.safetensors").items()}
    save_file(half, first / "model.safetensors", metadata={"format": "pt"})
    learner = LocalLearner(
        model=first, device="cpu", dtype="bfloat16", lr=2e-5, lora_rank=lora_rank, lora_alpha=4
    )
    learner.update(random_rows(6), Objective())
    learner.save_policy(tmp_path / "final")
    learner.save_state(tmp_path / "state")
    state = load_file(tmp_path / "state" / "trainable.safetensors")
    written = load_file(tmp_path / "final" / "model.safetensors")
    true, left = [], []
    for name, base in half.items():
        if lora_rank:
            stem = f"base_model.model.{name.removesuffix('.weight')}"
            if f"{stem}.lora_A.default.weight" not in state:
                continue
            change = state[f"{stem}.lora_B.default.weight"] @ state[f"{stem}.lora_A.default.weight"]
        else:
            change = state[name] - base.float()
        true.append(change.double().flatten())
        left.append((written[name].double() - base.double()).flatten())
    d, r = torch.cat(true), torch.cat(left)
    found = learner.rounding("bfloat16")
    assert found is not None
    assert found.learned == pytest.approx(float(d.norm()), rel=1e-3)
    assert found.lost == pytest.approx(float((r - d).norm() / d.norm()), rel=1e-3)
    assert found.correlation == pytest.approx(float(r @ d / (r.norm() * d.norm())), abs=1e-3)
    assert found.lost > 0.1
    places = {"final": "bfloat16", "sampler": "bfloat16"}
    said = look_at_final(tmp_path / "final", first, learner, places)
    assert said["rounding"]["bfloat16"]["in"] == ["final", "sampler"] and "unchanged" not in said
    (line,) = said["warnings"]
    assert f"weights {found.correlation:.2f})" in line and "learner.dtype=float32" in line
    assert f"errs by {found.lost:.1%} of the change" in rounding_line(said["rounding"]["bfloat16"])


def _trained(folder: Path, **fields: Any) -> LocalLearner:
    learner = LocalLearner(model=folder, device="cpu", **fields)
    learner.update(random_rows(6), Objective())
    return learner


@pytest.mark.parametrize(
    ("fields", "why"),
    [
        ({"lr": 0.0}, "no step changed one that is trained; raise learner.lr"),
        ({"lr": 1e-9, "dtype": "bfloat16", "lora_rank": 2}, "below what bfloat16 can tell apart"),
    ],
)
def test_a_final_that_is_the_first_says_why(tmp_path: Path, fields: dict[str, Any], why: str) -> None:
    first = random_policy(tmp_path / "first")
    learner = _trained(first, **fields)
    learner.save_policy(tmp_path / "final")
    said = look_at_final(tmp_path / "final", first, learner, {"final": fields.get("dtype", "float32")})
    assert said["unchanged"] is True
    assert said["warnings"][0].startswith("the weights in final/ are those that the run began with")
    assert why in said["warnings"][0]


def test_what_was_trained_and_is_not_written_is_told(tmp_path: Path) -> None:
    """Whatever the reason: the files are compared, not what the learner says of itself."""
    first = random_policy(tmp_path / "first")
    learner = _trained(first, lr=1e-3, lora_rank=2)
    learner.save_policy(tmp_path / "final")
    assert look_at_final(tmp_path / "final", first, learner, {"final": "float32"}) == {}
    said = look_at_final(first, first, learner, {"final": "float32"})
    assert said["unchanged"] is True and "is not part of the model that is written" in said["warnings"][0]


def test_folders_are_compared_by_tensors_and_not_by_files(tmp_path: Path) -> None:
    a, b, c = tmp_path / "a", tmp_path / "b", tmp_path / "c"
    for folder in (a, b, c):
        folder.mkdir()
    save_file({"x": torch.tensor([1 / 3]).to(BF), "y": torch.ones(2, dtype=BF)}, a / "model.safetensors")
    torch.save({"y": torch.ones(2), "tied": torch.ones(1)}, b / "pytorch_model-00001-of-00002.bin")
    torch.save({"x": torch.tensor([1 / 3])}, b / "pytorch_model-00002-of-00002.bin")
    assert same_weights(a, b)  # in the type that was written
    save_file({"x": torch.tensor([1.0]), "y": torch.ones(2)}, c / "model.safetensors")
    assert not same_weights(a, c)
    save_file({"other": torch.tensor([1.0])}, c / "model.safetensors")
    assert not same_weights(a, c)  # nobody knows
