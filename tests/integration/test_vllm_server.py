"""Real `vllm serve` processes on a random policy: the draws of this process, synced weights, and one server killed."""

from __future__ import annotations

import asyncio
import os
import signal
import stat
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import psutil
import pytest

from memfactory.algorithms.objective import Objective
from memfactory.core.errors import ParityError
from memfactory.core.types import Completion, Row, SamplingParams, SamplingRequest
from memfactory.learners.local import LocalLearner
from memfactory.models.text import TextCodec
from memfactory.samplers.base import engines_of, figures_of
from memfactory.samplers.serve_command import serve_arguments
from memfactory.samplers.sync import check_parity, sync_and_check
from memfactory.samplers.vllm_client import VllmClient
from memfactory.samplers.vllm_server import VllmServerSampler
from tests.integration.conftest import MAX_MODEL_LEN
from tests.tiny_models import ScoringLearner

pytestmark = pytest.mark.vllm

MIXED = [
    SamplingParams(max_tokens=24),
    SamplingParams(temperature=0.0, max_tokens=9),
    SamplingParams(temperature=0.7, top_p=0.8, max_tokens=17),
    SamplingParams(temperature=1.3, top_k=20, max_tokens=31),
]


@pytest.fixture(scope="module")
def servers(policy_folder: Path, codec: TextCodec) -> Iterator[VllmServerSampler]:
    pytest.importorskip("vllm")
    sampler = VllmServerSampler(
        servers=2,
        kv_cache_gb=0.1,
        max_num_seqs=16,
        wait_s=900.0,
        server_args=("--enable-lora", "--max-loras=1", "--max-lora-rank=8"),
        model_folder=policy_folder,
        codec=codec,
        max_model_len=MAX_MODEL_LEN,
    )
    yield sampler
    sampler.close()


def sample(sampler: Any, requests: Sequence[SamplingRequest]) -> list[Completion]:
    async def main() -> list[Completion]:
        return await asyncio.gather(*(sampler.sample(request) for request in requests))

    return asyncio.run(main())


def requests_for(prompts: Sequence[tuple[int, ...]]) -> list[SamplingRequest]:
    return [SamplingRequest(ids, MIXED[n % len(MIXED)], seed=n) for n, ids in enumerate(prompts)]


def ids_of(completions: Sequence[Completion]) -> list[tuple[int, ...]]:
    return [completion.token_ids for completion in completions]


def processes_of(servers: VllmServerSampler, number: int) -> list[psutil.Process]:
    """The guard of a server and all below it."""
    process = servers._servers[number].process
    assert process is not None
    guard = psutil.Process(process._process.pid)  # type: ignore[union-attr]
    return [guard, *guard.children(recursive=True)]


def test_servers_draw_what_this_process_draws(servers: Any, hf_sampler: Any, prompts: Any) -> None:
    requests = requests_for(prompts[:16])
    drawn = sample(servers, requests)
    assert ids_of(drawn) == ids_of(sample(hf_sampler, requests))
    for engine in engines_of(servers):
        assert ids_of(sample(engine, requests)) == ids_of(drawn)


def test_each_server_has_the_learners_weights_tied_output_layer_included(
    servers: Any, policy_folder: Path, prompts: Any
) -> None:
    learner = ScoringLearner(policy_folder)
    assert learner.model.config.tie_word_embeddings
    before = ids_of(sample(servers, requests_for(prompts[:8])))
    for version in (1, 2):
        learner.perturb(seed=version)
        metrics = sync_and_check(servers, learner, prompts[:6], 1e-3, version)
        assert 0 <= metrics["sync/parity_mean"] <= metrics["sync/parity_max"] < 1e-3
    assert ids_of(sample(servers, requests_for(prompts[:8]))) != before


def test_nobody_else_can_ask_the_servers_of_a_run(servers: VllmServerSampler) -> None:
    """vLLM wants its key below /v1 and /inference only; its other endpoints run what they are sent."""
    for number, server in enumerate(servers._servers):
        assert server.process is not None
        folder = server.process.socket.parent
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700 and folder.stat().st_uid == os.getuid()
        family = processes_of(servers, number)
        assert f"--uds={server.process.socket}" in family[1].cmdline(), "and so no port"
        client = VllmClient(server.client.url, 60.0)
        for method, path in (
            ("GET", "v1/models"),
            ("POST", "v1/completions"),
            ("POST", "inference/v1/generate"),
        ):
            assert client._http.ask(method, path, {}, seconds=60.0).status == 401
        key = family[1].environ()["VLLM_API_KEY"]
        assert len(key) > 40 and not any(key in " ".join(process.cmdline()) for process in family)
        assert key not in server.process.log.read_text(errors="replace")


def test_a_server_killed_in_the_middle_costs_no_rollout(servers: Any, prompts: Any) -> None:
    """kill -9 of one server's own process, whose engine would go on living without it."""
    requests = requests_for(prompts[:24])
    expected = sample(servers, requests)
    retries = figures_of(servers)["servers/retries"]
    old = processes_of(servers, 0)

    async def main() -> list[Completion]:
        running = asyncio.gather(*(servers.sample(request) for request in requests))
        while not servers._router._places[0].outstanding:
            await asyncio.sleep(0)
        os.kill(old[1].pid, signal.SIGSTOP)  # so that it cannot be done before it is killed
        await asyncio.sleep(0.05)
        os.kill(old[1].pid, signal.SIGKILL)
        return await running

    assert ids_of(asyncio.run(main())) == ids_of(expected)
    assert figures_of(servers)["servers/retries"] > retries
    servers._router.refresh()
    assert not any(process.is_running() and process.status() != "zombie" for process in old)
    # The new process has been given the current weights, not those it started with.
    assert ids_of(sample(engines_of(servers)[0], requests)) == ids_of(expected)
    assert {c.policy_version for c in sample(engines_of(servers)[0], requests)} == {servers.policy_version}


def test_adapters_alone_are_synced(
    servers: VllmServerSampler,
    policy_folder: Path,
    codec: TextCodec,
    prompts: Any,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """To the same servers, which hold their first weights again: adapters are added to those."""
    servers.load_weights(ScoringLearner(policy_folder).named_weights(), 0)
    learner = LocalLearner(model=policy_folder, device="cpu", lr=0.05, lora_rank=3, lora_alpha=8)
    monkeypatch.setenv("VLLM_API_KEY", processes_of(servers, 0)[1].environ()["VLLM_API_KEY"])
    sampler = VllmServerSampler(
        urls=[server.client.url for server in servers._servers],
        adapter_sync=True,
        model_folder=policy_folder,
        codec=codec,
        max_model_len=MAX_MODEL_LEN,
        lora_rank=3,
    )
    try:
        check_parity(sampler, learner, prompts[:4], 1e-3)  # adapters begin as nothing
        rows = [Row(tuple(ids), (11, 12, 13), (-5.0,) * 3, 1.0, n) for n, ids in enumerate(prompts[:4])]
        for version in (1, 2, 2):
            learner.update(rows, Objective())
            with pytest.raises(ParityError):
                check_parity(sampler, learner, prompts[:4], 1e-3)
            assert sync_and_check(sampler, learner, prompts[:4], 1e-3, version)["sync/parity_max"] < 1e-3
        assert figures_of(sampler)["servers/recoveries"] == 0
    finally:
        sampler.close()


def test_nothing_is_left_after_the_run(servers: VllmServerSampler) -> None:
    started = processes_of(servers, 0) + processes_of(servers, 1)
    assert len(started) >= 6  # guard, server and engine of each
    servers.close()
    psutil.wait_procs(started, timeout=20)
    assert not any(process.is_running() and process.status() != "zombie" for process in started)


def test_vllm_knows_our_options_and_our_request(policy_folder: Path) -> None:
    """What a server is started with and asked, checked by vLLM's own parser and protocol."""
    pytest.importorskip("vllm")
    from memfactory.core.compat import prepare_imports

    prepare_imports()
    from vllm.entrypoints.launchers.cli_args import make_arg_parser
    from vllm.entrypoints.scale_out.token_in_token_out.protocol import GenerateRequest
    from vllm.utils.argparse_utils import FlexibleArgumentParser

    for transfer, on_gpu in (("folder", False), ("nccl", True), ("ipc", True)):
        arguments = serve_arguments(
            policy_folder,
            dtype="float32",
            max_model_len=256,
            seed=1,
            trust_remote_code=True,
            on_gpu=on_gpu,
            kv_cache_gb=0.1,
            gpu_memory_utilization=0.8,
            max_num_seqs=8,
            max_num_batched_tokens=512,
            enforce_eager=None,
            prefix_caching=True,
            tensor_parallel_size=2,
            transfer=transfer,
            adapter_rank=16,
        )
        parsed = make_arg_parser(FlexibleArgumentParser()).parse_args([*arguments, "--port=1"])
        assert parsed.enforce_eager is not on_gpu
        assert parsed.kv_cache_memory_bytes == (None if on_gpu else 107374183)
        assert parsed.enable_scale_out
        assert parsed.enable_lora and (parsed.max_loras, parsed.max_lora_rank) == (1, 16)
        assert parsed.skip_tokenizer_init
        assert parsed.generation_config == "vllm"
    body = {
        "token_ids": [1, 2],
        "sampling_params": {
            "temperature": 0.0,
            "max_tokens": 3,
            "stop_token_ids": [0],
            "logprobs": 0,
            "detokenize": False,
            "extra_args": {"draw": [1.0, 0.9, 5, 2**31 - 1]},
        },
    }
    params = GenerateRequest.model_validate(body).sampling_params
    assert (params.logprobs, params.max_tokens, params.extra_args) == (
        0,
        3,
        {"draw": [1.0, 0.9, 5, 2**31 - 1]},
    )
