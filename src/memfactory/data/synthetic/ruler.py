"""RULER (arXiv 2404.06654): synthetic tasks about texts of any length, made as they are asked for.

The definitions are the published ones; word lists, code and essays are not. Two things differ: `length` is that
of the text alone, as the agent brings its own prompt, and there are no worked examples in front.
"""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import islice
from pathlib import Path
from typing import Literal

from memfactory.core.errors import BadInput, did_you_mean
from memfactory.core.registry import register
from memfactory.core.types import Task
from memfactory.data.synthetic.ruler_tasks import TASKS, draft, needs_essay
from memfactory.data.traces import generated

#: Measures a text in tokens.
Count = Callable[[str], int]
TaskName = Literal[
    "niah_single_1",
    "niah_single_2",
    "niah_single_3",
    "niah_multikey_1",
    "niah_multikey_2",
    "niah_multikey_3",
    "niah_multivalue",
    "niah_multiquery",
    "vt",
    "cwe",
    "fwe",
]
_PIECE = re.compile(r"(?P<letters>[^\W\d_]+)|(?P<digits>\d+)|[^\w\s]|_")
_LONGEST_SENTENCE = 40


@dataclass(frozen=True)
class RulerConfig:
    """Fields of `ruler`.

    A text has `length` tokens, at most one in a hundred fewer, as measured by the tokenizer of a model
    (`tokenizer`: folder, hub id or alias; null estimates). `haystack` is a text file for the tasks that hide
    their needles in essays: niah_single_2, niah_single_3, niah_multikey_1, niah_multivalue, niah_multiquery.
    """

    task: TaskName = "niah_single_1"
    length: int = 4096
    size: int = 100
    seed: int = 0
    haystack: str | None = None
    tokenizer: str | None = None


@register("data", "ruler", config=RulerConfig, source="RULER, arXiv 2404.06654")
def ruler(
    task: str = "niah_single_1",
    length: int = 4096,
    size: int = 100,
    seed: int = 0,
    haystack: str | None = None,
    tokenizer: str | None = None,
) -> Sequence[Task]:
    """RULER's retrieval, tracing and counting tasks at any length, generated as asked for."""
    if task not in TASKS:
        hint = did_you_mean(task, TASKS) or f"; known: {', '.join(TASKS)}"
        raise BadInput(f"data 'ruler': unknown task '{task}'{hint}")
    if needs_essay(task) and haystack is None:
        raise BadInput(
            f"data 'ruler': task {task} hides its needles in a text; name a file with haystack=..."
        )
    if haystack is not None and not needs_essay(task):
        raise BadInput(f"data 'ruler': task {task} makes its own text; leave haystack out")
    essay = read_sentences(haystack) if haystack is not None else ()
    count = token_counter(tokenizer)
    return generated(
        "ruler",
        size,
        lambda index: make_task(index, task=task, length=length, seed=seed, count=count, essay=essay),
    )


def make_task(
    index: int, *, task: str, length: int, seed: int, count: Count, essay: Sequence[str] = ()
) -> Task:
    """Make one task whose text has `length` tokens as `count` measures them, or up to 1 % fewer.

    `essay` are sentences for the tasks that need some. It is a function of its arguments alone.
    Raises `ValueError` for a length that the task does not fit into.
    """
    made = draft(task, random.Random(f"ruler|{task}|{length}|{seed}|{index}"), length, essay)
    units = largest(made.text, count, length)
    text = made.text(units)

    def padded(words: int) -> str:
        return " ".join([text, *islice(made.padding(units), words)])

    spare = length - count(text)
    if spare > 0 and next(made.padding(units), None) is not None:
        text = padded(largest(padded, count, length))
    meta = {"metric": "string_match_all", "benchmark": "ruler", "task": task, "length": length}
    if made.evidence is not None:
        meta["gold_evidence"] = made.evidence
    return Task(f"ruler-{task}-{length}-s{seed}-{index}", made.question, text, made.answers, meta)


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


def token_counter(tokenizer: str | None) -> Count:
    """The tokenizer of a model as a ruler for texts, or the estimate. Raises `BadInput` for no such model."""
    return estimated_tokens if tokenizer is None else _counter_of(tokenizer)


@cache
def _counter_of(tokenizer: str) -> Count:
    from memfactory.models.source import resolve_model
    from memfactory.models.text import TextCodec

    try:
        return TextCodec.from_folder(resolve_model(tokenizer)).count
    except BadInput as error:
        raise BadInput(f"data 'ruler': tokenizer: {str(error).removeprefix('model.path: ')}") from error


def estimated_tokens(text: str) -> int:
    """A token for every 8 letters of a word begun, for every 3 digits of a number, and for every mark."""
    total = 0
    for piece in _PIECE.finditer(text):
        width = {"letters": 8, "digits": 3}.get(piece.lastgroup or "", 1)
        total += -(-len(piece[0]) // width)
    return total


def read_sentences(path: str) -> tuple[str, ...]:
    """The sentences of a text file, those of more than 40 words in pieces. Raises `BadInput` when it has none."""
    try:
        text = Path(path).expanduser().read_text(encoding="utf-8")
    except FileNotFoundError:
        raise BadInput(f"data 'ruler': haystack file '{path}' does not exist") from None
    except (OSError, UnicodeDecodeError) as error:
        raise BadInput(
            f"data 'ruler': haystack file '{path}' cannot be read as UTF-8 text: {error}"
        ) from None
    sentences = tuple(_pieces(text))
    if not sentences:
        raise BadInput(f"data 'ruler': haystack file '{path}' holds no text")
    return sentences


def _pieces(text: str) -> Iterator[str]:
    for sentence in re.split(r"(?<=[.!?])\s+", text):
        words = sentence.split()
        for start in range(0, len(words), _LONGEST_SENTENCE):
            yield " ".join(words[start : start + _LONGEST_SENTENCE])
