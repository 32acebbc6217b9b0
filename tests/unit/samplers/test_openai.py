"""The API sampler against a small server on loopback that can be told to misbehave."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from memfactory.core.errors import BadInput, ServiceError, TaskError
from memfactory.core.http import Reply as HttpReply
from memfactory.core.types import (
    Completion,
    Message,
    Outcome,
    Rollout,
    SamplingParams,
    SamplingRequest,
    Task,
    Usage,
)
from memfactory.models.openai_chat import BadReply, Filtered, require_unfiltered
from memfactory.rewards.judge import Judge
from memfactory.samplers.openai import OpenAIConfig, OpenAISampler, read_completion
from tests.openai_server import Server, reply, serving, thinking


@pytest.fixture
def server() -> Iterator[Server]:
    with serving() as server:
        yield server


def sample(sampler: OpenAISampler, count: int = 1, **params: Any) -> list[Completion]:
    request = SamplingRequest(
        (), SamplingParams(**{"max_tokens": 20, **params}), seed=5, messages=(Message("user", "Where?"),), label="ask"
    )  # fmt: skip

    async def main() -> list[Completion]:
        return await asyncio.gather(*(sampler.sample(request) for _ in range(count)))

    return asyncio.run(main())


def test_a_reply_and_what_was_asked(server: Server) -> None:
    sampler = OpenAISampler(server.url, model="mine")
    assert sample(sampler, temperature=0.3, top_p=0.8, top_k=7) == [Completion((), (), "stop", text="Paris")]
    assert server.bodies == [
        {
            "model": "mine",
            "messages": [{"role": "user", "content": "Where?"}],
            "temperature": 0.3,
            "top_p": 0.8,
            "max_tokens": 20,
            "seed": 5,
            "top_k": 7,
        }
    ]


def test_the_first_listed_model_is_taken(server: Server) -> None:
    sample(OpenAISampler(server.url))
    assert server.bodies[0]["model"] == "served"
    server.models = {"object": "list", "data": []}
    with pytest.raises(ServiceError, match=r"lists no model; set sampler\.model"):
        sample(OpenAISampler(server.url, max_retries=0))


def test_token_ids_of_a_vllm_server(server: Server) -> None:
    content = [
        {"token": f"token_id:{n}", "logprob": -0.5 * n, "bytes": None, "top_logprobs": []} for n in (3, 4)
    ]
    server.script = [reply(logprobs={"content": content})]
    (completion,) = sample(OpenAISampler(server.url, model="m", token_ids=True))
    assert (completion.token_ids, completion.logprobs) == ((3, 4), (-1.5, -2.0))
    assert server.bodies[0]["logprobs"] is True
    assert server.bodies[0]["return_tokens_as_token_ids"] is True
    content[0]["token"] = "Par"
    assert sample(OpenAISampler(server.url, model="m", token_ids=True))[0].token_ids == ()


@pytest.mark.parametrize(
    "failure", [500, 503, 429, (200, b"<html>oops"), (200, b"\xff\xfe"), {"choices": []}, {}, [1]]
)
def test_flaky_servers_are_asked_again(server: Server, failure: Any) -> None:
    server.script = [failure, failure, reply("Rome")]
    assert sample(OpenAISampler(server.url, model="m"))[0].text == "Rome"
    assert len(server.bodies) == 3


@pytest.mark.parametrize(
    ("failure", "told"),
    [
        (500, "answered 500: "),
        (401, "answered 401: "),
        (404, "answered 404: "),
        ((200, b"{"), "gave no chat completion: "),
        (reply({"not": "text"}), "gave no chat completion: "),
    ],
)
def test_what_stays_broken_is_told_with_the_servers_name(server: Server, failure: Any, told: str) -> None:
    server.script = [failure]
    with pytest.raises(ServiceError) as caught:
        sample(OpenAISampler(server.url, model="m", max_retries=1))
    assert str(caught.value).startswith(f"the server at {server.url} {told}")
    assert "\n" not in str(caught.value)


def test_a_prompt_too_long_fails_the_task_only(server: Server) -> None:
    server.script = [(400, {"error": {"message": "This model's maximum context length is 10 tokens"}})]
    with pytest.raises(TaskError, match=r"ask: .*context length is 10"):
        sample(OpenAISampler(server.url, model="m"))
    with pytest.raises(TaskError, match="needs messages"):
        asyncio.run(OpenAISampler(server.url).sample(SamplingRequest((1,), SamplingParams(), seed=0)))


FILTER = "The response was filtered due to the prompt triggering the content management policy."


@pytest.mark.parametrize(
    ("answer", "told"),
    [
        ((400, {"error": {"message": FILTER}}), "answered 400: The response was filtered"),
        ((413, b"<h1>Payload Too Large</h1>"), "answered 413: Payload Too Large"),
        (reply("half of it", finish_reason="content_filter"), "filtered its reply"),
        (reply(None, message={"content": None, "refusal": "I cannot\nhelp."}), "refused: I cannot help."),
        ({"error": {"message": "flagged", "code": 403}}, "answered 403: flagged"),
    ],
)
def test_a_prompt_that_is_refused_fails_the_task_only(server: Server, answer: Any, told: str) -> None:
    server.script = [answer]
    with pytest.raises(TaskError, match=f"^ask: the server {told}"):
        sample(OpenAISampler(server.url, model="m", max_retries=3))
    assert len(server.bodies) == 1, "asking again would change nothing"


def test_an_unknown_refusal_is_the_prompts_fault_if_another_prompt_is_answered(server: Server) -> None:
    def odd(body: Any) -> Any:
        return (422, {"error": "no"}) if body["messages"][0]["content"] == "Where?" else reply()

    server.script = [odd]
    sampler = OpenAISampler(server.url, model="m")
    for _ in range(2):
        with pytest.raises(TaskError, match="ask: the server answered 422: no"):
            sample(sampler)
    assert len(server.bodies) == 3, "something harmless is asked once"
    server.script = [(422, {"error": "stop: bad value of temperature"})]
    with pytest.raises(ServiceError, match=r"answered 422: .*; leave_out: \[temperature\] asks without it"):
        sample(OpenAISampler(server.url, model="m"))


def test_an_address_without_v1_and_a_model_that_is_not_there(server: Server) -> None:
    server.script = [404]
    with pytest.raises(
        ServiceError, match=r"answered 404: status 404; is there a model 'm', and is /v1 missing at"
    ):
        sample(OpenAISampler(server.url.removesuffix("/v1"), model="m"))
    with pytest.raises(ServiceError, match=r"; is there a model 'm'\?$"):
        sample(OpenAISampler(server.url, model="m"))


def test_a_server_without_quota_is_not_asked_again(server: Server) -> None:
    server.script = [
        (429, {"error": {"message": "You exceeded your current quota", "code": "insufficient_quota"}})
    ]
    with pytest.raises(ServiceError, match="answered 429: You exceeded"):
        sample(OpenAISampler(server.url, model="m", max_retries=3))
    assert len(server.bodies) == 1


def strict(body: Any) -> Any:
    """As models that reason before they answer."""
    if "max_tokens" in body:
        return 400, {
            "error": {"message": "Unsupported parameter: 'max_tokens'. Use 'max_completion_tokens'."}
        }
    if "temperature" in body:
        return 400, {
            "error": {"message": "'temperature' does not support 0 with this model.", "param": "temperature"}
        }
    return reply()


def test_parameters_that_a_server_refuses_are_given_up_and_told(
    server: Server, caplog: pytest.LogCaptureFixture
) -> None:
    server.script = [strict]
    sampler = OpenAISampler(server.url, model="m", max_concurrency=2)
    found = sample(sampler, 6, temperature=0.0)
    assert [one.text for one in found] == ["Paris"] * 6
    assert "temperature" not in server.bodies[-1] and server.bodies[-1]["max_completion_tokens"] == 20
    told = [f"the server at {server.url}: it wants max_completion_tokens instead of max_tokens"]
    assert found[-1].changes[:1] == tuple(told) and "temperature" in found[-1].changes[1]
    assert [r.message for r in caplog.records] == list(found[-1].changes), "each is said once"
    server.bodies.clear()
    fields = {
        "max_tokens_name": "max_completion_tokens",
        "leave_out": ["temperature"],
        "extra_body": {"stop": "."},
    }
    assert sample(OpenAISampler(server.url, model="m", **fields), temperature=0.0)[0].changes == ()
    (body,) = server.bodies
    assert body["stop"] == "." and "temperature" not in body and "max_tokens" not in body


def test_tokens_are_those_that_the_server_counted(server: Server) -> None:
    for usage, expected in (
        ({"prompt_tokens": 120, "completion_tokens": 17}, Usage(120, 17)),
        ({"prompt_tokens": "120", "completion_tokens": -1}, Usage()),
        ({"completion_tokens": True}, Usage()),
        (None, Usage()),
        ("many", Usage()),
    ):
        server.script = [{**reply(), "usage": usage}]
        assert sample(OpenAISampler(server.url, model="m"))[0].usage == expected


_values: Any = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=4),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(
        st.sampled_from(["choices", "message", "content", "finish_reason", "logprobs", "token", "logprob", "refusal",
                         "usage", "completion_tokens", "error"]), inner, max_size=4),
)  # fmt: skip


@given(_values, st.sampled_from(["whole", "choice", "message", "logprobs"]))
def test_no_reply_raises_more_than_it_may(value: Any, place: str) -> None:
    whole: Any = {"choices": [{"message": {"content": "x"}, "finish_reason": "stop", "logprobs": None}]}
    if place == "whole":
        whole = value
    elif place == "choice":
        whole["choices"] = [value]
    else:
        whole["choices"][0][place] = value
    try:
        require_unfiltered(whole)
        found = read_completion(whole)
    except (BadReply, Filtered):
        return
    assert isinstance(found.text, str) and len(found.token_ids) == len(found.logprobs)


class _Says:
    """A connection over which every reply is the same."""

    def __init__(self, reply: HttpReply) -> None:
        self.reply = reply

    async def request(self, method: str, path: str, body: Any = None, *, seconds: float) -> HttpReply:
        return self.reply

    def close(self) -> None: ...


@given(
    _values
    | st.sampled_from(
        [{"error": {"message": "x" * 9, "code": 400}}, {"detail": [{"loc": ["body", "seed"]}]}]
    ),
    st.sampled_from([200, 204, 302, 400, 401, 403, 404, 413, 422, 429, 500, 599]),
    st.sampled_from([{}, {"retry-after": "nan"}, {"retry-after-ms": "-1"}, {"retry-after": "1e999"}]),
    st.booleans(),
)
def test_whatever_a_server_says_is_a_reply_or_one_line(
    value: Any, status: int, headers: dict[str, str], broken: bool
) -> None:
    content = json.dumps(value).encode()[broken:]
    judge = Judge("m", "{question}{gold}{answer}", base_url="http://h", max_retries=0, cache="/dev/null/none")
    sampler = OpenAISampler("http://h", model=None if broken else "m", max_retries=0)
    judge._chat._http = sampler._chat._http = _Says(HttpReply(status, headers, content))  # type: ignore[assignment]
    told = ""
    try:
        sample(sampler)
    except (TaskError, ServiceError) as error:
        told = str(error)
    assert "\n" not in told
    task = Task("t", "q", "e", ("a",))
    verdict = asyncio.run(judge(Rollout(task, 0, outcome=Outcome("r"))))
    assert verdict is not None and verdict.value is None, "no reply of these holds a verdict"


def test_organisation_and_project_are_told_as_by_openais_own_client(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_ORG_ID", "org-1\n")
    monkeypatch.delenv("OPENAI_PROJECT_ID", raising=False)
    headers = OpenAISampler("http://h", model="m")._chat._http._headers
    assert headers["openai-organization"] == "org-1" and "openai-project" not in headers


@pytest.mark.parametrize(
    ("fields", "told"),
    [
        ({"base_url": "localhost:8000"}, "base_url: .*try http://localhost:8000"),
        ({"extra_body": {"messages": []}}, "messages cannot be set"),
        ({"max_tokens_name": " "}, "max_tokens_name is empty"),
    ],
)
def test_fields_are_checked_with_the_recipe(fields: Any, told: str) -> None:
    with pytest.raises(ValueError, match=told):
        OpenAIConfig(**fields)


def test_a_server_that_is_not_there() -> None:
    with pytest.raises(ServiceError, match=r"the server at http://127\.0\.0\.1:9/v1 cannot be reached"):
        sample(OpenAISampler("http://127.0.0.1:9/v1", model="m", max_retries=0))


def test_a_server_that_does_not_answer(server: Server) -> None:
    server.delay = 0.6
    with pytest.raises(ServiceError, match=r"gave no answer within 0\.2 s"):
        sample(OpenAISampler(server.url, model="m", max_retries=0, timeout_s=0.2))


def test_no_more_requests_in_flight_than_allowed_in_every_loop(server: Server) -> None:
    server.delay = 0.02
    sampler = OpenAISampler(server.url, model="m", max_concurrency=3)
    for _ in range(3):
        assert len(sample(sampler, 12)) == 12
    assert 2 <= server.most_busy <= 3
    sampler.close()
    assert len(sample(sampler, 1)) == 1


@pytest.mark.parametrize(("given", "kept"), [(None, ""), ("", ""), ("Ł\ud83d", "Ł\ufffd")])
def test_strange_texts(server: Server, given: Any, kept: str) -> None:
    server.script = [reply(given, finish_reason="tool_calls")]
    (completion,) = sample(OpenAISampler(server.url, model="m"))
    assert (completion.text, completion.finish_reason) == (kept, "error")


def test_bodies_that_no_reader_can_take_are_one_line(server: Server) -> None:
    for body in (b"[" * 100_000, b'{"choices": ' + b"9" * 5000 + b"}", b"", b"<html>\n<p>hi", b'"\xff"'):
        server.script = [(200, body)]
        server.models = body
        for model in ("m", None):
            with pytest.raises(ServiceError, match="gave no chat completion: ") as caught:
                sample(OpenAISampler(server.url, model=model, max_retries=0))
            assert "\n" not in str(caught.value)


def test_bad_settings_and_weights(server: Server) -> None:
    with pytest.raises(BadInput, match="max_concurrency"):
        OpenAISampler(server.url, max_concurrency=0)
    with pytest.raises(BadInput, match=f"the server at {server.url} cannot take weights"):
        OpenAISampler(server.url).load_weights([], 1)
    assert OpenAISampler(server.url, context=100, max_model_len=5).max_model_len == 100


def test_options_of_the_chat_template_are_sent_where_there_are_some(server: Server) -> None:
    options = {"enable_thinking": False}
    sampler = OpenAISampler(server.url, model="m")
    asked = SamplingRequest((), SamplingParams(), 0, (Message("user", "Where?"),), template=options)

    async def main() -> None:
        await sampler.sample(asked)
        await sampler.sample(replace(asked, template={}))

    asyncio.run(main())
    assert [body.get("chat_template_kwargs") for body in server.bodies] == [options, None]


@pytest.mark.parametrize(
    ("url", "sent"),
    [
        ("https://api.openai.com/v1", False),
        ("https://eu.api.openai.com/v1", False),
        ("https://mine.openai.azure.com/openai/v1", False),
        ("http://localhost:8000/v1", True),
        ("https://openrouter.ai/api/v1", True),
    ],
)
def test_the_official_api_gets_no_field_that_it_refuses(url: str, sent: bool) -> None:
    request = SamplingRequest((), SamplingParams(), 0, template={"enable_thinking": False})
    assert ("chat_template_kwargs" in str(OpenAISampler(url, model="m")._options(request))) == sent


PARTS = [
    {"type": "thinking", "thinking": [{"type": "text", "text": "Rome?"}]},
    {"type": "text", "text": "Oslo"},
]


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        (thinking("Rome?", "Oslo"), ("Oslo", "Rome?", "stop")),
        (thinking("Rome?", "Oslo", field="reasoning"), ("Oslo", "Rome?", "stop")),
        (thinking("Rome?", None, "length"), ("", "Rome?", "length")),
        (reply(None), ("", "", "error")),
        (reply(PARTS), ("Oslo", "Rome?", "stop")),
    ],
)
def test_thoughts_that_a_server_tells_apart(
    server: Server, said: dict[str, Any], expected: tuple[str, str, str]
) -> None:
    server.script = [said]
    [found] = sample(OpenAISampler(server.url, model="m"))
    assert (found.text, found.reasoning, found.finish_reason) == expected
