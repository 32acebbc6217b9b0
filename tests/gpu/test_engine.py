"""vLLM on a GPU: the learner's log-probabilities after each sync, memory given back while it sleeps, servers."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from memfactory.algorithms.objective import Objective
from memfactory.core.errors import BadInput, ParityError
from memfactory.core.types import Row
from memfactory.learners.local import LocalLearner
from memfactory.models.text import TextCodec
from memfactory.samplers.sync import check_parity, sync_and_check
from memfactory.samplers.vllm import VllmSampler
from memfactory.samplers.vllm_server import VllmServerSampler
from tests.integration.conftest import MAX_MODEL_LEN
from tests.integration.test_vllm_server import requests_for, sample

#: Largest difference of log-probabilities, in nats, between sampler and learner.
THRESHOLD = {"float32": 5e-3, "bfloat16": 0.25}


def rows(prompts: Any) -> list[Row]:
    return [Row(tuple(ids), (11, 12, 13), (-5.0,) * 3, 1.0, n) for n, ids in enumerate(prompts[:4])]


def learner_of(folder: Path, **fields: Any) -> LocalLearner:
    return LocalLearner(**{"model": folder, "device": "cuda", "lr": 0.02, **fields})


def free() -> int:
    torch.cuda.synchronize()
    torch.cuda.empty_cache()
    return int(torch.cuda.mem_get_info()[0])


@pytest.fixture(
    params=[("float32", False, False), ("bfloat16", True, False), ("bfloat16", True, True)],
    ids=["float32", "bfloat16 that sleeps", "adapters that sleep"],
)
def case(request: Any, policy_folder: Path, codec: TextCodec) -> Iterator[tuple[str, bool, Any, Any]]:
    """dtype, whether it sleeps, sampler, learner; CUDA graphs as by default."""
    dtype, sleeps, adapters = request.param
    lora = {"lora_rank": 3, "lora_alpha": 8} if adapters else {}
    learner = learner_of(policy_folder, dtype=dtype, **lora)
    sampler = VllmSampler(
        gpu_memory_utilization=0.05,
        max_num_seqs=32,
        sleep=sleeps,
        adapter_sync=adapters,
        model_folder=policy_folder,
        codec=codec,
        max_model_len=MAX_MODEL_LEN,
        dtype=dtype,
        lora_rank=3 if adapters else 0,
    )
    yield dtype, sleeps, sampler, learner
    sampler.close()


def test_draws_repeat_and_each_sync_is_the_learner(case: Any, prompts: Any) -> None:
    dtype, sleeps, sampler, learner = case
    requests = requests_for(prompts)
    first = sample(sampler, requests)
    again = sample(sampler, requests)
    # Batches grow and shrink alike, so the same kernels run.
    assert [c.token_ids for c in again] == [c.token_ids for c in first]
    check_parity(sampler, learner, prompts[:6], THRESHOLD[dtype])
    for version in (1, 2):
        before = free()
        sampler.sleep()
        given = free() - before
        if sleeps:
            total = torch.cuda.mem_get_info()[1]
            assert given > 0.02 * total, f"{given / 2**30:.2f} GiB came back of {0.05 * total / 2**30:.2f}"
        else:
            assert abs(given) < 2**26
        learner.update(rows(prompts), Objective())
        if not sleeps:
            with pytest.raises(ParityError):
                check_parity(sampler, learner, prompts[:6], THRESHOLD[dtype] / 5)
        metrics = sync_and_check(sampler, learner, prompts[:6], THRESHOLD[dtype], version)
        assert metrics["sync/parity_max"] < THRESHOLD[dtype]
        assert sampler.policy_version == version
    assert sample(sampler, requests) != first, "the policy has moved"


@pytest.fixture(params=["folder", "ipc"])
def server(request: Any, policy_folder: Path, codec: TextCodec) -> Iterator[VllmServerSampler]:
    sampler = VllmServerSampler(
        servers=1,
        gpu_memory_utilization=0.05,
        max_num_seqs=16,
        wait_s=300.0,
        transfer=request.param,
        model_folder=policy_folder,
        codec=codec,
        max_model_len=MAX_MODEL_LEN,
    )
    yield sampler
    sampler.close()


def test_a_server_gets_the_learners_weights(server: Any, policy_folder: Path, prompts: Any) -> None:
    learner = learner_of(policy_folder)
    before = sample(server, requests_for(prompts[:8]))
    for version in (1, 2):
        learner.update(rows(prompts), Objective())
        metrics = sync_and_check(server, learner, prompts[:6], THRESHOLD["float32"], version)
        assert metrics["sync/parity_max"] < THRESHOLD["float32"]
    after = sample(server, requests_for(prompts[:8]))
    assert [c.token_ids for c in after] != [c.token_ids for c in before]


def test_adapters_alone_in_float32_are_refused_in_a_line(policy_folder: Path, codec: TextCodec) -> None:
    with pytest.raises(BadInput, match=r"sampler\.adapter_sync: .* set model\.dtype=bfloat16"):
        VllmSampler(
            adapter_sync=True,
            model_folder=policy_folder,
            codec=codec,
            max_model_len=MAX_MODEL_LEN,
            lora_rank=3,
        )
