"""A sampler over any server that speaks the OpenAI chat protocol (hosted APIs, `vllm serve`, ...)."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from memfactory.core.bounds import AtLeastOne, Retries, Seconds
from memfactory.core.errors import BadInput, TaskError
from memfactory.core.registry import register
from memfactory.core.types import Completion, SamplingRequest
from memfactory.models.openai_chat import OpenAIChat, read_choice, takes_template_options

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
    max_concurrency: AtLeastOne = 16
    timeout_s: Seconds = 120.0
    max_retries: Retries = 5
    token_ids: bool = False
    context: AtLeastOne | None = None


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
        self._token_ids = token_ids
        self._chat = OpenAIChat(
            base_url,
            model,
            api_key_env,
            max_concurrency=max_concurrency,
            timeout_s=timeout_s,
            max_retries=max_retries,
        )

    async def sample(self, request: SamplingRequest) -> Completion:
        """Ask the server for one reply to `request.messages`; see `Sampler.sample`.

        Connection errors, time-outs, overload (408, 409, 429, 5xx) and replies that are no chat
        completion are retried. Raises `TaskError` when the server says that the prompt is too long,
        `ServiceError`, naming the server, when it fails otherwise or still after the retries.
        """
        label = request.label or "request"
        if not request.messages:
            raise TaskError(f"{label}: the openai sampler needs messages")
        return await self._chat.ask(
            request.messages, _completion, label=label, options=self._options(request)
        )

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


def _completion(reply: Any) -> Completion:
    """The first choice of a reply as a completion. Raises `BadReply` when there is none."""
    said = read_choice(reply)
    ids, logprobs = _tokens(said.choice)
    return Completion(ids, logprobs, said.finish, text=said.text, reasoning=said.reasoning)


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
