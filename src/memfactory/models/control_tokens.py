"""A tokenizer in which only the chat template makes control tokens.

Tokenizers turn `<|im_end|>` into one token wherever it stands, so a document could end its own turn and begin another.
Here control tokens have other names, which no text can guess: the template's are given these names, and what a text
calls a control token is words. All else is the tokenizer's own work, so other texts have the ids they always had.
"""

from __future__ import annotations

import json
import re
import secrets
from collections.abc import Mapping
from functools import cached_property
from typing import TYPE_CHECKING, Any

from memfactory.core.replies import is_mark, marks_among

if TYPE_CHECKING:
    from tokenizers import Tokenizer

#: Letters that chat templates leave as they are; the number of a control token follows.
_WORD = "qZxControl"


class ControlTokens:
    """The control tokens of a tokenizer: those that it calls special, and those of its chat template and of thoughts.

    `<tool_call>` of Qwen is none to the tokenizer, but the template makes it. Runs of spaces, and the HTML tags that
    some tokenizers have a token for, are ordinary text.
    """

    def __init__(self, engine: Tokenizer, template: str) -> None:
        added = engine.get_added_tokens_decoder()
        marks = marks_among([token.content for token in added.values()])
        self.ids: dict[str, int] = {
            token.content: number
            for number, token in added.items()
            if token.content.strip()
            and (token.special or token.content in marks or _in_template(token.content, template))
        }
        self.marks: dict[str, int] = {name: self.ids[name] for name in marks}
        self._engine = engine
        # A tokenizer that normalises a text before it looks for them finds them in more than one spelling.
        self._hidden = engine.normalizer is not None and any(added[i].normalized for i in self.ids.values())
        names = sorted(self.ids, key=len, reverse=True)
        self._pattern = re.compile("|".join(map(re.escape, names)) or r"(?!)")
        self._nonce = secrets.token_hex(8)
        self._numbers = {name: place for place, name in enumerate(names)}

    def among(self, text: str) -> bool:
        """Whether a text may hold what the tokenizer would take for a control token."""
        return self._hidden or self._pattern.search(text) is not None

    def word_not_in(self, *texts: str) -> str:
        """A word that stands in none of the texts."""
        word = _WORD
        while any(word in text for text in texts):
            word += "Z"
        return word

    def hide(self, text: str, word: str, *, thoughts: bool = True) -> str:
        """The text with a word for each control token, to fill a template with; without `thoughts` their marks stay."""
        return self._pattern.sub(
            lambda m: m[0] if is_mark(m[0]) and not thoughts else f"{word}{self._numbers[m[0]]}x", text
        )

    def count_marks(self, text: str) -> int:
        """How many marks of thoughts a text has."""
        return sum(is_mark(name) for name in self._pattern.findall(text))

    def named(self, text: str, word: str) -> str:
        """A filled template, its own control tokens under their other names, and all that was hidden written out."""
        names = list(self._numbers)
        text = self._pattern.sub(lambda m: self._name(m[0]), text)
        return re.sub(rf"{word}(\d+)x", lambda m: names[int(m[1])], text)

    def with_marks(self, text: str) -> str:
        """A reply with the marks of thoughts under their other names: models sample these themselves."""
        return self._pattern.sub(lambda m: self._name(m[0]) if m[0] in self.marks else m[0], text)

    @cached_property
    def plain(self) -> Tokenizer:
        """The tokenizer, its control tokens under their other names."""
        from tokenizers import Tokenizer

        made: dict[str, Any] = json.loads(self._engine.to_str())
        made["padding"] = made["truncation"] = None
        for token in made["added_tokens"]:
            if token["content"] in self.ids:
                token["content"] = self._name(token["content"])
        _rename(made["model"], {name: self._name(name) for name in self.ids})
        return Tokenizer.from_str(json.dumps(made))

    def _name(self, name: str) -> str:
        return f"\ue000{self._nonce}{self._numbers[name]}\ue001"


def _in_template(name: str, template: str) -> bool:
    return any(character.isalpha() for character in name) and name in template


def _rename(model: dict[str, Any], names: Mapping[str, str]) -> None:
    """Give entries of a model's vocabulary other names, so that no text becomes one of them piece by piece."""
    vocabulary = model.get("vocab")
    if isinstance(vocabulary, dict):
        model["vocab"] = {names.get(name, name): number for name, number in vocabulary.items()}
    elif isinstance(vocabulary, list):
        model["vocab"] = [[names.get(name, name), score] for name, score in vocabulary]
    if model.get("unk_token") in names:
        model["unk_token"] = names[model["unk_token"]]
    if isinstance(model.get("merges"), list):
        model["merges"] = [pair for pair in model["merges"] if not _makes(pair, names)]


def _makes(pair: Any, names: Mapping[str, str]) -> bool:
    parts = pair.split(" ") if isinstance(pair, str) else pair
    return "".join(parts) in names or any(part in names for part in parts)
