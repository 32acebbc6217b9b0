from __future__ import annotations

import asyncio

import pytest

from memfactory.core.errors import BadInput, TaskError
from memfactory.core.types import Call, Completion, Message, SamplingParams, SamplingRequest
from memfactory.models.text import ByteCodec
from memfactory.samplers.roles import RolloutModels, SampledModel
from memfactory.samplers.scripted import ScriptedSampler

ASK = [Message("system", "Be brief."), Message("user", "Who?")]


def model(
    sampler: ScriptedSampler, calls: list[Call], *seed_parts: object, trainable: bool = True
) -> SampledModel:
    return SampledModel(
        role="policy",
        sampler=sampler,
        codec=ByteCodec(),
        params=SamplingParams(temperature=0.7, top_p=0.9, top_k=5),
        calls=calls,
        seed_parts=seed_parts or (1, "train-3", "task-7", 0),
        trainable=trainable,
    )


def chat(role: SampledModel, max_tokens: int = 50, module: str = "answerer") -> Call:
    return asyncio.run(role.chat(ASK, module=module, max_tokens=max_tokens))


def test_a_call_is_kept_exactly_as_sampled() -> None:
    sampler, calls = ScriptedSampler(["Anna"]), []
    call = chat(model(sampler, calls))
    assert calls == [call]
    assert call.completion_ids == (*b"Anna", ByteCodec.EOS)
    assert call.logprobs == (0.0,) * 5
    assert call.text == "Anna"
    assert call.finish_reason == "stop"
    assert call.trainable
    assert call.prompt_ids == tuple(b"system: Be brief.\nuser: Who?\n")
    assert call.prompt_text == "Be brief.\n\nWho?"
    asked = sampler.requests[0]
    assert asked.params == SamplingParams(temperature=0.7, top_p=0.9, top_k=5, max_tokens=50)
    assert asked.messages == tuple(ASK)


def test_a_reply_is_cut_at_the_limit() -> None:
    call = chat(model(ScriptedSampler(["Annabel"]), []), max_tokens=4)
    assert (call.text, call.finish_reason, len(call.completion_ids)) == ("Anna", "length", 4)


@pytest.mark.parametrize("ids", [(-5, 10**9, 300), (0xC3, 0x28), (), (256, 256), (0xF0, 0x9F)])
def test_weird_ids_never_raise(ids: tuple[int, ...]) -> None:
    reply = Completion(ids, (-1.0,) * len(ids), "length")
    call = chat(model(ScriptedSampler([reply]), []))
    assert call.completion_ids == ids
    assert call.trainable == (len(ids) > 0)


def test_a_call_without_logprobs_is_not_trained_on() -> None:
    call = chat(model(ScriptedSampler([Completion((1, 2), (), "stop", text="hm")]), []))
    assert (call.text, call.trainable) == ("hm", False)
    assert not chat(model(ScriptedSampler(["x"]), [], trainable=False)).trainable


def test_too_long_names_the_numbers() -> None:
    with pytest.raises(
        TaskError, match=r"prompt of 29 tokens \+ max_tokens 80 = 109 exceeds the context of 100"
    ):
        chat(model(ScriptedSampler(["x"], max_model_len=100), []), max_tokens=80)


def test_seeds_depend_on_the_rollout_and_the_turn_only() -> None:
    def seeds(*parts: object, turns: int = 3) -> list[int]:
        sampler = ScriptedSampler(["x"])
        role = model(sampler, [], *parts)
        for _ in range(turns):
            chat(role)
        return [r.seed for r in sampler.requests]

    assert seeds(1, "train-0", "a", 0) == seeds(1, "train-0", "a", 0)
    every = [s for parts in [(1, "t", "a", 0), (2, "t", "a", 0), (1, "u", "a", 0), (1, "t", "b", 0), (1, "t", "a", 1)]
             for s in seeds(*parts)]  # fmt: skip
    assert len(set(every)) == 15


def test_a_fork_shares_the_past_and_draws_its_own_future() -> None:
    sampler, calls = ScriptedSampler(["a", "b", "c", "d"]), []
    role = model(sampler, calls)
    chat(role)
    branch = role.fork(list(calls), "branch", 1)
    chat(role)
    chat(branch)
    assert [c.text for c in calls] == ["a", "b"]
    assert [c.text for c in branch.calls] == ["a", "c"]
    assert len({r.seed for r in sampler.requests}) == 3


def test_roles_and_progress() -> None:
    seen: list[tuple[int, int, str | None]] = []
    role = model(ScriptedSampler(["x"]), [])
    models = RolloutModels({"policy": role}, lambda *args: seen.append(args))
    assert models["policy"] is role
    models.report(1, 3, "memory")
    assert seen == [(1, 3, "memory")]
    with pytest.raises(BadInput, match=r"'polcy'; roles: policy; did you mean 'policy'"):
        models["polcy"]
    RolloutModels({}).report(1, 1)


def test_scripts() -> None:
    async def ask(sampler: ScriptedSampler, count: int) -> list[Completion]:
        request = SamplingRequest((1, 2), SamplingParams(), seed=0)
        return [await sampler.sample(request) for _ in range(count)]

    def text(completions: list[Completion]) -> list[str]:
        return [ByteCodec().decode(c.token_ids) for c in completions]

    assert text(asyncio.run(ask(ScriptedSampler(["a", "b"]), 3))) == ["a", "b", "a"]
    assert text(asyncio.run(ask(ScriptedSampler(lambda r: str(r.prompt_ids)), 1))) == ["(1, 2)"]
    with pytest.raises(BadInput):
        ScriptedSampler([])
    with pytest.raises(BadInput, match="cannot take weights"):
        ScriptedSampler(["x"]).load_weights([], 1)
    sampler = ScriptedSampler(["x"], takes_weights=True)
    sampler.load_weights(iter([]), 4)
    assert asyncio.run(ask(sampler, 1))[0].policy_version == 4
    sampler.close()


def test_agents_get_the_answer_and_training_keeps_all_tokens() -> None:
    call = chat(model(ScriptedSampler(["<think>Rome?</think>Oslo"]), []))
    assert (call.text, call.answer, call.problem) == ("Oslo", "Oslo", "")
    assert call.whole == "<think>Rome?</think>Oslo"
    assert len(call.completion_ids) == len(call.logprobs) == len(call.whole) + 1
    cut = chat(model(ScriptedSampler(["<think>Rome? It may"]), []), max_tokens=12)
    assert (cut.text, cut.answer, cut.trainable, len(cut.completion_ids)) == ("", None, True, 12)
    assert "not finished" in cut.problem and cut.whole == "<think>Rome?"


def test_a_thought_that_a_server_tells_apart_is_in_the_record() -> None:
    reply = Completion((), (), "length", text="", reasoning="Rome? It may")
    call = chat(model(ScriptedSampler([reply]), []))
    assert (call.text, call.answer) == ("", None)
    assert call.whole == "<think>Rome? It may</think>\n"
