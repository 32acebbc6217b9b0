"""What a learner refuses before it loads a model, and what it asks of liger."""

from __future__ import annotations

import sys
import types
from typing import Any

import pytest
import torch

from memfactory.core.errors import BadInput
from memfactory.learners.loading import apply_liger, liger_options, require_packages
from memfactory.learners.local import LocalLearner, LocalLearnerConfig

from .models import random_model

GPU = torch.device("cuda")


def test_liger_needs_a_gpu_its_package_and_a_known_architecture(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(BadInput, match=r"learner\.liger needs a GPU .* runs on 'cpu'"):
        LocalLearner(model=random_model(), device="cpu", liger=True)
    config = LocalLearnerConfig(liger=True)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(BadInput, match=r"pip install 'memfactory\[liger\]'"):
        require_packages(config, GPU)
    _pretend_liger(monkeypatch, {})
    with pytest.raises(BadInput, match="no kernels for models of type 'qwen3'"):
        apply_liger(random_model())


def test_liger_gets_the_loaded_model_and_none_of_its_losses(monkeypatch: pytest.MonkeyPatch) -> None:
    """The signature is that of liger-kernel 0.8.5."""
    asked: dict[str, Any] = {}

    def apply_liger_kernel_to_qwen3(
        rope: bool = True,
        cross_entropy: bool = False,
        fused_linear_cross_entropy: bool = True,
        rms_norm: bool = True,
        swiglu: bool = True,
        model: Any = None,
    ) -> None:
        asked.update(
            rope=rope,
            cross_entropy=cross_entropy,
            fused_linear_cross_entropy=fused_linear_cross_entropy,
            rms_norm=rms_norm,
            swiglu=swiglu,
            model=model,
        )

    _pretend_liger(monkeypatch, {"qwen3": apply_liger_kernel_to_qwen3})
    model = random_model()
    apply_liger(model)
    assert asked.pop("model") is model
    assert asked == liger_options(apply_liger_kernel_to_qwen3)
    assert asked == {
        "rope": True,
        "cross_entropy": False,
        "fused_linear_cross_entropy": False,
        "rms_norm": True,
        "swiglu": True,
    }


def _pretend_liger(monkeypatch: pytest.MonkeyPatch, functions: dict[str, Any]) -> None:
    module = types.ModuleType("liger_kernel.transformers.monkey_patch")
    module.MODEL_TYPE_TO_APPLY_LIGER_FN = functions  # type: ignore[attr-defined]
    for name in ("liger_kernel", "liger_kernel.transformers"):
        monkeypatch.setitem(sys.modules, name, types.ModuleType(name))
    monkeypatch.setitem(sys.modules, module.__name__, module)


def test_flash_attention_needs_a_gpu_bfloat16_and_its_package(monkeypatch: pytest.MonkeyPatch) -> None:
    config = LocalLearnerConfig(attention="flash_attention_2", dtype="bfloat16", packing=True)
    with pytest.raises(BadInput, match=r"learner\.attention .* needs a GPU"):
        LocalLearner(model=random_model(), device="cpu", attention="flash_attention_2", dtype="bfloat16")
    with pytest.raises(BadInput, match=r"learner\.dtype=bfloat16"):
        require_packages(LocalLearnerConfig(attention="flash_attention_2"), GPU)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(BadInput, match="flash-attn"):
        require_packages(config, GPU)
