"""The only view of language models that agents and modules get: roles one can chat with."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from memfactory.core.types import Call, Message


class ChatModel(Protocol):
    """One role (`policy`, `answerer`, ...): something to chat with, and its ruler for text."""

    async def chat(self, messages: Sequence[Message], *, module: str, max_tokens: int) -> Call:
        """Ask once, as an independent conversation; the call is recorded under `module`.

        Raises `TaskError` when prompt and completion do not fit the model's context.
        """
        ...

    def tokens_left(self, messages: Sequence[Message], *, max_tokens: int) -> int:
        """Tokens of the model's context that these messages and a reply of `max_tokens` leave free.

        Negative when they do not fit: `chat` would refuse them.
        """
        ...

    def count_tokens(self, text: str) -> int:
        """Number of tokens of a text."""
        ...

    def split_text(self, text: str, block_tokens: int) -> list[str]:
        """Cut a text at token boundaries into blocks of at most `block_tokens`; joined they are the text."""
        ...

    def truncate_text(self, text: str, max_tokens: int) -> str:
        """The longest prefix of the text, cut at a token boundary, of at most `max_tokens` tokens."""
        ...


class Models(Protocol):
    """The models of one rollout, by role."""

    def __getitem__(self, role: str) -> ChatModel:
        """The model that plays `role`. Raises `BadInput` naming the roles there are."""
        ...

    def seed(self, name: str) -> int | None:
        """A seed of this rollout's own for what the agent itself draws under `name`; None where replies are greedy."""
        ...

    def report(self, done: int, total: int, memory: str | None = None) -> None:
        """Tell whoever watches that `done` of `total` steps are done, and what the memory holds now."""
        ...
