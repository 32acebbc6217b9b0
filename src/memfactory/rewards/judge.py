"""A language model as judge of answers: for what is right in other words, where exact match sees nothing.

A judge that cannot be reached, or that answers neither of its two words, leaves an answer *unjudged*: that is
counted and left out, never scored as wrong.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from memfactory.core.address import check_address
from memfactory.core.bounds import AtLeastOne, Retries, Seconds
from memfactory.core.errors import BadInput, ServiceError, TaskError
from memfactory.core.files import write_text
from memfactory.core.registry import register
from memfactory.core.replies import answer_in
from memfactory.core.types import Message, Rollout, Usage, Verdict
from memfactory.metrics.boxed import last_boxed
from memfactory.models.chat_parameters import check_parameters
from memfactory.models.openai_chat import (
    BadReply,
    OpenAIChat,
    base_url_or_default,
    lacks_key,
    read_choice,
    takes_template_options,
    usage_of,
)
from memfactory.models.source import cache_dir
from memfactory.modules.prompts import fill

#: Characters of an answer that a judge reads: an endless one must not become unjudged for its length.
LONGEST_ANSWER = 8000


@dataclass(frozen=True)
class JudgeConfig:
    """Fields of `type: judge`.

    `model` is asked at `base_url` (null: the environment's OPENAI_BASE_URL, else OpenAI's own) with the key in the
    environment variable `api_key_env`, at temperature 0. `prompt` has {question}, {gold} and {answer}; the reply must
    hold the word `right` or the word `wrong` (words in capitals as they stand, others in any case), not counting what
    it thinks before; `max_tokens` must leave room for both. `chat_template_kwargs` ({enable_thinking: false}) are sent
    to servers that have a chat template, never to OpenAI's own. `timeout_s` is for one attempt; `max_retries` follow
    the first, with growing waits. `extra_body`, `max_tokens_name` and `leave_out` are those of the sampler `openai`.
    Answers are kept in the folder `cache` (null: `judge` in MEMFACTORY_CACHE, else
    ~/.cache/memfactory/judge).
    """

    model: str
    prompt: str
    right: str = "CORRECT"
    wrong: str = "WRONG"
    base_url: str | None = None
    api_key_env: str = "OPENAI_API_KEY"
    max_tokens: AtLeastOne = 256
    max_concurrency: AtLeastOne = 16
    timeout_s: Seconds = 60.0
    max_retries: Retries = 5
    cache: str | None = None
    chat_template_kwargs: dict[str, Any] = field(default_factory=dict)
    extra_body: dict[str, Any] = field(default_factory=dict)
    max_tokens_name: str = "max_tokens"
    leave_out: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.base_url is not None:
            check_address(self.base_url)
        check_parameters(self.max_tokens_name, self.leave_out, self.extra_body)
        for name in ("question", "gold", "answer"):
            if "{" + name + "}" not in self.prompt:
                raise ValueError(f"prompt does not contain {{{name}}}")
        if not self.right or not self.wrong or self.right.casefold() == self.wrong.casefold():
            raise ValueError("right and wrong must be two different words")


@register(
    "reward", "judge", config=JudgeConfig, source="LoCoMo, arXiv 2402.17753; LongMemEval, arXiv 2410.10813"
)
class Judge:
    """1 if a language model finds the answer right, 0 if wrong, nothing if it cannot be asked."""

    def __init__(
        self,
        model: str,
        prompt: str,
        right: str = "CORRECT",
        wrong: str = "WRONG",
        base_url: str | None = None,
        api_key_env: str = "OPENAI_API_KEY",
        max_tokens: int = 256,
        max_concurrency: int = 16,
        timeout_s: float = 60.0,
        max_retries: int = 5,
        cache: str | None = None,
        chat_template_kwargs: Mapping[str, Any] | None = None,
        extra_body: Mapping[str, Any] | None = None,
        max_tokens_name: str = "max_tokens",
        leave_out: Sequence[str] = (),
    ) -> None:
        """Connects at the first question only. Raises `BadInput` when OpenAI's server lacks its key."""
        if lacks_key(base_url, api_key_env):
            raise BadInput(
                f"reward 'judge': {model} needs a key in the environment variable {api_key_env}; "
                "for a server of your own set OPENAI_BASE_URL, or the reward's base_url"
            )
        self.model, self.prompt, self.right, self.wrong = model, prompt, right, wrong
        self._options: dict[str, Any] = {"temperature": 0.0, "max_tokens": max_tokens}
        if chat_template_kwargs and takes_template_options(base_url_or_default(base_url)):
            self._options["extra_body"] = {"chat_template_kwargs": dict(chat_template_kwargs)}
        self._chat = OpenAIChat(
            base_url_or_default(base_url),
            model,
            api_key_env,
            max_concurrency=max_concurrency,
            timeout_s=timeout_s,
            max_retries=max_retries,
            extra_body=extra_body,
            max_tokens_name=max_tokens_name,
            leave_out=leave_out,
            key="reward 'judge': base_url" if base_url else "OPENAI_BASE_URL",
        )
        self._sent = {"extra_body": dict(extra_body or {}), "leave_out": sorted(leave_out)}
        self._sent = {name: value for name, value in self._sent.items() if value}
        self._folder = cache_dir() / "judge" if cache is None else Path(cache).expanduser()
        self._asking: dict[str, asyncio.Task[Verdict]] = {}

    async def __call__(self, rollout: Rollout) -> Verdict | None:
        r"""The verdict on what stands in the reply's last `\boxed{}`, or on the whole reply without one.

        None for a task without gold answers; 0.0 for a rollout that failed.
        """
        if not rollout.task.answers:
            return None
        if rollout.error is not None or rollout.outcome is None:
            return Verdict(self.model, 0.0, "there is no answer")
        reply = answer_in(rollout.outcome.reply)
        boxed = last_boxed(reply)
        prompt = fill(
            self.prompt,
            question=rollout.task.question,
            gold=" or ".join(rollout.task.answers),
            answer=(reply if boxed is None else boxed)[-LONGEST_ANSWER:],
        )
        try:
            return await self._verdict(prompt)
        except (ServiceError, TaskError) as error:
            return Verdict(self.model, None, str(error), Usage(), self._chat.changes)

    async def _verdict(self, prompt: str) -> Verdict:
        """From the cache, or from the server; the same question is under way once at most, and paid for once."""
        content: list[Any] = [self._chat.base_url, self.model, prompt, self.right, self.wrong, self._options]
        if self._sent:
            content.append(self._sent)
        key = hashlib.sha256(json.dumps(content).encode()).hexdigest()
        known = self._cached(key)
        if known is not None:
            return known
        first = key not in self._asking
        if first:
            self._asking[key] = asyncio.ensure_future(self._ask(key, prompt))
            self._asking[key].add_done_callback(lambda _: self._asking.pop(key, None))
        # Rollouts that wait for the same answer must not lose it when one of them is given up.
        verdict = await asyncio.shield(self._asking[key])
        return verdict if first else replace(verdict, usage=None)

    async def _ask(self, key: str, prompt: str) -> Verdict:
        def read(reply: Any) -> tuple[float, str, Usage]:
            choice = read_choice(reply)
            said, cut = choice.parted(), choice.finish == "length"
            if said.answer is None:
                raise BadReply(f"the judge gives no verdict: {said.problem}; raise its max_tokens")
            value = read_verdict(said.answer, self.right, self.wrong)
            if value is not None and cut and not _begins_with(said.answer, (self.right, self.wrong)):
                raise BadReply("the judge was cut off before its verdict; raise its max_tokens")
            if value is None:
                raise BadReply(f"the judge says neither {self.right} nor {self.wrong}: {said.answer[:80]!r}")
            return value, said.answer, Usage(*usage_of(reply))

        value, text, usage = await self._chat.ask(
            [Message("user", prompt)], read, label="judge", options=self._options
        )
        verdict = Verdict(self.model, value, text, usage, self._chat.changes)
        self._keep(key, verdict)
        return verdict

    def _cached(self, key: str) -> Verdict | None:
        """A file that a crash left unreadable is no answer; it is asked for again and replaced."""
        try:
            kept = json.loads((self._folder / key[:2] / f"{key}.json").read_bytes())
            text = kept["reply"]
            value = read_verdict(text, self.right, self.wrong)
            changes = tuple(map(str, kept.get("changes", ())))
        except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
            return None
        return None if value is None else Verdict(self.model, value, text, None, changes)

    def _keep(self, key: str, verdict: Verdict) -> None:
        """Written beside and then renamed, under a name of its own: several processes may share the folder."""
        folder = self._folder / key[:2]
        record: dict[str, Any] = {"judge": self.model, "reply": verdict.said}
        if verdict.changes:
            record["changes"] = list(verdict.changes)
        write_text(folder / f"{key}.json", json.dumps(record))


def read_verdict(reply: str, right: str, wrong: str) -> float | None:
    """1.0 for `right`, 0.0 for `wrong`, None if the reply does not say which; never raises.

    A thought is left out before; one that was not finished has no verdict behind it. A reply with both words counts
    only by the one at its very end, and not if it begins with the other.
    """
    reply = answer_in(reply)
    found = [
        (m.start(), m.end(), 1.0 if n == 0 else 0.0)
        for n, w in enumerate((right, wrong))
        for m in _find(w, reply)
    ]
    values = {value for _, _, value in found}
    if len(values) == 1:
        return values.pop()
    if not found:
        return None
    (start, _, first), (_, end, last) = min(found), max(found)
    begins = not re.search(r"\w", reply[:start])
    ends = not re.search(r"\w", reply[end:])
    return last if ends and not (begins and first != last) else None


def _begins_with(reply: str, words: tuple[str, ...]) -> bool:
    """Whether a verdict comes first: what is cut off behind it does not matter."""
    return any(not re.search(r"\w", reply[: m.start()]) for word in words for m in _find(word, reply)[:1])


def _find(word: str, text: str) -> list[re.Match[str]]:
    flags = 0 if word.isupper() else re.IGNORECASE
    return list(re.finditer(rf"(?<!\w){re.escape(word)}(?!\w)", text, flags))
