"""A sampler over any server that speaks the OpenAI chat protocol (hosted APIs, `vllm serve`, ...)."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from memfactory.core.address import check_address
from memfactory.core.bounds import AtLeastOne, Retries, Seconds
from memfactory.core.errors import BadInput, TaskError
from memfactory.core.registry import register
from memfactory.core.types import Completion, SamplingRequest, Usage
from memfactory.models.chat_parameters import check_parameters
from memfactory.models.openai_chat import OpenAIChat, read_choice, takes_template_options, usage_of

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
    `timeout_s` is for one attempt, from the connection to the last byte; `max_retries` attempts follow the first, with
    growing waits. `extra_body` is merged into every request; `max_tokens_name` is the server's name for the length of a
    reply, `leave_out` names parameters that are not sent. What a server refuses of them is found out without these.
    """

    base_url: str = "http://localhost:8000/v1"
    model: str | None = None
    api_key_env: str = "OPENAI_API_KEY"
    max_concurrency: AtLeastOne = 16
    timeout_s: Seconds = 120.0
    max_retries: Retries = 5
    token_ids: bool = False
    context: AtLeastOne | None = None
    extra_body: dict[str, Any] = field(default_factory=dict)
    max_tokens_name: str = "max_tokens"
    leave_out: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        check_address(self.base_url)
        check_parameters(self.max_tokens_name, self.leave_out, self.extra_body)


@register("sampler", "openai", config=OpenAIConfig)
class OpenAISampler:
    """Any OpenAI-compatible server, with retries, a time limit and a limit on requests in flight."""

    takes_weights = False
    """Nothing that learns can be tried here; `--dry-run` and `train` refuse it by this."""

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
        extra_body: Mapping[str, Any] | None = None,
        max_tokens_name: str = "max_tokens",
        leave_out: Sequence[str] = (),
        *,
        max_model_len: int = 32768,
    ) -> None:
        """Connects at the first request only; `context` goes before `max_model_len`.

        Raises `BadInput` for a server that cannot be named or a key that cannot be sent.
        """
        if max_concurrency < 1 or timeout_s <= 0 or max_retries < 0:
            raise BadInput(
                "sampler: max_concurrency and timeout_s must be positive, max_retries not negative"
            )
        self.max_model_len = context or max_model_len
        self.policy_version = 0
        self._token_ids = token_ids
        self._chat = OpenAIChat(
            base_url,
            model,
            api_key_env,
            max_concurrency=max_concurrency,
            timeout_s=timeout_s,
            max_retries=max_retries,
            extra_body=extra_body,
            max_tokens_name=max_tokens_name,
            leave_out=leave_out,
            key="sampler: base_url",
        )

    async def sample(self, request: SamplingRequest) -> Completion:
        """Ask the server for one reply to `request.messages`; see `Sampler.sample`.

        Connection errors, time-outs, overload (408, 409, 429, 5xx) and replies that are no chat
        completion are retried. Raises `TaskError` when the server refuses this prompt or filters its reply,
        `ServiceError`, naming the server, when it fails otherwise or still after the retries.
        """
        label = request.label or "request"
        if not request.messages:
            raise TaskError(f"{label}: the openai sampler needs messages")
        completion = await self._chat.ask(
            request.messages, read_completion, label=label, options=self._options(request)
        )
        return replace(completion, changes=self._chat.changes)

    def load_weights(self, named_tensors: Iterable[tuple[str, torch.Tensor]], version: int) -> None:
        """Always raises `BadInput`: a server takes no weights from us."""
        raise BadInput(
            f"the server at {self._chat.base_url} cannot take weights; use sampler=vllm or sampler=hf to train"
        )

    def close(self) -> None:
        """Forget the connections; idempotent."""
        self._chat.close()

    def _options(self, request: SamplingRequest) -> dict[str, Any]:
        params = request.params
        extra: dict[str, Any] = {}
        if params.top_k > 0:
            extra["top_k"] = params.top_k  # no part of the protocol, but servers that know it take it
        if self._token_ids:
            extra["return_tokens_as_token_ids"] = True
        if request.template and takes_template_options(self._chat.base_url):
            extra["chat_template_kwargs"] = dict(request.template)
        return {
            "temperature": params.temperature,
            "top_p": params.top_p,
            "max_tokens": params.max_tokens,
            "seed": request.seed,
            **({"logprobs": True} if self._token_ids else {}),
            **({"extra_body": extra} if extra else {}),
        }


def read_completion(reply: Any) -> Completion:
    """The first choice of a reply as a completion. Raises `BadReply` when there is none."""
    said = read_choice(reply)
    ids, logprobs = _tokens(said.choice)
    prompt, completion = usage_of(reply)
    usage = Usage(prompt, len(ids) if ids and completion is None else completion)
    return Completion(ids, logprobs, said.finish, text=said.text, reasoning=said.reasoning, usage=usage)


def _tokens(choice: Mapping[str, Any]) -> tuple[tuple[int, ...], tuple[float, ...]]:
    """Sampled ids and log-probabilities if the server tells ids, else nothing: text is never re-tokenised."""
    try:
        content = choice["logprobs"]["content"]
        ids = tuple(int(entry["token"].removeprefix(_TOKEN_ID)) for entry in content if _has_id(entry))
        logprobs = tuple(float(entry["logprob"]) for entry in content)
    except (AttributeError, KeyError, TypeError, ValueError, OverflowError):
        return (), ()
    told = len(ids) == len(logprobs) and all(map(math.isfinite, logprobs))
    return (ids, logprobs) if told else ((), ())


def _has_id(entry: Mapping[str, Any]) -> bool:
    return str(entry["token"]).startswith(_TOKEN_ID)
