"""Adapters on embeddings: refused where input and output share them, trained truly where they do not."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from memfactory.algorithms.objective import Objective
from memfactory.core.errors import BadInput
from memfactory.learners.adapters import add_lora, merged_weights
from memfactory.learners.local import LocalLearner
from tests.unit.learners.models import random_model, random_rows

BOTH = ["lm_head", "embed_tokens"]


@pytest.mark.parametrize(
    "targets", [["lm_head"], ["embed_tokens"], ["q_proj", "lm_head"], ["model.embed_tokens"]]
)
@pytest.mark.parametrize("kind", ["qwen3", "gemma2"])
def test_tied_embeddings_are_refused(kind: str, targets: list[str]) -> None:
    with pytest.raises(BadInput, match=r"^learner\.lora_targets: '.*' shares its weights with '.*' \(tied"):
        add_lora(random_model(kind), rank=2, alpha=4, dropout=0.0, targets=targets, seed=0)


def test_all_linear_leaves_tied_embeddings_out() -> None:
    model = add_lora(random_model(), rank=2, alpha=4, dropout=0.0, targets="all-linear", seed=0)
    assert not [
        name for name, p in model.named_parameters() if p.requires_grad and ("head" in name or "emb" in name)
    ]


@pytest.mark.parametrize("target", BOTH)
def test_untied_ones_reach_the_saved_policy(target: str, tmp_path: Path) -> None:
    from transformers import AutoModelForCausalLM

    base = random_model(tie_word_embeddings=False)
    before = {name: p.detach().clone() for name, p in base.named_parameters()}
    learner = LocalLearner(model=base, device="cpu", lr=0.05, lora_rank=2, lora_targets=[target])
    rows = random_rows(8)
    for _ in range(2):
        learner.update(rows, Objective())
    learner.save_policy(tmp_path / "final")
    saved = AutoModelForCausalLM.from_pretrained(tmp_path / "final")
    changed = [n for n, p in saved.named_parameters() if not torch.equal(p, before[n])]
    assert changed == [{"lm_head": "lm_head.weight", "embed_tokens": "model.embed_tokens.weight"}[target]]
    whole = LocalLearner(model=saved, device="cpu", lr=0.0)
    for mine, theirs in zip(learner.logprobs(rows), whole.logprobs(rows), strict=True):
        assert mine == pytest.approx(theirs, abs=1e-4)
    learner.adapter().write(tmp_path / "adapter")
    again = random_model(tie_word_embeddings=False)
    from peft import PeftModel

    loaded = PeftModel.from_pretrained(again, tmp_path / "adapter")
    for name, tensor in merged_weights(loaded):
        assert torch.allclose(tensor, dict(saved.named_parameters())[name], atol=1e-5), name
