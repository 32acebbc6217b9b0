"""Weights go from learner to sampler, and a sampler that did not get them is found out."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from memfactory.algorithms.objective import Objective
from memfactory.core.errors import BadInput, ParityError
from memfactory.core.types import Row, SamplingParams, SamplingRequest
from memfactory.learners.local import LocalLearner
from memfactory.samplers.hf import HfSampler
from memfactory.samplers.roles import Cast
from memfactory.samplers.scripted import ScriptedSampler
from memfactory.samplers.sync import check_parity, sync_and_check
from memfactory.samplers.vllm import VllmSampler
from tests.integration.conftest import MAX_MODEL_LEN
from tests.tiny_models import ScoringLearner, random_policy

THRESHOLD = 1e-3


@pytest.fixture(params=[pytest.param("vllm", marks=pytest.mark.vllm), "hf"])
def sampler(request: pytest.FixtureRequest, policy_folder: Path) -> Iterator[Any]:
    sampler = request.getfixturevalue(f"{request.param}_sampler")
    yield sampler
    sampler.load_weights(ScoringLearner(policy_folder).named_weights(), version=0)


def test_synced_weights_pass_and_prefixes_are_forgotten(
    sampler: Any, policy_folder: Path, prompts: Any
) -> None:
    learner = ScoringLearner(policy_folder)
    for version in (1, 2, 3):
        learner.perturb(seed=version)
        metrics = sync_and_check(sampler, learner, prompts[:6], THRESHOLD, version)
        assert 0 <= metrics["sync/parity_mean"] <= metrics["sync/parity_max"] < THRESHOLD
        assert metrics["sync/seconds"] > 0
        assert sampler.policy_version == version
    request = SamplingRequest(prompts[0], SamplingParams(max_tokens=4), seed=0)
    assert asyncio.run(sampler.sample(request)).policy_version == 3


def test_stale_weights_are_found_out(sampler: Any, policy_folder: Path, prompts: Any) -> None:
    learner = ScoringLearner(policy_folder)
    check_parity(sampler, learner, prompts[:6], THRESHOLD)
    check_parity(sampler, learner, prompts[:6], THRESHOLD, temperature=0.7)
    learner.perturb(seed=9)
    with pytest.raises(ParityError, match=r"differ by up to [\d.]+ nats .* threshold 0.001"):
        check_parity(sampler, learner, prompts[:6], THRESHOLD)


def test_not_a_number_is_found_out(sampler: Any, policy_folder: Path, prompts: Any) -> None:
    learner = ScoringLearner(policy_folder)
    learner.logprobs = lambda rows, temperature: [[float("nan")] * len(row.completion_ids) for row in rows]  # type: ignore
    with pytest.raises(ParityError, match="nan"):
        check_parity(sampler, learner, prompts[:2], THRESHOLD)


@pytest.mark.vllm
def test_a_stale_tied_output_layer_is_found_out(
    vllm_sampler: Any, policy_folder: Path, prompts: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The trap: without the repacking a CPU engine keeps the old output layer, and only warns."""
    import memfactory.samplers.vllm_engine as engine

    learner = ScoringLearner(policy_folder)
    learner.perturb(seed=5)
    try:
        with monkeypatch.context() as patch:
            patch.setattr(engine, "repack_tied_head", lambda model: None)
            with pytest.raises(ParityError):
                sync_and_check(vllm_sampler, learner, prompts[:6], THRESHOLD, version=1)
        sync_and_check(vllm_sampler, learner, prompts[:6], THRESHOLD, version=1)
    finally:
        vllm_sampler.load_weights(ScoringLearner(policy_folder).named_weights(), version=0)


def deaf(sampler: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the engine take weights without a word, and keep those it has."""
    monkeypatch.setattr(sampler._engine, "load_weights", lambda tensors: [None for _ in tensors])


def test_a_sampler_that_takes_no_weights_is_stopped_at_the_first_sync(
    sampler: Any, policy_folder: Path, prompts: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The learner's weights are still those of the sampler, so log-probabilities agree to the last bit."""
    learner = ScoringLearner(policy_folder)
    metrics = sync_and_check(sampler, learner, prompts[:4], THRESHOLD, version=0, first=True)
    assert metrics["sync/tensors_compared"] == len(list(learner.named_weights()))
    assert metrics["sync/tensors_unread"] == 0
    with monkeypatch.context() as patch:
        deaf(sampler, patch)
        with pytest.raises(ParityError, match=r"weights of version 0 did not arrive: .* tensors differ"):
            sync_and_check(sampler, learner, prompts[:4], 0.2, version=0, first=True)
        patch.setattr(sampler._engine, "load_weights", lambda tensors: None)  # not even read
        with pytest.raises(ParityError, match="did not arrive"):
            sync_and_check(sampler, learner, prompts[:4], 0.2, version=0, first=True)
        learner.perturb(seed=1, scale=1e-6)  # a step at a real learning rate
        with pytest.raises(ParityError, match="did not arrive"):
            sync_and_check(sampler, learner, prompts[:4], 0.2, version=1)


def test_what_was_sent_first_leaves_nothing_behind(sampler: Any, policy_folder: Path, prompts: Any) -> None:
    learner = ScoringLearner(policy_folder)
    learner.perturb(seed=3)
    request = SamplingRequest(prompts[0], SamplingParams(temperature=1.0, max_tokens=12), seed=5)
    sync_and_check(sampler, learner, prompts[:4], THRESHOLD, version=1)
    before = asyncio.run(sampler.sample(request))
    sync_and_check(sampler, learner, prompts[:4], THRESHOLD, version=1, first=True)
    assert asyncio.run(sampler.sample(request)) == before


@pytest.mark.parametrize("lost", ["model.norm.weight", "model.layers.0.self_attn.k_proj.weight"])
@pytest.mark.vllm
def test_one_tensor_that_does_not_come_is_named(
    vllm_sampler: Any, policy_folder: Path, prompts: Any, lost: str
) -> None:
    learner = ScoringLearner(policy_folder)
    weights = dict(learner.named_weights())
    del weights[lost]
    learner.named_weights = lambda: iter(weights.items())  # type: ignore[method-assign]
    try:
        with pytest.raises(ParityError, match=r"did not (arrive|come)"):
            sync_and_check(vllm_sampler, learner, prompts[:2], 0.2, version=1)
    finally:
        vllm_sampler.load_weights(ScoringLearner(policy_folder).named_weights(), version=0)


@pytest.mark.vllm
def test_one_tensor_that_the_engine_drops_is_named(
    vllm_sampler: Any, policy_folder: Path, prompts: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    learner = ScoringLearner(policy_folder)
    load = vllm_sampler._engine.load_weights
    lost = "model.layers.1.mlp.up_proj.weight"
    try:
        with monkeypatch.context() as patch:
            patch.setattr(
                vllm_sampler._engine,
                "load_weights",
                lambda tensors: load((n, t) for n, t in tensors if n != lost),
            )
            with pytest.raises(ParityError, match=f"'{lost}' first"):
                sync_and_check(vllm_sampler, learner, prompts[:2], 0.2, version=1, first=True)
    finally:
        vllm_sampler.load_weights(ScoringLearner(policy_folder).named_weights(), version=0)


class AdapterSampler(HfSampler):
    """Takes adapters as vLLM does: from the folder, beside weights that stay; peft reads them."""

    takes_adapters = True

    def __init__(self, folder: Path, codec: Any, work: Path) -> None:
        super().__init__(device="cpu", model_folder=folder, codec=codec, max_model_len=MAX_MODEL_LEN)
        self._base, self._work = folder, work

    def load_adapter(self, adapter: Any, version: int) -> None:
        from peft import PeftModel

        from memfactory.models.load import load_policy

        folder = self._work / str(version)
        folder.mkdir()
        adapter.write(folder)
        self._engine.model = PeftModel.from_pretrained(load_policy(self._base, device="cpu"), folder).eval()
        self.policy_version = self._engine.policy_version = version


def test_what_an_adapter_folder_holds_is_the_policy(
    policy_folder: Path, codec: Any, prompts: Any, tmp_path: Path
) -> None:
    learner = LocalLearner(model=policy_folder, device="cpu", lr=0.05, lora_rank=3, lora_alpha=8)
    sampler = Cast(AdapterSampler(policy_folder, codec, tmp_path))
    learner.update(adapter_rows(prompts), Objective())
    with pytest.raises(ParityError):
        check_parity(sampler, learner, prompts[:4], THRESHOLD)
    assert sync_and_check(sampler, learner, prompts[:4], THRESHOLD, 1)["sync/parity_max"] < THRESHOLD
    assert sampler.policy_version == 1
    whole = LocalLearner(model=policy_folder, device="cpu")
    with pytest.raises(BadInput, match=r"learner\.lora_rank"):
        sync_and_check(sampler, whole, prompts[:4], THRESHOLD, 2)


def adapter_rows(prompts: Any) -> list[Row]:
    return [Row(tuple(ids), (11, 12, 13), (-5.0,) * 3, 1.0, n) for n, ids in enumerate(prompts[:4])]


@pytest.mark.vllm
def test_adapters_alone_are_synced(policy_folder: Path, codec: Any, prompts: Any, tmp_path: Path) -> None:
    learner = LocalLearner(model=policy_folder, device="cpu", lr=0.05, lora_rank=3, lora_alpha=8)
    engine = VllmSampler(
        kv_cache_gb=0.1,
        max_num_seqs=16,
        adapter_sync=True,
        model_folder=policy_folder,
        codec=codec,
        max_model_len=128,
        lora_rank=3,
    )
    sampler = Cast(engine)
    try:
        check_parity(sampler, learner, prompts[:4], THRESHOLD)  # adapters begin as nothing
        for version in (1, 2, 2):  # the same version comes again after an evaluation
            learner.update(adapter_rows(prompts), Objective())
            with pytest.raises(ParityError):
                check_parity(sampler, learner, prompts[:4], THRESHOLD)
            metrics = sync_and_check(sampler, learner, prompts[:4], THRESHOLD, version, first=True)
            assert metrics["sync/parity_max"] < THRESHOLD
            assert metrics["sync/tensors_compared"] == len(learner.adapter().tensors)
            assert metrics["sync/tensors_unread"] == 0
            assert sampler.policy_version == version
        put = engine._engine._adapters.put
        engine._engine._adapters.put = lambda llm, adapter: None
        learner.update(adapter_rows(prompts), Objective())
        with pytest.raises(ParityError, match="adapters of version 3 did not arrive"):
            sync_and_check(sampler, learner, prompts[:4], 5.0, 3)
        engine._engine._adapters.put = put
        other = LocalLearner(model=random_policy(tmp_path / "other", seed=9), device="cpu", lora_rank=3)
        with pytest.raises(ParityError, match="weights of version"):
            sync_and_check(sampler, other, prompts[:4], 5.0, 3, first=True)
        with pytest.raises(RuntimeError, match="takes adapters"):
            sampler.load_weights(learner.named_weights(), 3)
    finally:
        sampler.close()


@pytest.mark.vllm
def test_torch_threads_are_left_to_the_learner(vllm_sampler: Any) -> None:
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        assert torch.get_num_threads() == 1
    finally:
        torch.set_num_threads(before)


def test_hf_names_the_weight_that_does_not_fit(hf_sampler: Any, policy_folder: Path) -> None:
    weights = dict(ScoringLearner(policy_folder).named_weights())
    name = "model.norm.weight"
    with pytest.raises(BadInput, match="no weight 'nonsense'"):
        hf_sampler.load_weights([("nonsense", weights[name])], 1)
    with pytest.raises(BadInput, match="has shape"):
        hf_sampler.load_weights([(name, weights[name][:3])], 1)
    with pytest.raises(BadInput, match=f"'{name}'"):
        hf_sampler.load_weights([(n, w) for n, w in weights.items() if n != name], 1)
    assert hf_sampler.policy_version == 0


def test_a_sampler_without_logprobs_cannot_train(policy_folder: Path) -> None:
    from memfactory.core.types import Completion

    sampler = ScriptedSampler([Completion((), (), "stop", text="hello")], takes_weights=True)
    with pytest.raises(BadInput, match="log-probabilities"):
        sync_and_check(sampler, ScoringLearner(policy_folder), [(11, 12)], THRESHOLD, version=1)
    with pytest.raises(BadInput, match="prompt"):
        check_parity(sampler, ScoringLearner(policy_folder), [], THRESHOLD)


@pytest.mark.vllm
def test_an_engine_starts_in_a_process_that_has_loaded_numba(policy_folder: Path) -> None:
    code = (
        "import sys; from pathlib import Path; import numba, llvmlite.binding\n"
        "from memfactory.models.text import TextCodec; from memfactory.samplers.vllm import VllmSampler\n"
        "folder = Path(sys.argv[1]); codec = TextCodec.from_folder(folder)\n"
        "VllmSampler(kv_cache_gb=0.1, model_folder=folder, codec=codec, max_model_len=64).close()\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(policy_folder)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-1500:]
