"""BABILong (arXiv 2406.10149): a small story with a question about it, its sentences far apart in a long text.

Stories are simulated (`memfactory.data.synthetic.babi`), not taken from bAbI's files; the haystack is a text of the
user's, or sentences of no meaning. The published texts take their haystack from books (PG-19).
"""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from memfactory.core.bounds import AtLeastOne, Seed, TextTokens
from memfactory.core.errors import BadInput, did_you_mean
from memfactory.core.registry import register
from memfactory.core.types import Task
from memfactory.data.synthetic.babi import LABELS, TASKS, make_story
from memfactory.data.synthetic.haystack import Count, Draft, fit, placed, read_sentences, token_counter
from memfactory.data.traces import generated

#: The haystack where there is none: nobody and nothing of a story is in it.
NOISE: tuple[str, ...] = (
    "The weather changed twice before noon.",
    "Nobody could say how old the bridge was.",
    "A long train passed in the distance.",
    "The clock on the tower was always late.",
    "Some letters arrive years after they were sent.",
    "The river was higher than in spring.",
    "There was a smell of rain in the air.",
    "Most of the shops close early in winter.",
    "The old map showed roads that no longer exist.",
    "A dog barked somewhere and then it was quiet.",
    "The price of salt had not changed for years.",
    "Several ships waited outside the harbour.",
    "It is said that the mountain was once an island.",
    "The newspaper had only four pages that day.",
    "Many stories begin with a storm.",
    "The lamps were lit one after the other.",
    "No two of the houses had the same colour.",
    "The music stopped as suddenly as it had begun.",
    "Snow covered the hills until late in March.",
    "The last visitors were gone before sunset.",
)
TaskName = Literal["qa1", "qa2", "qa3", "qa4", "qa5"]


@dataclass(frozen=True)
class BabiLongConfig:
    """Fields of `babilong`.

    A text has `length` tokens, at most one in a hundred fewer, as measured by the tokenizer of a model
    (`tokenizer`: folder, hub id or alias; null estimates). `haystack` is a text file to hide the story in; without
    one it is hidden among sentences of no meaning. Tasks of another `seed` are other tasks.
    """

    task: TaskName = "qa1"
    length: TextTokens = 4096
    size: AtLeastOne = 100
    seed: Seed = 0
    haystack: str | None = None
    tokenizer: str | None = None


@register("data", "babilong", config=BabiLongConfig, source="BABILong, arXiv 2406.10149")
def babilong(
    task: str = "qa1",
    length: int = 4096,
    size: int = 100,
    seed: int = 0,
    haystack: str | None = None,
    tokenizer: str | None = None,
) -> Sequence[Task]:
    """Reasoning in a haystack: where somebody or something is, was, or what was given, at any length."""
    if task not in TASKS:
        hint = did_you_mean(task, TASKS) or f"; known: {', '.join(TASKS)}"
        raise BadInput(f"data 'babilong': unknown task '{task}'{hint}")
    sentences = read_sentences(haystack, "babilong") if haystack is not None else ()
    count = token_counter(tokenizer, "babilong")

    def make(index: int) -> Task:
        return make_task(index, task=task, length=length, seed=seed, count=count, haystack=sentences)

    return generated("babilong", size, make)


def make_task(
    index: int, *, task: str, length: int, seed: int, count: Count, haystack: Sequence[str] = ()
) -> Task:
    """Make one task whose text has `length` tokens as `count` measures them, or up to 1 % fewer.

    `haystack` are the sentences to hide the story in, `NOISE` if there are none. It is a function of its arguments
    alone. Raises `ValueError` for a length that the story does not fit into.
    """
    story = make_story(task, random.Random(f"babilong|{task}|{seed}|{index}"))
    rng = random.Random(f"babilong|{task}|{seed}|{index}|{length}")
    # The facts keep their order, and stand anywhere in the text.
    depths = sorted(rng.random() for _ in story.sentences)
    stream = _from(haystack, rng.randrange(len(haystack))) if haystack else _noise(rng)
    drawn: list[str] = []

    def units(n: int) -> Sequence[str]:
        while len(drawn) < n:
            drawn.append(next(stream))
        return drawn[:n]

    def padding(n: int) -> Iterator[str]:
        return (word for place in itertools.count(n) for word in units(place + 1)[place].split())

    support = "\n".join(story.sentences[i] for i in story.support)
    draft = Draft(
        question=story.question,
        answers=(story.answer,),
        evidence=support,
        text=lambda n: " ".join(placed(units(n), story.sentences, depths)),
        padding=padding,
    )
    meta = {
        "benchmark": "babilong",
        "metric": "babilong",
        "group": task,
        "task": task,
        "length": length,
        "labels": LABELS[task],
        "facts": len(story.sentences),
        "gold_evidence": support,
    }
    text = fit(draft, count, length)
    return Task(f"babilong-{task}-{length}-s{seed}-{index}", draft.question, text, draft.answers, meta)


def _from(sentences: Sequence[str], start: int) -> Iterator[str]:
    """The sentences of a text from one of them on, over and over."""
    return (sentences[place % len(sentences)] for place in itertools.count(start))


def _noise(rng: random.Random) -> Iterator[str]:
    """Sentences of no meaning: all of them in random order, and again."""
    while True:
        yield from rng.sample(NOISE, len(NOISE))
