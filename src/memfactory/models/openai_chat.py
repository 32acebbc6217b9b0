"""A connection to any server that speaks the OpenAI chat protocol: retries, time limits, errors in one line."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

from memfactory.core.errors import ServiceError, TaskError
from memfactory.core.types import Message

T = TypeVar("T")


class BadReply(Exception):
    """The server answered 200 with something that cannot be used; it is asked again."""


class OpenAIChat:
    """Asks one server, with retries, a time limit and a limit on requests in flight; for any number of event loops."""

    def __init__(
        self,
        base_url: str,
        model: str | None,
        api_key_env: str,
        *,
        max_concurrency: int,
        timeout_s: float,
        max_retries: int,
    ) -> None:
        """Connects at the first request only. `model` None takes the first model that the server lists."""
        self.base_url = base_url
        self.model = model
        # The client insists on a key; servers of one's own do not care.
        self._api_key = os.environ.get(api_key_env) or "none"
        self._max_concurrency = max_concurrency
        self._timeout_s = timeout_s
        self._max_retries = max_retries
        # Connections and semaphores belong to one event loop; each loop gets its own.
        self._loop: asyncio.AbstractEventLoop | None = None
        self._client: Any = None
        self._gate = asyncio.Semaphore(max_concurrency)

    async def ask(
        self,
        messages: Sequence[Message],
        read: Callable[[Any], T],
        *,
        label: str,
        options: Mapping[str, Any],
    ) -> T:
        """What `read` makes of the server's reply to `messages`; `options` go to the request.

        Connection errors, time-outs, overload (408, 409, 429, 5xx) and replies for which `read` raises `BadReply`
        are retried. Raises `TaskError`, with `label`, when the server says that the prompt is too long,
        `ServiceError`, naming the server, when it fails otherwise or still after the retries.
        """
        import openai

        self._enter_loop()
        async with self._gate:
            try:
                return await self._ask(messages, read, options)
            except openai.APIStatusError as error:
                detail = first_line(error.message)
                if error.status_code in (400, 413) and "context" in detail.lower():
                    raise TaskError(f"{label}: {detail}") from error
                raise self._failure(f"answered {error.status_code}: {detail}") from error
            except openai.APITimeoutError as error:
                raise self._failure(f"gave no answer within {self._timeout_s:g} s") from error
            except openai.APIConnectionError as error:
                raise self._failure("cannot be reached; is it running, and is base_url right?") from error
            except (BadReply, openai.OpenAIError) as error:
                raise self._failure(f"gave no chat completion: {first_line(error)}") from error

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
                base_url=self.base_url,
                api_key=self._api_key,
                max_retries=self._max_retries,
                timeout=Timeout(self._timeout_s, connect=min(10.0, self._timeout_s)),
            )

    async def _ask(
        self, messages: Sequence[Message], read: Callable[[Any], T], options: Mapping[str, Any]
    ) -> T:
        """One reply; what the client does not retry, a reply that cannot be read, is retried here."""
        import openai
        from tenacity import (
            AsyncRetrying,
            retry_if_exception_type,
            stop_after_attempt,
            wait_random_exponential,
        )

        attempts = AsyncRetrying(
            retry=retry_if_exception_type(BadReply),
            stop=stop_after_attempt(1 + self._max_retries),
            wait=wait_random_exponential(multiplier=0.5, max=8),
            reraise=True,
        )
        async for attempt in attempts:
            with attempt:
                if self.model is None:
                    self.model = await self._first_model()
                try:
                    reply = await self._client.chat.completions.create(
                        model=self.model,
                        messages=[{"role": m.role, "content": m.content} for m in messages],
                        **options,
                    )
                except (json.JSONDecodeError, UnicodeDecodeError, openai.APIResponseValidationError) as error:
                    raise BadReply(first_line(error)) from error
                return read(reply)
        raise AssertionError("unreachable: the last attempt raises")

    async def _first_model(self) -> str:
        try:
            listed = await self._client.models.list()
            return str(listed.data[0].id)
        except (json.JSONDecodeError, UnicodeDecodeError, AttributeError, IndexError, TypeError) as error:
            raise BadReply("it lists no model; set sampler.model") from error

    def _failure(self, what: str) -> ServiceError:
        return ServiceError(f"the server at {self.base_url} {what}")


def base_url_or_default(base_url: str | None) -> str:
    """The server to ask: `base_url`, else the environment's OPENAI_BASE_URL, else OpenAI's own."""
    return base_url or os.environ.get("OPENAI_BASE_URL") or "https://api.openai.com/v1"


def lacks_key(base_url: str | None, api_key_env: str) -> bool:
    """Whether OpenAI's own server would be asked without a key; other servers may not want one."""
    own = base_url or os.environ.get("OPENAI_BASE_URL")
    return not own and not os.environ.get(api_key_env)


def reply_text(reply: Any) -> tuple[Any, str]:
    """The first choice of a reply, and its text. Raises `BadReply` when there is none."""
    try:
        choice = reply.choices[0]
        text = choice.message.content
        _ = choice.finish_reason
    except (AttributeError, IndexError, TypeError):
        raise BadReply(f"no choices in {str(reply)[:80]!r}") from None
    if text is None:
        text = ""  # a refusal, or reasoning that used up all tokens
    if not isinstance(text, str):
        raise BadReply("the message's content is not a text")
    return choice, text


def first_line(error: object) -> str:
    """The first line of an error that says something, at most 300 characters of it."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return (lines or [type(error).__name__])[0][:300]
