"""LoRA on a base in 4 bits: it learns, goes on from its state, and hands out what it computes with."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from memfactory.algorithms.objective import Objective
from memfactory.core.errors import BadInput
from memfactory.learners.local import LocalLearner, LocalLearnerConfig
from memfactory.samplers.sync import check_parity, sync_and_check

from ..unit.learners.models import plain_logprobs, random_model, random_rows

pytest.importorskip("bitsandbytes")

SUPERVISED = Objective(kind="reinforce")
NF4: dict[str, Any] = {"quantization": "nf4", "lora_rank": 4, "lora_alpha": 8, "lr": 1e-2, "device": "cpu"}


@pytest.fixture(scope="module")
def small_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random model of some ten thousand weights in rows of whole blocks, without a tokenizer."""
    folder = tmp_path_factory.mktemp("small")
    random_model(tie_word_embeddings=True, hidden_size=64, intermediate_size=128).save_pretrained(folder)
    return folder


def learner(folder: Path, **settings: Any) -> LocalLearner:
    return LocalLearner(model=folder, tokenizer=_NoTokenizer(), **{**NF4, **settings})


class _NoTokenizer:
    def save_pretrained(self, folder: Path) -> None:
        """Nothing to save."""


def test_it_learns_on_a_base_that_stays_packed(small_folder: Path) -> None:
    mine = learner(small_folder)
    base = {name: p for name, p in mine._model.named_parameters() if not p.requires_grad}
    packed = {name: p.data.clone() for name, p in base.items() if getattr(p, "quant_state", None) is not None}
    assert len(packed) == 14 and all(p.dtype == torch.uint8 for p in packed.values())
    rows = random_rows()
    rows = [type(row)(row.prompt_ids, row.completion_ids, (), 1.0, row.rollout_id) for row in rows]
    losses = [mine.update(rows, SUPERVISED)["loss"] for _ in range(6)]
    assert losses[-1] < losses[0] - 0.3
    assert all(torch.equal(base[name].data, before) for name, before in packed.items())


def test_rounding_to_4_bits_is_small_and_there(small_folder: Path) -> None:
    whole = LocalLearner(model=small_folder, tokenizer=_NoTokenizer(), device="cpu")
    exact, mine = dict(whole.named_weights()), dict(learner(small_folder).named_weights())
    assert exact.keys() == mine.keys()
    for name, weight in mine.items():
        assert weight.shape == exact[name].shape and weight.dtype == torch.float32
        off = ((weight - exact[name]).norm() / exact[name].norm()).item()
        assert (0.02 < off < 0.15) if name.endswith("_proj.weight") else off == 0, name


def test_rows_that_are_not_whole_blocks_are_right_or_refused(tmp_path: Path) -> None:
    """It depends on the CPU: kernels for AVX512 unpack such rows to other weights, without an error."""
    random_model(tie_word_embeddings=True).save_pretrained(tmp_path)  # rows of 32 and 48
    try:
        mine = learner(tmp_path)
    except BadInput:
        with pytest.raises(
            BadInput, match=r"learner\.quantization: bitsandbytes unpacks rows of (32|48) weights"
        ):
            learner(tmp_path)
        return
    whole = LocalLearner(model=tmp_path, tokenizer=_NoTokenizer(), device="cpu")
    for (name, exact), (_, weight) in zip(whole.named_weights(), mine.named_weights(), strict=True):
        assert ((weight - exact).norm() / exact.norm()).item() < 0.15, name


@pytest.mark.parametrize("targets", [["all-linear"], ["q_proj", "down_proj"]])
def test_merged_weights_are_what_it_computes_with(
    tmp_path: Path, small_folder: Path, targets: list[str]
) -> None:
    from transformers import AutoModelForCausalLM

    mine, rows = learner(small_folder, lora_targets=targets), random_rows()
    mine.update(rows, Objective())
    mine.save_policy(tmp_path / "final")
    assert "quantization_config" not in json.loads((tmp_path / "final" / "config.json").read_text())
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path / "final")
    with torch.no_grad():
        for row, scores in zip(rows, mine.logprobs(rows), strict=True):
            torch.testing.assert_close(
                plain_logprobs(loaded, row), torch.tensor(scores), atol=3e-5, rtol=1e-4
            )


def test_the_state_holds_adapters_only_and_is_gone_on_with(tmp_path: Path, small_folder: Path) -> None:
    from safetensors.torch import load_file

    one = learner(small_folder)
    one.update(random_rows(), Objective())
    one.save_state(tmp_path)
    assert all("lora_" in name for name in load_file(tmp_path / "trainable.safetensors"))
    two = learner(small_folder)
    two.load_state(tmp_path)
    for each in (one, two):
        each.update(random_rows(seed=1), Objective())
    ours, theirs = dict(one.named_weights()), dict(two.named_weights())
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)


def test_a_sampler_gets_the_merged_weights(hf_sampler: Any, policy_folder: Path, prompts: Any) -> None:
    before = dict(LocalLearner(model=policy_folder, device="cpu").named_weights())
    mine = LocalLearner(model=policy_folder, **NF4)
    try:
        with pytest.raises(Exception, match="differ by up to"):
            check_parity(hf_sampler, mine, prompts[:4], 1e-3)  # it holds the weights that were not rounded
        assert sync_and_check(hf_sampler, mine, prompts[:4], 1e-3, version=1)["sync/parity_max"] < 1e-3
    finally:
        hf_sampler.load_weights(before.items(), version=0)


def test_what_is_refused(small_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from memfactory.learners.deepspeed import DeepSpeedLearnerConfig

    with pytest.raises(BadInput, match=r"learner\.quantization needs adapters.*learner\.lora_rank"):
        LocalLearnerConfig(quantization="nf4")
    with pytest.raises(BadInput, match=r"learner\.zero_stage 0, 1 or 2"):
        DeepSpeedLearnerConfig(quantization="nf4", lora_rank=4, zero_stage=3)
    with pytest.raises(BadInput, match="folder of a model"):
        LocalLearner(model=random_model(), **NF4)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(BadInput, match=r"pip install 'memfactory\[qlora\]'"):
        learner(small_folder)
