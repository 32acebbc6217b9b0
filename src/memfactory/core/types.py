"""The nouns every part of MemFactory speaks in: task, call, rollout, group, row.

They hold plain Python values only: agents, environments and rewards see these and never a tensor.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from memfactory.core.replies import part

FinishReason = Literal["stop", "length", "error"]


@dataclass(frozen=True)
class Task:
    """One item of work: a question about evidence, and the answers that count as right.

    `evidence` is what the agent reads: for long-context environments a text; other environments
    bring their own value (dialogue sessions, for instance). `meta` is free (source, level, ...).
    """

    id: str
    question: str
    evidence: Any
    answers: tuple[str, ...] = ()
    meta: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Message:
    """One chat message."""

    role: Literal["system", "user", "assistant"]
    content: str


@dataclass(frozen=True)
class SamplingParams:
    """How completions are drawn. Always explicit: a model folder's own defaults are never used.

    `temperature` 0 means greedy; `top_k` 0 means no limit; `max_tokens` bounds the completion.
    """

    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int = 0
    max_tokens: int = 256


@dataclass(frozen=True)
class SamplingRequest:
    """One prompt for a sampler. `seed` makes the draw repeatable; `label` is for error messages.

    `messages` is the chat the ids were rendered from, `template` the options that the chat template had: servers
    that only take text need both.
    """

    prompt_ids: tuple[int, ...]
    params: SamplingParams
    seed: int
    messages: tuple[Message, ...] = ()
    label: str = ""
    template: Mapping[str, Any] = field(default_factory=dict, hash=False)


@dataclass(frozen=True)
class Usage:
    """Tokens of a prompt and of its completion as a server counted them; None where it does not say."""

    prompt_tokens: int | None = None
    completion_tokens: int | None = None


def summed(counts: Iterable[int | None]) -> int | None:
    """The sum, or None if any of them is unknown."""
    known = list(counts)
    return None if any(count is None for count in known) else sum(count or 0 for count in known)


@dataclass(frozen=True)
class Completion:
    """What a sampler drew for one request.

    `logprobs` are natural-log probabilities of `token_ids` under softmax(logits / T), T being the request's
    temperature (1 for a greedy request), before `top_k` and `top_p` cut it (one each; empty when the sampler
    cannot tell, and then not trainable).
    An end-of-sequence token is in `token_ids` only if it was sampled. `text` is what a server said that tells no ids,
    or not only ids; `reasoning` the thought before it, if the server tells that apart. `usage` is what a server
    counted, where the sampler knows no tokens; `changes` is what the server was asked otherwise than the request says,
    one line each.
    """

    token_ids: tuple[int, ...]
    logprobs: tuple[float, ...]
    finish_reason: FinishReason
    text: str | None = None
    policy_version: int = 0
    reasoning: str = ""
    usage: Usage | None = field(default=None, compare=False)
    changes: tuple[str, ...] = field(default=(), compare=False)


@dataclass(frozen=True)
class Call:
    """One model request an agent made, kept exactly as sampled.

    `text` is the answer alone: what the model thought before it is left out (`core.replies`). A reply without an
    answer, such as a thought that was cut off, has an empty `text`, and `problem` says in one line why. `raw` is the
    whole reply with its thought, where that is more than `text`.
    `trainable` is true for calls of the policy; calls of frozen or remote roles are only recorded. `usage` and
    `changes` are those of the `Completion`.
    """

    module: str
    role: str
    prompt_ids: tuple[int, ...]
    completion_ids: tuple[int, ...]
    logprobs: tuple[float, ...]
    text: str
    finish_reason: FinishReason
    policy_version: int
    trainable: bool
    prompt_text: str = ""
    raw: str | None = None
    problem: str = ""
    usage: Usage | None = field(default=None, compare=False)
    changes: tuple[str, ...] = field(default=(), compare=False)

    @property
    def answer(self) -> str | None:
        """`text`, or None when the reply holds no answer."""
        return (
            None if self.problem else part(self.text).answer
        )  # whoever made the call may have left a thought in

    @property
    def whole(self) -> str:
        """The reply with its thought."""
        return self.text if self.raw is None else self.raw

    @property
    def prompt_tokens(self) -> int | None:
        """Tokens of the prompt: the server's count, or None where a server does not tell."""
        return len(self.prompt_ids) if self.usage is None else self.usage.prompt_tokens

    @property
    def completion_tokens(self) -> int | None:
        """Tokens that were sampled: the server's count, or None where a server does not tell."""
        return len(self.completion_ids) if self.usage is None else self.usage.completion_tokens


@dataclass(frozen=True)
class Outcome:
    """What an agent returns: its final reply, and what its memory held after every step."""

    reply: str
    memories: tuple[str, ...] = ()
    info: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class MemoryState:
    """What an agent's memory held once `calls` calls of its rollout were finished (0: before the first)."""

    calls: int
    text: str


@dataclass(frozen=True)
class Verdict:
    """What a judge (`judge` is its name) made of a rollout: a value in [0, 1], or None if it could not be judged.

    `said` is the judge's reply, or in one line why there is none. `usage` are the tokens that it cost, None where
    nobody was asked (known already, or shared with another rollout); `changes` are those of the `Completion`.
    """

    judge: str
    value: float | None
    said: str = ""
    usage: Usage | None = field(default=None, compare=False)
    changes: tuple[str, ...] = field(default=(), compare=False)


@dataclass
class Rollout:
    """The calls one agent run made on one task, its outcome, and its named reward components.

    `index` tells the G rollouts of a group apart. `error` is set when the run could not be
    finished (a server that failed, a prompt too long): such a rollout is counted, never trained on.
    `lost` tells that a service failed and not the task: run again, it may well be finished.
    `seconds` passed from its start to its end, beside all others.
    `verdicts` are those of judges, by component; one without a value has no entry in `rewards`.
    `states` is the memory over time, as the agent reported it.
    """

    task: Task
    index: int
    calls: list[Call] = field(default_factory=list)
    outcome: Outcome | None = None
    rewards: dict[str, float] = field(default_factory=dict)
    error: str | None = None
    lost: bool = False
    seconds: float = field(default=0.0, compare=False)
    verdicts: dict[str, Verdict] = field(default_factory=dict)
    states: list[MemoryState] = field(default_factory=list)


@dataclass(frozen=True)
class Row:
    """One trainable call ready for the loss, with the advantage of its rollout (and module).

    `rollout_id` numbers rollouts within the batch, for the `rollout` denominator.
    """

    prompt_ids: tuple[int, ...]
    completion_ids: tuple[int, ...]
    behaviour_logprobs: tuple[float, ...]
    advantage: float
    rollout_id: int
    module: str = ""
