"""Errors of real servers: is it this prompt, every request, or the moment?"""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from memfactory.models.chat_parameters import ChatParameters, named_parameter
from memfactory.models.refusals import blame, error_words


def said(message: str, **more: Any) -> dict[str, Any]:
    return {"error": {"message": message, **more}}


TOO_LONG = [
    said("This model's maximum context length is 4096 tokens.", code="context_length_exceeded"),
    said("prompt is too long: 210000 tokens > 200000 maximum", type="invalid_request_error"),
    said("Input is too long for requested model."),
    said("Requested token count exceeds the model's maximum sequence length of 4096 tokens."),
    said("`inputs` tokens + `max_new_tokens` must be <= 2048. Given: 3000 `inputs` tokens"),
    said("The input token count (1100000) exceeds the maximum number of tokens allowed (1048576)."),
    said("Range of input length should be [1, 30720]", code="InvalidParameter"),
    said("too many tokens: total number of tokens in the prompt cannot exceed 4081"),
    said("the request exceeds the available context size", type="exceed_context_size_error"),
    said("The decoder prompt (length 5000) is longer than the maximum model length of 4096."),
    said("Please reduce the length of the messages or completion."),
    said("Your request exceeded model token limit: 8192"),
    said("输入长度超过限制"),
    said("Prompt 超长", code="1261"),
    said("プロンプトが長すぎます"),
    said("'max_tokens' is too large: 5000. This model's maximum context length is 4096 tokens"),
    {"message": "prompt too long"},
    {"detail": [{"loc": ["body"], "msg": "Input text exceeds 4096 tokens"}]},
    [{"error": {"code": 400, "message": "The input context is too long."}}],
    "context window exceeded",
]
FILTERED = [
    {"error": {"message": "Request contains unsafe content"}},
    {"detail": "NSFW text detected"},
    {"error": {"message": "refused by our trust & safety team"}},
    {"error": {"message": "Prompt blocked: HATE"}},
    {"error": {"message": "toxicity detected in prompt"}},
    said(
        "The response was filtered due to the prompt triggering our content management policy.",
        code="content_filter",
    ),
    said("no words for it", innererror={"code": "ResponsibleAIPolicyViolation"}),
    said("Output data may contain inappropriate content.", code="data_inspection_failed"),
    said("Content Exists Risk"),
    said("系统检测到输入或生成内容可能包含不安全或敏感内容", code="1301"),
    said(
        "Invalid prompt: your prompt was flagged as potentially violating our usage policy.",
        code="invalid_prompt",
    ),
    said("The request was rejected because it was considered high risk", type="content_filter"),
    said("Your input was rejected by the safety system."),
    {"code": "DataInspectionFailed", "message": "x"},
]


@pytest.mark.parametrize("value", TOO_LONG + FILTERED, ids=lambda v: str(v)[:50])
def test_what_a_server_refuses_of_one_prompt(value: Any) -> None:
    assert blame(400, error_words(value)) == "prompt"


@pytest.mark.parametrize(
    ("status", "value", "expected"),
    [
        (413, said(""), "prompt"),
        (413, said("Request too large for model x on tokens per minute (TPM): Limit 6000, Requested 8000"), "prompt"),
        (429, said("Request too large for gpt-4: must be reduced in order to run successfully"), "prompt"),
        (403, said("Your chosen model requires moderation and your input was flagged"), "prompt"),
        (500, said("the request exceeds the available context size"), "prompt"),
        (403, said("Your account was suspended for violations of our usage policies"), "request"),
        (401, said("Incorrect API key; see our content policy"), "request"),
        (404, said("The model `m` does not exist"), "request"),
        (402, said("Insufficient Balance"), "request"),
        (429, said("You exceeded your current quota", code="insufficient_quota"), "request"),
        (429, said("Rate limit reached: too many tokens per min"), "later"),
        (429, said("slow down"), "later"),
        (503, said("the engine is overloaded in this context"), "later"),
        (500, said("filtered due to a bug"), "later"),
        (400, said("no such thing in this context"), "unclear"),
        (400, said("max_tokens is too large: 100000. This model supports at most 16384"), "unclear"),
        (422, said("bad"), "unclear"),
        (400, None, "unclear"),
    ],
)  # fmt: skip
def test_whose_fault_it_is(status: int, value: Any, expected: str) -> None:
    assert blame(status, error_words(value)) == expected


def test_words_are_one_clean_line() -> None:
    words = error_words(said("a\nb\x1b[31m\u202ec\ud800", param="top_p", code=7))
    assert (words.line, words.parameter, words.codes) == ("a b [31m c", "top_p", ("7",))
    assert error_words(None, "<html><style>x{}</style><h1>502 Bad</h1> Gateway").line == "502 Bad Gateway"
    assert error_words({"detail": [{"loc": ["body", "seed"], "msg": "Extra inputs"}]}).parameter == "seed"


_json: Any = st.recursive(
    st.none() | st.integers() | st.floats() | st.text(),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["error", "message", "code", "detail", "loc", "param", "type"]), inner
        )
    ),
)


@given(_json, st.integers(100, 999))
def test_no_error_reply_raises(value: Any, status: int) -> None:
    words = error_words(value, "x")
    assert "\n" not in words.line and len(words.line) <= 300
    assert blame(status, words) in ("prompt", "request", "later", "unclear")


OPTIONS = {"temperature": 0.0, "top_p": 1.0, "max_tokens": 9, "seed": 5, "extra_body": {"top_k": 3}}


def test_parameters_that_a_server_refuses_are_given_up_once() -> None:
    parameters = ChatParameters()
    sent = parameters.body(OPTIONS)
    assert sent == {"temperature": 0.0, "top_p": 1.0, "max_tokens": 9, "seed": 5, "top_k": 3}
    refusals = [
        said("Unsupported parameter: 'max_tokens' is not supported. Use 'max_completion_tokens' instead."),
        said("'temperature' does not support 0 with this model."),
        {
            "detail": [
                {"loc": ["body", "seed"], "msg": "Extra inputs are not permitted", "type": "extra_forbidden"}
            ]
        },
        said('Invalid JSON payload received. Unknown name "top_k": Cannot find field.'),
    ]
    for refusal in refusals:
        assert parameters.adapt(error_words(refusal), sent)
        assert parameters.adapt(error_words(refusal), sent), "another request, sent before that was known"
    assert parameters.body(OPTIONS) == {"top_p": 1.0, "max_completion_tokens": 9}
    assert len(parameters.changes) == 4 and "temperature" in parameters.changes[1]
    again = said("Unsupported parameter: 'max_completion_tokens'. Use 'max_tokens'.")
    assert not parameters.adapt(error_words(again), parameters.body(OPTIONS)), "it refuses both"


def test_what_is_no_parameter_or_the_users_own_stays() -> None:
    parameters = ChatParameters({"temperature": 0.5, "stop": ["x"]}, "max_len", ["seed"])
    sent = parameters.body(OPTIONS)
    assert sent == {"temperature": 0.5, "top_p": 1.0, "max_len": 9, "top_k": 3, "stop": ["x"]}
    for refusal in (
        said("temperature is not supported"),
        said("stop is not supported"),
        said("top_p must be 2"),
    ):
        assert not parameters.adapt(error_words(refusal), sent)
    assert named_parameter(error_words(said("stop is not supported")), sent) == "stop"
    assert parameters.changes == ()
