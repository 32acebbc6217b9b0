"""A connection to any server that speaks the OpenAI chat protocol: retries, time limits, errors in one line."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar
from urllib.parse import urlsplit

from memfactory.core.errors import ServiceError, TaskError
from memfactory.core.replies import Reply, part
from memfactory.core.types import FinishReason, Message

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


@dataclass(frozen=True)
class Said:
    """The first choice of a reply: its text, the thought if the server tells it apart, and how it ended."""

    choice: Any
    text: str
    reasoning: str = ""
    finish: FinishReason = "stop"

    def parted(self) -> Reply:
        """Its answer and its thought."""
        return part(self.text, cut=self.finish != "stop", reasoning=self.reasoning)


def read_choice(reply: Any) -> Said:
    """What the first choice of a reply says. Raises `BadReply` when there is none.

    Texts in parts are joined. A message without content (a refusal, or a thought that used up all tokens) says nothing,
    and then it did not end as it should.
    """
    try:
        choice = reply.choices[0]
        content, reason = choice.message.content, choice.finish_reason
    except (AttributeError, IndexError, TypeError):
        raise BadReply(f"no choices in {str(reply)[:80]!r}") from None
    text, thought = _parts(content)
    for name in ("reasoning_content", "reasoning", "thinking"):
        apart = getattr(choice.message, name, None)
        if isinstance(apart, str) and apart.strip():
            thought = apart
            break
    finish: FinishReason = reason if reason in ("stop", "length") else "error"
    return Said(choice, text, thought, "error" if finish == "stop" and content is None else finish)


def _parts(content: Any) -> tuple[str, str]:
    """Text and thought of a message's content, which may be a list of parts."""
    if content is None:
        return "", ""
    if isinstance(content, str):
        return content, ""
    if not isinstance(content, list):
        raise BadReply("the message's content is not a text")
    said: dict[str, list[str]] = {"text": [], "thinking": []}
    for piece in content:
        kind = piece.get("type") if isinstance(piece, dict) else None
        value = piece.get(kind) if kind in said else None
        if isinstance(value, list):
            value = _parts(value)[0]
        if not isinstance(value, str):
            raise BadReply("the message's content is not a text")
        said[str(kind)].append(value)
    return "".join(said["text"]), "".join(said["thinking"])


def takes_template_options(base_url: str) -> bool:
    """Whether a server may be sent `chat_template_kwargs`: the official API refuses fields that it does not know."""
    host = (urlsplit(base_url).hostname or "").lower()
    return host != "api.openai.com" and not host.endswith((".openai.com", ".openai.azure.com"))


def first_line(error: object) -> str:
    """The first line of an error that says something, at most 300 characters of it."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return (lines or [type(error).__name__])[0][:300]
