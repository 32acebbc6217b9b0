"""The parameters of a chat request as one server takes them: others' names, more of them, or fewer."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from typing import Any

from memfactory.models.refusals import ErrorWords, names_setting

#: Two names for one thing: models that reason before they answer want the second.
LENGTH_NAMES = ("max_tokens", "max_completion_tokens")
#: What a server may be asked without, in the order in which it is given up, and what that means.
_DISPENSABLE = {
    "seed": "the same seed need not give the same replies",
    "top_k": "replies are drawn without top_k",
    "top_p": "replies are drawn at the server's own top_p",
    "temperature": "replies are drawn at the server's own temperature",
}


class ChatParameters:
    """What goes into a request beside model and messages. It learns from refusals, once for each server."""

    def __init__(
        self,
        extra_body: Mapping[str, Any] | None = None,
        max_tokens_name: str = LENGTH_NAMES[0],
        leave_out: Collection[str] = (),
    ) -> None:
        """`extra_body` is merged in, `max_tokens_name` is the server's name for the length of a reply."""
        self._extra = dict(extra_body or {})
        self._length = max_tokens_name
        self._refused_lengths: set[str] = set()
        self._left_out = set(leave_out)
        self.changes: tuple[str, ...] = ()
        """What was changed because the server refused it, one line each."""

    def body(self, options: Mapping[str, Any]) -> dict[str, Any]:
        """The parameters to send for `options`, which have the names of the OpenAI protocol."""
        given = {**options, **options.get("extra_body", {})}
        given.pop("extra_body", None)
        named = {self._length if name == "max_tokens" else name: value for name, value in given.items()}
        return {name: value for name, value in named.items() if name not in self._left_out} | self._extra

    def adapt(self, words: ErrorWords, sent: Mapping[str, Any]) -> bool:
        """Whether to ask again because a parameter that was `sent` is refused and the server can be asked without.

        Several requests may be refused for the same parameter at once: what was changed is changed once.
        """
        name = self._refused(words, sent)
        if name is None:
            return False
        if name in self._left_out or name in self._refused_lengths:
            return True
        if name in _DISPENSABLE:
            self._left_out.add(name)
            self._note(f"it refuses {name} ({words.line}), which is left out: {_DISPENSABLE[name]}")
            return True
        other = LENGTH_NAMES[1 - LENGTH_NAMES.index(name)]
        self._refused_lengths.add(name)
        if other in self._refused_lengths:
            return False
        self._length = other
        self._note(f"it wants {other} instead of {name}")
        return True

    def _refused(self, words: ErrorWords, sent: Mapping[str, Any]) -> str | None:
        if not names_setting(words):
            return None
        sent_names = [
            name for name in (*LENGTH_NAMES, *_DISPENSABLE) if name in sent and name not in self._extra
        ]
        if words.parameter in sent_names:
            return words.parameter
        return next((n for n in sent_names if re.search(rf"(?<!\w){n}(?!\w)", words.line)), None)

    def _note(self, line: str) -> None:
        self.changes = (*self.changes, line)


def named_parameter(words: ErrorWords, sent: Mapping[str, Any]) -> str | None:
    """The sent parameter that the words of a refusal are about, for a remedy."""
    if words.parameter in sent:
        return words.parameter
    found = [name for name in sent if re.search(rf"(?<!\w){re.escape(name)}(?!\w)", words.line)]
    return found[0] if found else None


def check_parameters(max_tokens_name: str, leave_out: Collection[str], extra_body: Mapping[str, Any]) -> None:
    """Raise `ValueError` for what no request could be made of."""
    for name in ("messages", "model", "stream", "n"):
        if name in extra_body or name in leave_out:
            raise ValueError(f"{name} cannot be set by extra_body or leave_out")
    if not max_tokens_name.strip():
        raise ValueError("max_tokens_name is empty; leave the length out by leave_out: [max_tokens]")
