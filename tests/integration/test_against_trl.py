"""Our loss and advantages against TRL's GRPO trainer on the same tensors (skipped where TRL is not installed)."""

from __future__ import annotations

import contextlib
from collections import defaultdict
from types import SimpleNamespace

import pytest
import torch

from memfactory.algorithms.losses import policy_loss
from memfactory.learners.local import LocalLearner

from ..unit.learners.models import random_model, random_rows

CALLS, TOKENS = 5, 7


@pytest.fixture(scope="module")
def trainer_class():
    pytest.importorskip("trl")
    from trl import GRPOTrainer

    return GRPOTrainer


def tensors():
    generator = torch.Generator().manual_seed(0)
    logp, old, behaviour, reference = (-torch.rand(4, CALLS, TOKENS, generator=generator) * 2).unbind()
    lengths = torch.tensor([7, 1, 4, 6, 2])
    mask = (torch.arange(TOKENS) < lengths[:, None]).long()
    return logp, old, behaviour, reference, torch.randn(CALLS, generator=generator), mask


def trl_loss(
    trainer_class, logp, old, behaviour, reference, advantages, mask, *, loss_type, level, beta, cap
):
    """TRL's own `_compute_loss`, with the model's forward pass replaced by the given log-probs."""

    def same(value, **_):
        return value

    importance = None if cap is None else torch.exp(old - behaviour).clamp(max=cap)
    stub = SimpleNamespace(
        _get_per_token_logps_and_entropies=lambda *_, **__: (logp, torch.zeros_like(logp), None),
        aux_loss_enabled=False,
        top_entropy_quantile=1.0,
        off_policy_mask_threshold=None,
        importance_sampling_level=level,
        beta=beta,
        loss_type=loss_type,
        epsilon_low=0.2,
        epsilon_high=0.3,
        max_completion_length=9,
        use_vllm=cap is not None,
        vllm_importance_sampling_correction=cap is not None,
        current_gradient_accumulation_steps=1,
        _entropy_bonus_enabled=False,
        _metrics={"train": defaultdict(list)},
        model=SimpleNamespace(training=True),
        accelerator=SimpleNamespace(
            num_processes=1, reduce=same, gather=same, autocast=contextlib.nullcontext
        ),
        args=SimpleNamespace(delta=None, use_bias_correction_kl=False, steps_per_generation=1),
    )
    inputs = {
        "prompt_ids": torch.zeros(CALLS, 1, dtype=torch.long),
        "prompt_mask": torch.ones(CALLS, 1, dtype=torch.long),
        "completion_ids": torch.zeros(CALLS, TOKENS, dtype=torch.long),
        "completion_mask": mask,
        "advantages": advantages,
        "old_per_token_logps": old,
        "ref_per_token_logps": reference,
        "importance_sampling_ratio": importance,
        "num_items_in_batch": mask.sum(),
    }
    return trainer_class._compute_loss(stub, None, inputs)


@pytest.mark.parametrize("beta", [0.0, 0.1])
@pytest.mark.parametrize("cap", [None, 1.5])
@pytest.mark.parametrize(
    ("loss_type", "level", "settings"),
    [
        ("dapo", "token", {"kind": "ppo_clip", "denominator": "token"}),
        ("grpo", "token", {"kind": "ppo_clip", "denominator": "call"}),
        ("dr_grpo", "token", {"kind": "ppo_clip", "denominator": "constant", "constant_length": 9}),
        ("grpo", "sequence", {"kind": "gspo", "denominator": "call"}),
        ("dapo", "sequence", {"kind": "gspo", "denominator": "token"}),
    ],
)
def test_loss_and_gradient_are_those_of_trl(trainer_class, loss_type, level, settings, beta, cap):
    logp, old, behaviour, reference, advantages, mask = tensors()
    mine, other = logp.clone().requires_grad_(), logp.clone().requires_grad_()
    expected = trl_loss(
        trainer_class, other, old, behaviour, reference, advantages, mask,
        loss_type=loss_type, level=level, beta=beta, cap=cap,
    )  # fmt: skip
    result = policy_loss(
        mine, behaviour, advantages, mask, clip_low=0.2, clip_high=0.3, old_logp=old, tis_cap=cap,
        ref_logp=reference if beta else None, kl_coef=beta, **settings,
    )  # fmt: skip
    torch.testing.assert_close(result.loss, expected)
    result.loss.backward()
    expected.backward()
    torch.testing.assert_close(mine.grad, other.grad)


@pytest.mark.parametrize("temperature", [0.7, 1.3])
def test_log_probs_at_a_temperature_are_those_of_trl(trainer_class, temperature):
    from trl.trainer.utils import add_fused_lm_head

    model, rows = random_model(), random_rows()
    add_fused_lm_head(model, temperature=temperature)
    stub = SimpleNamespace(
        model_kwarg_keys=set(),
        args=SimpleNamespace(report_to=[]),
        accelerator=SimpleNamespace(autocast=contextlib.nullcontext, is_main_process=False),
    )
    scored = LocalLearner(model=random_model(), device="cpu").logprobs(rows, temperature)
    for row, mine in zip(rows, scored, strict=True):
        ids = torch.tensor([row.prompt_ids + row.completion_ids])
        theirs = trainer_class._get_per_token_logps_and_entropies(
            stub, model, ids, torch.ones_like(ids), len(row.completion_ids)
        )[0]
        torch.testing.assert_close(torch.tensor([mine]), theirs, atol=3e-5, rtol=1e-4)
