"""A connection to any server that speaks the OpenAI chat protocol: retries, time limits, errors in one line."""

from __future__ import annotations

import asyncio
import logging
import os
import random
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar
from urllib.parse import urlsplit

from memfactory.core.address import address_of, key_in, masked
from memfactory.core.errors import ServiceError, TaskError
from memfactory.core.http import Connection, HttpFailed
from memfactory.core.http import Reply as HttpReply
from memfactory.core.replies import Reply, part
from memfactory.core.types import FinishReason, Message
from memfactory.models.chat_parameters import ChatParameters, named_parameter
from memfactory.models.refusals import ErrorWords, blame, error_words, one_line

T = TypeVar("T")

_log = logging.getLogger(__name__)
#: A prompt that nobody refuses, to find out whether a refusal is about the prompt.
_HARMLESS = Message("user", "Say hello.")
#: Headers of OpenAI's API that say who pays, and the environment variables that its clients read.
_ACCOUNTS = {"openai-organization": "OPENAI_ORG_ID", "openai-project": "OPENAI_PROJECT_ID"}
#: The longest wait, in seconds, that a server may ask for between two attempts.
_LONGEST_WAIT = 60.0


class BadReply(Exception):
    """The server answered 200 with something that cannot be used; it is asked again."""


class _Refused(Exception):
    """The server answered with an error."""

    def __init__(self, status: int, words: ErrorWords, sent: Mapping[str, Any], wait: float | None) -> None:
        super().__init__(words.line)
        self.status, self.words, self.sent, self.wait = status, words, sent, wait
        self.blame = blame(status, words)

    def __str__(self) -> str:
        return f"answered {self.status}: {self.words.line or 'without a word'}"


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
        extra_body: Mapping[str, Any] | None = None,
        max_tokens_name: str = "max_tokens",
        leave_out: Collection[str] = (),
        key: str = "base_url",
    ) -> None:
        """Connects at the first request only. `model` None takes the first model that the server lists.

        `key` names the address in messages; the other parameters are those of `ChatParameters`. Raises `BadInput`
        for an address that names no server and a key that cannot be sent.
        """
        address = address_of(base_url, key)
        self.base_url = address.url
        self.model = model
        self.parameters = ChatParameters(extra_body, max_tokens_name, leave_out)
        accounts = {header: key_in(variable) for header, variable in _ACCOUNTS.items()}
        headers = {header: value for header, value in accounts.items() if value is not None}
        self._http = Connection(address, key=key_in(api_key_env), headers=headers)
        self._key_env = api_key_env
        self._max_concurrency = max_concurrency
        self._timeout_s = timeout_s
        self._max_retries = max_retries
        # A semaphore belongs to one event loop; each loop gets its own.
        self._loop: asyncio.AbstractEventLoop | None = None
        self._gate = asyncio.Semaphore(max_concurrency)
        self._probing = asyncio.Lock()
        self._answered: set[str] = set()
        self._told = 0

    async def ask(
        self,
        messages: Sequence[Message],
        read: Callable[[Any], T],
        *,
        label: str,
        options: Mapping[str, Any],
    ) -> T:
        """What `read` makes of the server's reply (a JSON object) to `messages`; `options` go to the request.

        Connection errors, time-outs, overload (408, 409, 425, 429, 5xx) and replies for which `read` raises `BadReply`
        are retried. Raises `TaskError`, with `label` and the server's words, when the server refuses this prompt (too
        long, filtered), `ServiceError`, naming the server, when it fails otherwise or still after the retries.
        """
        self._enter_loop()
        async with self._gate:
            try:
                return await self._ask(messages, read, options)
            except _Refused as error:
                if await self._is_the_prompts_fault(error, options):
                    raise TaskError(f"{label}: the server {error}") from error
                raise self._failure(f"{error}{self._remedy(error)}") from error
            except Filtered as error:
                raise TaskError(f"{label}: the server {error}") from error
            except HttpFailed as error:
                raise self._failure(str(error)) from error
            except BadReply as error:
                raise self._failure(f"gave no chat completion: {one_line(str(error))}") from error

    @property
    def changes(self) -> tuple[str, ...]:
        """What is sent otherwise than asked for because the server refused it, one line each with its name."""
        return tuple(f"the server at {self.base_url}: {change}" for change in self.parameters.changes)

    def close(self) -> None:
        """Forget the connections; idempotent."""
        self._loop = None
        self._http.close()

    def _enter_loop(self) -> None:
        loop = asyncio.get_running_loop()
        if self._loop is not loop:
            self._loop = loop
            self._gate = asyncio.Semaphore(self._max_concurrency)
            self._probing = asyncio.Lock()

    async def _ask(
        self, messages: Sequence[Message], read: Callable[[Any], T], options: Mapping[str, Any]
    ) -> T:
        """One reply, after as many attempts as it takes and may take."""
        from tenacity import AsyncRetrying, retry_if_exception, stop_after_attempt

        attempts = AsyncRetrying(
            retry=retry_if_exception(_worth_another),
            stop=stop_after_attempt(1 + self._max_retries),
            wait=lambda state: _wait(
                state.attempt_number, state.outcome.exception() if state.outcome else None
            ),
            reraise=True,
        )
        async for attempt in attempts:
            with attempt:
                if self.model is None:
                    self.model = await self._first_model()
                value = await self._adapted(messages, options)
                require_unfiltered(value)
                found = _read(value, read)
                self._answered.add(_kind(options))
                return found
        raise AssertionError("unreachable: the last attempt raises")

    async def _adapted(self, messages: Sequence[Message], options: Mapping[str, Any]) -> Any:
        """One attempt, again with other parameters where the server says that it does not take these."""
        while True:
            try:
                return await self._attempt(messages, options)
            except _Refused as error:
                if error.status not in (400, 422) or not self.parameters.adapt(error.words, error.sent):
                    raise
                for change in self.changes[self._told :]:
                    _log.warning("%s", change)
                self._told = len(self.changes)

    async def _attempt(self, messages: Sequence[Message], options: Mapping[str, Any]) -> Any:
        parameters = self.parameters.body(options)
        chat = [{"role": m.role, "content": _sendable(m.content)} for m in messages]
        body = {"model": self.model, "messages": chat, **parameters}
        reply = await self._http.request("POST", "chat/completions", body, seconds=self._timeout_s)
        if reply.status != 200:
            raise _refusal(reply, parameters)
        value = _value(reply)
        if isinstance(value, dict) and value.get("error") and not value.get("choices"):
            words = error_words(value)
            refused = _Refused(_status_in(value), words, parameters, None)
            if refused.blame in ("prompt", "request"):
                raise refused
            raise BadReply(words.line or "an error without a word")
        return value

    async def _first_model(self) -> str:
        reply = await self._http.request("GET", "models", seconds=self._timeout_s)
        if reply.status != 200:
            raise _refusal(reply, {})
        try:
            name = _value(reply)["data"][0]["id"]
        except (KeyError, IndexError, TypeError):
            name = None
        if not isinstance(name, str) or not name:
            raise BadReply("it lists no model; set sampler.model")
        return name

    async def _is_the_prompts_fault(self, error: _Refused, options: Mapping[str, Any]) -> bool:
        """Whether another prompt would have been answered: where words do not tell, one is asked."""
        if error.blame != "unclear":
            return error.blame == "prompt"
        async with self._probing:
            if _kind(options) not in self._answered:
                try:
                    await self._attempt([_HARMLESS], options)
                except (_Refused, HttpFailed, BadReply):
                    return False
                self._answered.add(_kind(options))
        return True

    def _remedy(self, error: _Refused) -> str:
        if error.status in (401, 403):
            return f"; the key is that of the environment variable {self._key_env}"
        if error.status == 404:
            missing = "" if self.base_url.endswith("/v1") else ", and is /v1 missing at the end of base_url?"
            what = "does it list its models" if self.model is None else f"is there a model '{self.model}'"
            return f"; {what}{missing or '?'}"
        name = named_parameter(error.words, error.sent)
        return "" if name is None else f"; leave_out: [{name}] asks without it, extra_body sends others"

    def _failure(self, what: str) -> ServiceError:
        return ServiceError(f"the server at {self.base_url} {what}")


class Filtered(Exception):
    """A reply that the server's filter took away."""


def require_unfiltered(value: Any) -> None:
    """Raise `Filtered` for a reply of status 200 that says that there is none."""
    try:
        choice = value["choices"][0]
        reason, message = choice.get("finish_reason"), choice.get("message") or {}
        refusal = message.get("refusal")
        text = message.get("content")
    except (AttributeError, IndexError, KeyError, TypeError):
        return  # whoever reads the reply says what is wrong with it
    if reason == "content_filter":
        raise Filtered("filtered its reply (finish_reason content_filter)")
    if isinstance(refusal, str) and refusal.strip() and not text:
        raise Filtered(f"refused: {one_line(refusal)}")


def _read(value: Any, read: Callable[[Any], T]) -> T:
    try:
        return read(value)
    except RecursionError:
        raise BadReply("it is nested too deeply") from None


def _value(reply: HttpReply) -> Any:
    try:
        return reply.json()
    except ValueError as error:
        raise BadReply(str(error)) from None


def _refusal(reply: HttpReply, sent: Mapping[str, Any]) -> _Refused:
    text = reply.content[:20000].decode(errors="replace")
    try:
        words = error_words(reply.json(), text)
    except ValueError:
        words = error_words(None, text)
    return _Refused(reply.status, words, sent, _asked_wait(reply.headers))


def _status_in(value: Mapping[str, Any]) -> int:
    """The status that an error in a reply of status 200 would have had (OpenRouter); 500 if it does not say."""
    error = value.get("error")
    code = error.get("code") if isinstance(error, dict) else None
    return code if type(code) is int and 400 <= code < 600 else 500


def _kind(options: Mapping[str, Any]) -> str:
    """What the requests of a kind have in common: all but the prompt and the seed."""
    return repr(sorted((name, repr(value)) for name, value in options.items() if name != "seed"))


def _worth_another(error: BaseException) -> bool:
    if isinstance(error, HttpFailed):
        return error.again
    return isinstance(error, BadReply) or (isinstance(error, _Refused) and error.blame == "later")


def _wait(attempt: int, error: BaseException | None) -> float:
    """Seconds until the next attempt: what the server asks for, else growing, and random to keep requests apart."""
    asked = error.wait if isinstance(error, _Refused) else None
    return random.uniform(0, min(8.0, 0.5 * 2**attempt)) if asked is None else asked


def _asked_wait(headers: Mapping[str, str]) -> float | None:
    for name, scale in (("retry-after-ms", 0.001), ("retry-after", 1.0)):
        try:
            seconds = float(headers[name]) * scale
        except (KeyError, ValueError):
            continue
        if 0 <= seconds <= _LONGEST_WAIT:
            return seconds
    return None


def _sendable(text: str) -> str:
    """A text that every server can read: a lone half of a surrogate pair is no character."""
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def base_url_or_default(base_url: str | None) -> str:
    """The server to ask: `base_url`, else the environment's OPENAI_BASE_URL, else OpenAI's own."""
    return base_url or os.environ.get("OPENAI_BASE_URL") or "https://api.openai.com/v1"


def lacks_key(base_url: str | None, api_key_env: str) -> bool:
    """Whether OpenAI's own server would be asked without a key; other servers may not want one."""
    own = base_url or os.environ.get("OPENAI_BASE_URL")
    return not own and not os.environ.get(api_key_env, "").strip()


@dataclass(frozen=True)
class Said:
    """The first choice of a reply: its text, the thought if the server tells it apart, and how it ended."""

    choice: Mapping[str, Any]
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
        choice = reply["choices"][0]
        message = choice["message"]
        content, reason = message.get("content"), choice.get("finish_reason")
    except (AttributeError, KeyError, IndexError, TypeError):
        raise BadReply("it has no choices with a message in it") from None
    text, thought = _parts(content)
    for name in ("reasoning_content", "reasoning", "thinking"):
        apart = message.get(name)
        if isinstance(apart, str) and apart.strip():
            thought = apart
            break
    text, thought = _sendable(text), _sendable(thought)
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


def usage_of(reply: Any) -> tuple[int | None, int | None]:
    """Tokens of prompt and completion as the server counted them, each None where it does not say."""
    usage = reply.get("usage") if isinstance(reply, dict) else None
    found = usage if isinstance(usage, dict) else {}
    counts = [found.get(name) for name in ("prompt_tokens", "completion_tokens")]
    prompt, completion = (n if type(n) is int and 0 <= n < 10**12 else None for n in counts)
    return prompt, completion


def first_line(error: object) -> str:
    """The first line of an error that says something, at most 300 characters of it."""
    lines = [line.strip() for line in masked(str(error)).splitlines() if line.strip()]
    return (lines or [type(error).__name__])[0][:300]
