"""From samplers to what agents see: one chat model for each role, recording the calls of a rollout."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from memfactory.core.chat import ChatModel
from memfactory.core.errors import BadInput, TaskError, did_you_mean
from memfactory.core.replies import Reply, part
from memfactory.core.seeding import derive_seed
from memfactory.core.types import Call, Completion, Message, SamplingParams, SamplingRequest
from memfactory.models.text import Codec
from memfactory.samplers.base import (
    AdapterFiles,
    Layout,
    Sampler,
    engines_of,
    figures_of,
    held_by,
    let_sleep,
    takes_adapters,
    weights_dtype,
)

if TYPE_CHECKING:
    import torch

    from memfactory.samplers.checksums import Held


class SampledModel:
    """A role in one rollout: renders chats, samples, and appends each finished call to `calls`.

    A call's seed depends on `seed_parts` (run seed, phase and step, task id, rollout index), the role,
    and how many calls the role began before in this rollout: never on what runs beside it.
    """

    def __init__(
        self,
        role: str,
        sampler: Sampler,
        codec: Codec,
        params: SamplingParams,
        calls: list[Call],
        seed_parts: Sequence[object],
        trainable: bool = False,
        template: Mapping[str, Any] | None = None,
    ) -> None:
        """`template` are options for the chat template; calls are trained on only if `trainable`.

        `params.max_tokens` is not used: each chat says how long its reply may be.
        """
        self.role = role
        self.sampler = sampler
        self.codec = codec
        self.params = params
        self.calls = calls
        self.seed_parts = tuple(seed_parts)
        self.trainable = trainable
        self.template = dict(template or {})
        self._begun = 0

    async def chat(self, messages: Sequence[Message], *, module: str, max_tokens: int) -> Call:
        """Ask once; see `ChatModel.chat`.

        Raises `TaskError`, naming the numbers, when prompt and completion do not fit the context.
        """
        ordinal = self._begun
        self._begun += 1
        prompt_ids = self.codec.render(messages, **self.template)
        wanted, limit = len(prompt_ids) + max_tokens, self.sampler.max_model_len
        if wanted > limit:
            raise TaskError(
                f"module '{module}': prompt of {len(prompt_ids)} tokens + max_tokens {max_tokens} = {wanted} "
                f"exceeds the context of {limit} tokens of role '{self.role}'"
            )
        request = SamplingRequest(
            prompt_ids=prompt_ids,
            params=replace(self.params, max_tokens=max_tokens),
            seed=derive_seed(*self.seed_parts, self.role, ordinal),
            messages=tuple(messages),
            label=f"module '{module}', call {ordinal}",
            template=self.template,
        )
        completion = await self.sampler.sample(request)
        raw, reply = self._parted(completion, messages)
        text = reply.answer or ""
        call = Call(
            module=module,
            role=self.role,
            prompt_ids=prompt_ids,
            completion_ids=completion.token_ids,
            logprobs=completion.logprobs,
            text=text,
            finish_reason=completion.finish_reason,
            policy_version=completion.policy_version,
            # Without a log-probability for each token there is nothing to train on.
            trainable=self.trainable and 0 < len(completion.token_ids) == len(completion.logprobs),
            prompt_text="\n\n".join(m.content for m in messages),
            raw=None if raw == text else raw,
            problem=reply.problem,
            usage=completion.usage,
            changes=completion.changes,
        )
        self.calls.append(call)
        return call

    def _parted(self, completion: Completion, messages: Sequence[Message]) -> tuple[str, Reply]:
        """The whole reply, and its answer.

        Of a server nobody knows whether it takes thoughts out of its replies. Where the prompt opened a thought and a
        reply without any mark was cut off, the thought is taken to be what was cut.
        """
        cut = completion.finish_reason != "stop"
        text, reasoning = completion.text, completion.reasoning
        opened = (text is None or (cut and not reasoning)) and self.codec.opens_thought(
            messages, **self.template
        )
        raw = self.codec.decode_reply(completion.token_ids) if text is None else text
        reply = part(raw, opened=opened, cut=cut, reasoning=reasoning)
        return (f"<think>{reasoning}</think>\n{raw}" if reasoning else raw), reply

    def fork(self, calls: list[Call], *seed_parts: object) -> SampledModel:
        """The same role in a branch of the rollout: `calls` is its copy, `seed_parts` tell branches apart."""
        branch = SampledModel(
            self.role,
            self.sampler,
            self.codec,
            self.params,
            calls,
            (*self.seed_parts, *seed_parts),
            self.trainable,
            self.template,
        )
        branch._begun = self._begun
        return branch

    def tokens_left(self, messages: Sequence[Message], *, max_tokens: int) -> int:
        """What the context still has beside the rendered chat and its reply; negative if they do not fit."""
        return self.sampler.max_model_len - len(self.codec.render(messages, **self.template)) - max_tokens

    def count_tokens(self, text: str) -> int:
        """Number of tokens of a text."""
        return self.codec.count(text)

    def split_text(self, text: str, block_tokens: int) -> list[str]:
        """Blocks of at most `block_tokens` tokens; joined they are the text."""
        return self.codec.split(text, block_tokens)

    def truncate_text(self, text: str, max_tokens: int) -> str:
        """The longest prefix of at most `max_tokens` tokens."""
        return self.codec.truncate(text, max_tokens)


class RolloutModels:
    """The roles of one rollout; implements `core.chat.Models`."""

    def __init__(
        self,
        models: Mapping[str, ChatModel],
        progress: Callable[[int, int, str | None], None] | None = None,
        seed_parts: Sequence[object] | None = None,
    ) -> None:
        """`seed_parts` are what the agent's own draws depend on; None where it shall not draw (greedy rollouts)."""
        self._models = dict(models)
        self._progress = progress
        self._seed_parts = None if seed_parts is None else tuple(seed_parts)

    def __getitem__(self, role: str) -> ChatModel:
        """The model that plays `role`. Raises `BadInput` naming the roles there are."""
        found = self._models.get(role)
        if found is None:
            known = ", ".join(self._models) or "none"
            raise BadInput(
                f"no model plays the role '{role}'; roles: {known}{did_you_mean(role, self._models)}"
            )
        return found

    def seed(self, name: str) -> int | None:
        """The rollout's seed for the agent's draws under `name`; None in a greedy rollout."""
        return None if self._seed_parts is None else derive_seed(*self._seed_parts, "agent", name)

    def report(self, done: int, total: int, memory: str | None = None) -> None:
        """Pass progress on to whoever watches."""
        if self._progress is not None:
            self._progress(done, total, memory)


@dataclass(frozen=True)
class Player:
    """Who plays a role: a sampler, its ruler for text, how it draws, and options for its chat template."""

    sampler: Sampler
    codec: Codec
    params: SamplingParams
    template: Mapping[str, Any] = field(default_factory=dict)


class Cast:
    """The policy's sampler together with those of all other roles: one thing to open, to sync and to close.

    As a `Sampler` it is the policy's: weights go to the policy alone, so frozen roles stay as they were loaded,
    with the prefixes that they cached. `others` maps each further role to who plays it.
    """

    def __init__(self, policy: Sampler, others: Mapping[str, Player] | None = None) -> None:
        self.policy = policy
        self.others = dict(others or {})

    @property
    def max_model_len(self) -> int:
        """The policy's; see `Sampler`."""
        return self.policy.max_model_len

    @property
    def policy_version(self) -> int:
        """Version of the policy's weights; see `Sampler`."""
        return self.policy.policy_version

    async def sample(self, request: SamplingRequest) -> Completion:
        """Draw from the policy; see `Sampler.sample`."""
        return await self.policy.sample(request)

    def load_weights(self, named_tensors: Iterable[tuple[str, torch.Tensor]], version: int) -> None:
        """Give the policy new weights; see `Sampler.load_weights`."""
        self.policy.load_weights(named_tensors, version)

    @property
    def takes_adapters(self) -> bool:
        """Whether the policy is synced by `load_adapter`; see `samplers.base.takes_adapters`."""
        return takes_adapters(self.policy)

    def load_adapter(self, adapter: AdapterFiles, version: int) -> None:
        """Give the policy new adapters; see `load_weights`."""
        self.policy.load_adapter(adapter, version)  # type: ignore[attr-defined]

    @property
    def dtype(self) -> str | None:
        """Type of the policy's weights; see `samplers.base.weights_dtype`."""
        return weights_dtype(self.policy)

    def held(self, layout: Layout, turn: int) -> Sequence[Held]:
        """What the policy's engines hold; see `samplers.base.held_by`."""
        return held_by(self.policy, layout, turn)

    def held_adapter(self, layout: Layout) -> Sequence[Held]:
        """What the policy's engines hold of adapters; see `samplers.base.held_by`."""
        return held_by(self.policy, layout, 0, adapter=True)

    def sleep(self) -> None:
        """Let the policy's sampler sleep; see `let_sleep`."""
        let_sleep(self.policy)

    def engines(self) -> Sequence[Sampler]:
        """The policy's engines; see `engines_of`."""
        return engines_of(self.policy)

    def figures(self) -> Mapping[str, float]:
        """Those of the policy's sampler; see `figures_of`."""
        return figures_of(self.policy)

    def close(self) -> None:
        """Free all engines, each once; idempotent."""
        for sampler in {id(s): s for s in (self.policy, *(p.sampler for p in self.others.values()))}.values():
            sampler.close()
