"""What vLLM and the HF sampler must both do, and that they agree with each other."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import pytest

from memfactory.core.errors import TaskError
from memfactory.core.types import Completion, Row, SamplingParams, SamplingRequest
from tests.integration.conftest import MAX_MODEL_LEN
from tests.tiny_models import ScoringLearner

Prompts = Sequence[tuple[int, ...]]
MIXED = [
    SamplingParams(max_tokens=24),
    SamplingParams(temperature=0.0, max_tokens=9),
    SamplingParams(temperature=0.7, top_p=0.8, max_tokens=17),
    SamplingParams(temperature=1.3, top_k=20, max_tokens=31),
]


@pytest.fixture(params=[pytest.param("vllm", marks=pytest.mark.vllm), "hf"])
def sampler(request: pytest.FixtureRequest) -> Any:
    return request.getfixturevalue(f"{request.param}_sampler")


def requests_for(prompts: Prompts) -> list[SamplingRequest]:
    return [SamplingRequest(ids, MIXED[n % len(MIXED)], seed=n) for n, ids in enumerate(prompts)]


def sample_all(sampler: Any, requests: Sequence[SamplingRequest]) -> list[Completion]:
    async def main() -> list[Completion]:
        return await asyncio.gather(*(sampler.sample(r) for r in requests))

    return asyncio.run(main())


def ids_of(completions: Sequence[Completion]) -> list[tuple[int, ...]]:
    return [c.token_ids for c in completions]


def test_64_concurrent_requests_are_bit_identical_in_every_event_loop(sampler: Any, prompts: Prompts) -> None:
    first = sample_all(sampler, requests_for(prompts))
    assert sample_all(sampler, requests_for(prompts)) == first
    assert sample_all(sampler, requests_for(prompts)) == first
    assert len(set(ids_of(first))) > 50


def test_draws_do_not_depend_on_what_else_is_in_the_batch(sampler: Any, prompts: Prompts) -> None:
    together = sample_all(sampler, requests_for(prompts))
    alone = [sample_all(sampler, [r])[0] for r in requests_for(prompts)[:12]]
    assert ids_of(alone) == ids_of(together[:12])


def test_seeds_make_different_draws_and_equal_seeds_equal_ones(sampler: Any, prompts: Prompts) -> None:
    params = SamplingParams(max_tokens=16)
    requests = [SamplingRequest(prompts[0], params, seed=n // 2) for n in range(20)]
    drawn = ids_of(sample_all(sampler, requests))
    assert drawn[0::2] == drawn[1::2]
    assert len(set(drawn)) == 10


def test_logprobs_are_those_of_the_distribution_at_the_requests_temperature(
    sampler: Any, prompts: Prompts, policy_folder: Any
) -> None:
    requests = requests_for(prompts)
    completions = sample_all(sampler, requests)
    rows = [
        Row(r.prompt_ids, c.token_ids, c.logprobs, 0.0, n)
        for n, (r, c) in enumerate(zip(requests, completions, strict=True))
    ]
    learner = ScoringLearner(policy_folder)
    for kind, params in enumerate(MIXED):
        mine = rows[kind :: len(MIXED)]
        for row, expected in zip(mine, learner.logprobs(mine, params.temperature or 1.0), strict=True):
            assert row.behaviour_logprobs == pytest.approx(expected, abs=5e-4)


def test_end_of_sequence_is_kept_only_if_sampled(sampler: Any, prompts: Prompts, codec: Any) -> None:
    completions = sample_all(
        sampler, [SamplingRequest(prompts[n % 64], SamplingParams(4.0, max_tokens=64), n) for n in range(256)]
    )
    reasons = {c.finish_reason for c in completions}
    assert reasons == {"stop", "length"}
    for completion in completions:
        stops = [n for n, token in enumerate(completion.token_ids) if token in codec.eos_ids]
        stopped = completion.finish_reason == "stop"
        assert stops == ([len(completion.token_ids) - 1] if stopped else [])
        assert stopped or len(completion.token_ids) == 64


def test_impossible_requests_fail_alone(sampler: Any, prompts: Prompts) -> None:
    good = SamplingRequest(prompts[0], SamplingParams(max_tokens=8), seed=3)
    bad = [
        SamplingRequest(tuple([11] * 250), SamplingParams(max_tokens=20), seed=0, label="updater"),
        SamplingRequest((), SamplingParams(max_tokens=4), seed=0),
        SamplingRequest((10**6,), SamplingParams(max_tokens=4), seed=0),
        SamplingRequest((11,), SamplingParams(max_tokens=0), seed=0),
    ]

    async def main() -> list[Any]:
        return await asyncio.gather(*(sampler.sample(r) for r in [good, *bad, good]), return_exceptions=True)

    first, *errors, last = asyncio.run(main())
    assert first.token_ids == last.token_ids
    # The place in a batch may decide the last bits, on some processors.
    assert first.logprobs == pytest.approx(last.logprobs, abs=1e-4)
    assert len(first.token_ids) > 0
    assert all(isinstance(error, TaskError) for error in errors)
    assert (
        str(errors[0])
        == f"updater: prompt of 250 tokens + max_tokens 20 = 270 exceeds max_model_len {MAX_MODEL_LEN}"
    )


def test_an_agent_that_is_cancelled_leaves_no_trace(sampler: Any, prompts: Prompts) -> None:
    requests = requests_for(prompts)
    expected = sample_all(sampler, requests)

    async def main() -> None:
        tasks = [asyncio.create_task(sampler.sample(r)) for r in requests]
        for _ in range(12):
            await asyncio.sleep(0)
        for task in tasks[::2]:
            task.cancel()
        done = await asyncio.gather(*tasks, return_exceptions=True)
        assert [type(d) for d in done[::2]] == [asyncio.CancelledError] * 32
        assert all(isinstance(d, Completion) for d in done[1::2])

    async def left_in_the_middle() -> None:
        tasks = [asyncio.create_task(sampler.sample(r)) for r in requests]
        for _ in range(12):
            await asyncio.sleep(0)
        assert not all(task.done() for task in tasks)

    asyncio.run(main())
    asyncio.run(left_in_the_middle())
    assert sample_all(sampler, requests) == expected


def test_agents_that_ask_again_and_again(sampler: Any, prompts: Prompts) -> None:
    async def agent(number: int) -> list[int]:
        ids, told = prompts[number], []
        for turn in range(1 + number % 4):
            completion = await sampler.sample(
                SamplingRequest(ids, SamplingParams(max_tokens=6), number + turn)
            )
            told.extend(completion.token_ids)
            ids = (*ids[:40], *completion.token_ids)
        return told

    async def main() -> list[list[int]]:
        return await asyncio.gather(*(agent(n) for n in range(64)))

    first = asyncio.run(main())
    assert asyncio.run(main()) == first


@pytest.mark.vllm
def test_both_engines_draw_the_same_tokens(vllm_sampler: Any, hf_sampler: Any, prompts: Prompts) -> None:
    a, b = sample_all(vllm_sampler, requests_for(prompts)), sample_all(hf_sampler, requests_for(prompts))
    # The engines add in different orders, so a draw very near a border may fall on either side.
    assert sum(x == y for x, y in zip(ids_of(a), ids_of(b), strict=True)) >= 62
