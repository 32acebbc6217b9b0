"""A sampler that replies from a script: for tests of everything that is not a model."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from memfactory.core.errors import BadInput
from memfactory.core.registry import register
from memfactory.core.types import Completion, FinishReason, SamplingRequest
from memfactory.models.text import ByteCodec, Codec

if TYPE_CHECKING:
    import torch

Reply = str | Completion


@dataclass(frozen=True)
class ScriptedConfig:
    """Fields of `sampler: {type: scripted}`: replies given in turn, again from the first at the end."""

    replies: list[str] = field(default_factory=lambda: ["\\boxed{unknown}"])


@register("sampler", "scripted", config=ScriptedConfig)
class ScriptedSampler:
    """Replies from a list, in turn, or from a function of the request; records every request.

    A reply is cut at the request's `max_tokens` and otherwise ends with an end-of-sequence token. Its
    log-probabilities are 0: a script is certain.
    """

    scripted = True
    """What it says does not depend on weights, so that they changed cannot show in it."""
    takes_weights = False
    """Nothing that learns can be tried here; `--dry-run` and `train` refuse it by this."""

    def __init__(
        self,
        replies: Sequence[Reply] | Callable[[SamplingRequest], Reply] = ("",),
        *,
        codec: Codec | None = None,
        max_model_len: int = 1_000_000,
        takes_weights: bool = False,
    ) -> None:
        """`codec` makes token ids of replies (bytes without it); `takes_weights` lets `load_weights` pass."""
        if not callable(replies) and not replies:
            raise BadInput("the scripted sampler needs at least one reply")
        self.max_model_len = max_model_len
        self.policy_version = 0
        self.requests: list[SamplingRequest] = []
        self._codec: Codec = codec or ByteCodec()
        self._replies = replies
        self._takes_weights = takes_weights

    async def sample(self, request: SamplingRequest) -> Completion:
        """The script's next reply. What a reply function raises is passed on."""
        turn = len(self.requests)
        self.requests.append(request)
        script = self._replies
        reply = script(request) if callable(script) else script[turn % len(script)]
        if isinstance(reply, Completion):
            return reply
        ids = self._codec.encode(reply)
        eos = min(self._codec.eos_ids, default=None)
        if eos is not None:
            ids = (*ids, eos)
        cut = ids[: request.params.max_tokens]
        reason: FinishReason = "stop" if len(cut) == len(ids) else "length"
        return Completion(cut, (0.0,) * len(cut), reason, policy_version=self.policy_version)

    def load_weights(self, named_tensors: Iterable[tuple[str, torch.Tensor]], version: int) -> None:
        """Note the version if built with `takes_weights`, else raise `BadInput`."""
        if not self._takes_weights:
            raise BadInput(
                "the scripted sampler cannot take weights; use sampler=vllm or sampler=hf to train"
            )
        for _ in named_tensors:
            pass
        self.policy_version = version

    def close(self) -> None:
        """Nothing to free."""
