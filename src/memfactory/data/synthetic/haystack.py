"""Texts of an exact length, in which something is hidden: what RULER and BABILong are made with.

A `Draft` is one task before its length is known; `fit` makes its text as long as asked for.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import islice
from pathlib import Path

from memfactory.core.errors import BadInput

#: Measures a text in tokens.
Count = Callable[[str], int]
_PIECE = re.compile(r"(?P<letters>[^\W\d_]+)|(?P<digits>\d+)|[^\w\s]|_")
_LONGEST_SENTENCE = 40


@dataclass(frozen=True)
class Draft:
    """A task of any length. `padding(n)` are words that lengthen `text(n)` by less than a unit."""

    question: str
    answers: tuple[str, ...]
    evidence: str | None
    text: Callable[[int], str]
    padding: Callable[[int], Iterator[str]]


def fit(draft: Draft, count: Count, length: int) -> str:
    """The text of a draft with `length` tokens as `count` measures them, or a few less: whole units, then words.

    Raises `ValueError` for a length that the task does not fit into.
    """
    units = largest(draft.text, count, length)
    text = draft.text(units)

    def padded(words: int) -> str:
        return " ".join([text, *islice(draft.padding(units), words)])

    spare = length - count(text)
    if spare > 0 and next(draft.padding(units), None) is not None:
        return padded(largest(padded, count, length))
    return text


def placed(units: Sequence[str], lines: Sequence[str], depths: Sequence[float]) -> list[str]:
    """Units of haystack with each line put in at its depth (a share of the text); equal places keep their order."""
    held: list[str] = []
    done = 0
    for depth, line in sorted(zip(depths, lines, strict=True), key=lambda pair: pair[0]):
        place = int(depth * (len(units) + 1))
        held += [*units[done:place], line]
        done = place
    return [*held, *units[done:]]


def largest(text: Callable[[int], str], count: Count, length: int) -> int:
    """The largest n for which `text(n)` has at most `length` tokens, found by interpolation.

    Where counts do not grow evenly it is a nearby n that fits. Raises `ValueError` when `text(0)` is too long.
    """
    low, low_size = 0, count(text(0))
    if low_size > length:
        raise ValueError(f"length {length} is too short: the task alone has {low_size} tokens")
    base, high, high_size = low_size, -1, 0
    guess = 8
    for round_ in range(200):
        size = count(text(guess))
        if size <= length:
            low, low_size = guess, size
        else:
            high, high_size = guess, size
        if high - low == 1:
            break
        if high < 0:
            each = (low_size - base) / low
            ahead = int((length - low_size) / each) if each > 0 else low
            guess = low + min(max(ahead, 1), 8 * low)
        elif round_ < 12:
            each = (high_size - low_size) / (high - low)
            guess = min(max(low + int((length - low_size) / each), low + 1), high - 1)
        else:
            guess = (low + high) // 2
    return low


def token_counter(tokenizer: str | None, component: str) -> Count:
    """The tokenizer of a model as a ruler for texts, or the estimate.

    Raises `BadInput` naming the data component for a model that is not there.
    """
    if tokenizer is None:
        return estimated_tokens
    try:
        return _counter_of(tokenizer)
    except BadInput as error:
        raise BadInput(f"data '{component}': tokenizer: {str(error).removeprefix('model.path: ')}") from error


@cache
def _counter_of(tokenizer: str) -> Count:
    from memfactory.models.source import resolve_model
    from memfactory.models.text import TextCodec

    return TextCodec.from_folder(resolve_model(tokenizer)).count


def estimated_tokens(text: str) -> int:
    """A token for every 8 letters of a word begun, for every 3 digits of a number, and for every mark."""
    total = 0
    for piece in _PIECE.finditer(text):
        width = {"letters": 8, "digits": 3}.get(piece.lastgroup or "", 1)
        total += -(-len(piece[0]) // width)
    return total


def read_sentences(path: str, component: str) -> tuple[str, ...]:
    """The sentences of a text file, those of more than 40 words in pieces. Raises `BadInput` when it has none."""
    try:
        text = Path(path).expanduser().read_text(encoding="utf-8")
    except FileNotFoundError:
        raise BadInput(f"data '{component}': haystack file '{path}' does not exist") from None
    except (OSError, UnicodeDecodeError) as error:
        raise BadInput(
            f"data '{component}': haystack file '{path}' cannot be read as UTF-8 text: {error}"
        ) from None
    sentences = tuple(_pieces(text))
    if not sentences:
        raise BadInput(f"data '{component}': haystack file '{path}' holds no text")
    return sentences


def _pieces(text: str) -> Iterator[str]:
    for sentence in re.split(r"(?<=[.!?])\s+", text):
        words = sentence.split()
        for start in range(0, len(words), _LONGEST_SENTENCE):
            yield " ".join(words[start : start + _LONGEST_SENTENCE])
