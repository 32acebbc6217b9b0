"""A sampler over any server that speaks the OpenAI chat protocol (hosted APIs, `vllm serve`, ...)."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from memfactory.core.errors import BadInput, ServiceError, TaskError
from memfactory.core.registry import register
from memfactory.core.types import Completion, FinishReason, SamplingRequest

if TYPE_CHECKING:
    import torch

#: How vLLM's server names tokens in its log-probabilities when asked for ids.
_TOKEN_ID = "token_id:"


@dataclass(frozen=True)
class OpenAIConfig:
    """Fields of `sampler: {type: openai}`.

    The key is read from the environment variable `api_key_env`. `model` null takes the first model
    that the server lists. `token_ids` asks a vLLM server for the ids it sampled and their
    log-probabilities; other servers tell text only. `context` is the server's limit in tokens.
    `timeout_s` is for one attempt; `max_retries` attempts follow the first, with growing waits.
    """

    base_url: str = "http://localhost:8000/v1"
    model: str | None = None
    api_key_env: str = "OPENAI_API_KEY"
    max_concurrency: int = 16
    timeout_s: float = 120.0
    max_retries: int = 5
    token_ids: bool = False
    context: int | None = None


class _BadReply(Exception):
    """The server answered 200 with something that is not a chat completion."""


@register("sampler", "openai", config=OpenAIConfig)
class OpenAISampler:
    """Any OpenAI-compatible server, with retries, a time limit and a limit on requests in flight."""

    def __init__(
        self,
        base_url: str = "http://localhost:8000/v1",
        model: str | None = None,
        api_key_env: str = "OPENAI_API_KEY",
        max_concurrency: int = 16,
        timeout_s: float = 120.0,
        max_retries: int = 5,
        token_ids: bool = False,
        context: int | None = None,
        *,
        max_model_len: int = 32768,
    ) -> None:
        """Connects at the first request only; `context` goes before `max_model_len`."""
        if max_concurrency < 1 or timeout_s <= 0 or max_retries < 0:
            raise BadInput(
                "sampler: max_concurrency and timeout_s must be positive, max_retries not negative"
            )
        self.max_model_len = context or max_model_len
        self.policy_version = 0
        self._base_url = base_url
        self._model = model
        # The client insists on a key; servers of one's own do not care.
        self._api_key = os.environ.get(api_key_env) or "none"
        self._max_concurrency = max_concurrency
        self._timeout_s = timeout_s
        self._max_retries = max_retries
        self._token_ids = token_ids
        # Connections and semaphores belong to one event loop; each loop gets its own.
        self._loop: asyncio.AbstractEventLoop | None = None
        self._client: Any = None
        self._gate = asyncio.Semaphore(max_concurrency)

    async def sample(self, request: SamplingRequest) -> Completion:
        """Ask the server for one reply to `request.messages`; see `Sampler.sample`.

        Connection errors, time-outs, overload (408, 409, 429, 5xx) and replies that are no chat
        completion are retried. Raises `TaskError` when the server says that the prompt is too long,
        `ServiceError`, naming the server, when it fails otherwise or still after the retries.
        """
        import openai

        if not request.messages:
            raise TaskError(f"{request.label or 'request'}: the openai sampler needs messages")
        self._enter_loop()
        async with self._gate:
            try:
                return await self._ask(request)
            except openai.APIStatusError as error:
                detail = _first_line(error.message)
                if error.status_code in (400, 413) and "context" in detail.lower():
                    raise TaskError(f"{request.label or 'request'}: {detail}") from error
                raise self._failure(f"answered {error.status_code}: {detail}") from error
            except openai.APITimeoutError as error:
                raise self._failure(f"gave no answer within {self._timeout_s:g} s") from error
            except openai.APIConnectionError as error:
                raise self._failure("cannot be reached; is it running, and is base_url right?") from error
            except (_BadReply, openai.OpenAIError) as error:
                raise self._failure(f"gave no chat completion: {_first_line(error)}") from error

    def load_weights(self, named_tensors: Iterable[tuple[str, torch.Tensor]], version: int) -> None:
        """Always raises `BadInput`: a server takes no weights from us."""
        raise BadInput(
            f"the server at {self._base_url} cannot take weights; use sampler=vllm or sampler=hf to train"
        )

    def close(self) -> None:
        """Forget the connections; idempotent."""
        self._loop = self._client = None

    def _enter_loop(self) -> None:
        loop = asyncio.get_running_loop()
        if self._loop is not loop or self._client is None:
            from openai import AsyncOpenAI, Timeout

            self._loop = loop
            self._gate = asyncio.Semaphore(self._max_concurrency)
            # The client retries with growing, jittered waits and heeds Retry-After.
            self._client = AsyncOpenAI(
                base_url=self._base_url,
                api_key=self._api_key,
                max_retries=self._max_retries,
                timeout=Timeout(self._timeout_s, connect=min(10.0, self._timeout_s)),
            )

    async def _ask(self, request: SamplingRequest) -> Completion:
        """One completion; what the client does not retry, a reply that cannot be read, is retried here."""
        import openai
        from tenacity import (
            AsyncRetrying,
            retry_if_exception_type,
            stop_after_attempt,
            wait_random_exponential,
        )

        attempts = AsyncRetrying(
            retry=retry_if_exception_type(_BadReply),
            stop=stop_after_attempt(1 + self._max_retries),
            wait=wait_random_exponential(multiplier=0.5, max=8),
            reraise=True,
        )
        async for attempt in attempts:
            with attempt:
                options = await self._options(request)
                try:
                    reply = await self._client.chat.completions.create(**options)
                except (json.JSONDecodeError, UnicodeDecodeError, openai.APIResponseValidationError) as error:
                    raise _BadReply(_first_line(error)) from error
                return _completion(reply)
        raise AssertionError("unreachable: the last attempt raises")

    async def _options(self, request: SamplingRequest) -> dict[str, Any]:
        params = request.params
        extra: dict[str, Any] = {}
        if params.top_k > 0:
            extra["top_k"] = params.top_k  # no part of the protocol, but servers that know it take it
        if self._token_ids:
            extra["return_tokens_as_token_ids"] = True
        if self._model is None:
            self._model = await self._first_model()
        return {
            "model": self._model,
            "messages": [{"role": m.role, "content": m.content} for m in request.messages],
            "temperature": params.temperature,
            "top_p": params.top_p,
            "max_tokens": params.max_tokens,
            "seed": request.seed,
            **({"logprobs": True} if self._token_ids else {}),
            **({"extra_body": extra} if extra else {}),
        }

    async def _first_model(self) -> str:
        try:
            listed = await self._client.models.list()
            return str(listed.data[0].id)
        except (json.JSONDecodeError, UnicodeDecodeError, AttributeError, IndexError, TypeError) as error:
            raise _BadReply("it lists no model; set sampler.model") from error

    def _failure(self, what: str) -> ServiceError:
        return ServiceError(f"the server at {self._base_url} {what}")


def _completion(reply: Any) -> Completion:
    """The first choice of a reply as a completion. Raises `_BadReply` when there is none."""
    try:
        choice = reply.choices[0]
        text = choice.message.content
        reason = choice.finish_reason
    except (AttributeError, IndexError, TypeError):
        raise _BadReply(f"no choices in {str(reply)[:80]!r}") from None
    if text is None:
        text = ""  # a refusal, or reasoning that used up all tokens
    if not isinstance(text, str):
        raise _BadReply("the message's content is not a text")
    finish: FinishReason = reason if reason in ("stop", "length") else "error"
    ids, logprobs = _tokens(choice)
    return Completion(ids, logprobs, finish, text=text)


def _tokens(choice: Any) -> tuple[tuple[int, ...], tuple[float, ...]]:
    """Sampled ids and log-probabilities if the server tells ids, else nothing: text is never re-tokenised."""
    content = getattr(getattr(choice, "logprobs", None), "content", None) or []
    try:
        ids = tuple(int(entry.token.removeprefix(_TOKEN_ID)) for entry in content if _has_id(entry))
        logprobs = tuple(float(entry.logprob) for entry in content)
    except (AttributeError, TypeError, ValueError):
        return (), ()
    return (ids, logprobs) if len(ids) == len(logprobs) else ((), ())


def _has_id(entry: Any) -> bool:
    return str(entry.token).startswith(_TOKEN_ID)


def _first_line(error: object) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return (lines or [type(error).__name__])[0][:300]
