"""Learners on a GPU: the weights of the CPU's local learner, whatever the stage, the kernels and the packing."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from memfactory.core.ranks import Ranks
from tests.integration.rank_processes import on_ranks
from tests.integration.test_deepspeed_learner import (
    BFLOAT16,
    FIRST,
    KINDS,
    LAST,
    NF4,
    farthest,
    keep,
    make,
    train,
    weights,
)

#: AdamW divides by the gradient's own size, so rounding in a gradient near 0 moves a weight by a share of lr (1e-3).
NEAR = 1e-4
GPU: dict[str, Any] = {"device": "cuda"}
#: name → kind, fields of the local learner on the GPU
LOCAL: dict[str, tuple[str, dict[str, Any]]] = {
    "full": ("full", {}),
    "lora": ("lora", {}),
    "with a reference": ("kl", {}),
    "checkpointing": ("full", {"gradient_checkpointing": True}),
    "packed": ("full", {"packing": True}),
    "eager": ("full", {"attention": "eager"}),
}
#: name → kind, fields of the deepspeed learner, one rank over nccl
SHARDED: dict[str, tuple[str, dict[str, Any]]] = {
    **{f"zero{stage}": ("full", {"zero_stage": stage}) for stage in (0, 1, 2, 3)},
    "zero2 lora": ("lora", {"zero_stage": 2}),
    "zero3 lora": ("lora", {"zero_stage": 3}),
    "zero3 with a reference": ("kl", {"zero_stage": 3}),
    "zero2 offloaded": ("full", {"zero_stage": 2, "offload_optimizer": True}),
    "zero3 offloaded": ("full", {"zero_stage": 3, "offload_optimizer": True, "offload_param": True}),
}


@pytest.fixture(scope="module")
def on_cpu() -> dict[str, tuple[dict[str, float], dict[str, torch.Tensor]]]:
    """By kind: metrics and weights of the local learner on the CPU."""
    found = {}
    for kind in KINDS:
        learner = make(kind)
        found[kind] = (train(learner, kind, 0, FIRST), weights(learner))
    return found


def same(learner: Any, kind: str, on_cpu: Any, near: float = NEAR) -> None:
    metrics = train(learner, kind, 0, FIRST)
    expected, values = on_cpu[kind]
    assert farthest({name: tensor.cpu() for name, tensor in weights(learner).items()}, values) < near
    assert metrics["grad_norm"] == pytest.approx(expected["grad_norm"], rel=1e-3)


@pytest.mark.parametrize("name", LOCAL)
def test_local_gives_the_weights_of_the_cpu(name: str, on_cpu: Any) -> None:
    kind, fields = LOCAL[name]
    same(make(kind, **GPU, **fields), kind, on_cpu)


def _with_liger(ranks: Ranks, folder: Path, policy: Path) -> None:
    learner = make("full", model=policy, liger=True, **GPU)
    metrics = train(learner, "full", 0, FIRST)
    keep(folder, "liger", ranks, metrics, {k: v.cpu() for k, v in weights(learner).items()})


def test_liger_gives_the_weights_of_the_cpu(policy_folder: Path, tmp_path: Path) -> None:
    """In a process of its own: liger also replaces functions that all models of this kind use."""
    pytest.importorskip("liger_kernel")
    expected = make("full", model=policy_folder)
    train(expected, "full", 0, FIRST)
    on_ranks(1, _with_liger, tmp_path, policy_folder)
    _, mine = torch.load(tmp_path / "liger-rank0.pt")
    assert farthest(mine, weights(expected)) < NEAR


def test_bfloat16_keeps_float32_weights_near_those_of_float32(on_cpu: Any, tmp_path: Path) -> None:
    learner = make("full", dtype="bfloat16", **GPU)
    metrics = train(learner, "full", 0, FIRST)
    expected, values = on_cpu["full"]
    mine = weights(learner)
    assert {tensor.dtype for tensor in mine.values()} == {torch.bfloat16}, "what samplers get"
    learner.save_state(tmp_path / "state")
    master = load_file(tmp_path / "state" / "trainable.safetensors")
    assert all(not torch.equal(tensor, tensor.bfloat16().float()) for tensor in master.values())
    assert metrics["grad_norm"] == pytest.approx(expected["grad_norm"], rel=0.1)
    assert farthest(master, {name: values[name] for name in master}) < 2 * FIRST * 1e-3


def test_4_bits_are_rounded_as_on_the_cpu_and_learned_on(policy_folder: Path) -> None:
    pytest.importorskip("bitsandbytes")
    expected = make("lora", model=policy_folder, **NF4)
    train(expected, "lora", 0, FIRST)
    mine = make("lora", model=policy_folder, **NF4, **GPU)
    train(mine, "lora", 0, FIRST)
    assert farthest({k: v.cpu() for k, v in weights(mine).items()}, weights(expected)) < 1e-2


def test_a_state_moves_from_the_gpu_to_the_cpu_and_is_gone_on_with_to_the_bit(tmp_path: Path) -> None:
    first = make("full", **GPU)
    train(first, "full", 0, FIRST)
    first.save_state(tmp_path / "state")
    train(first, "full", FIRST, LAST)
    on = make("full", **GPU)
    on.load_state(tmp_path / "state")
    train(on, "full", FIRST, LAST)
    assert farthest(weights(on), weights(first)) == 0
    moved = make("full")
    moved.load_state(tmp_path / "state")
    train(moved, "full", FIRST, LAST)
    assert farthest(weights(moved), {k: v.cpu() for k, v in weights(first).items()}) < NEAR


def _sharded(ranks: Ranks, folder: Path, policy: Path) -> None:
    for name, (kind, fields) in SHARDED.items():
        learner = make(kind, ranks, **{**fields, "device": "auto"})
        metrics = train(learner, kind, 0, FIRST)
        keep(folder, name, ranks, metrics, {k: v.cpu() for k, v in weights(learner).items()})
    for name, fields in BFLOAT16.items():
        learner = make("full", ranks, dtype="bfloat16", **{**fields, "device": "auto"})
        metrics = train(learner, "full", 0, FIRST)
        learner.save_state(folder / f"bfloat16-{name}-state")
        keep(folder, f"bfloat16-{name}", ranks, metrics, {k: v.cpu() for k, v in weights(learner).items()})
    learner = make("lora", ranks, model=policy, **{**NF4, "zero_stage": 2, "device": "auto"})
    metrics = train(learner, "lora", 0, FIRST)
    keep(folder, "nf4", ranks, metrics, {k: v.cpu() for k, v in weights(learner).items()})


@pytest.fixture(scope="module")
def sharded(tmp_path_factory: pytest.TempPathFactory, policy_folder: Path) -> Path:
    folder = tmp_path_factory.mktemp("sharded")
    on_ranks(1, _sharded, folder, policy_folder)
    return folder


@pytest.mark.parametrize("name", SHARDED)
def test_deepspeed_gives_the_weights_of_the_cpu(name: str, sharded: Path, on_cpu: Any) -> None:
    expected, values = on_cpu[SHARDED[name][0]]
    metrics, mine = torch.load(sharded / f"{name}-rank0.pt")
    assert farthest(mine, values) < NEAR
    assert metrics["grad_norm"] == pytest.approx(expected["grad_norm"], rel=1e-3)


@pytest.mark.parametrize("name", BFLOAT16)
def test_deepspeed_in_bfloat16_keeps_float32_master_weights(name: str, sharded: Path, on_cpu: Any) -> None:
    metrics, mine = torch.load(sharded / f"bfloat16-{name}-rank0.pt")
    assert {tensor.dtype for tensor in mine.values()} == {torch.bfloat16}
    assert metrics["grad_norm"] == pytest.approx(on_cpu["full"][0]["grad_norm"], rel=0.1)
    master = load_file(sharded / f"bfloat16-{name}-state" / "trainable.safetensors")
    assert all(not torch.equal(tensor, tensor.bfloat16().float()) for tensor in master.values())


def test_deepspeed_on_4_bits_gives_what_local_gives(sharded: Path, policy_folder: Path) -> None:
    local = make("lora", model=policy_folder, **NF4, **GPU)
    train(local, "lora", 0, FIRST)
    _, mine = torch.load(sharded / "nf4-rank0.pt")
    assert farthest(mine, {k: v.cpu() for k, v in weights(local).items()}) < 1e-3
