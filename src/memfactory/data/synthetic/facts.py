"""Long texts of small facts: the reading task on which a tiny memory agent is trained and measured in minutes.

A text says who lives where, who plays what and so on, in plain sentences among fillers, far more than a memory
of eight tokens can hold. The question needs one fact, or two about two people, and their places in the text are
uniform: only an agent that keeps what the question asks for, through every block that follows, can answer.

- A *section* is exactly `section_tokens` tokens of the tiny tokenizer, so block borders fall between sentences.
- The person asked about is named once in the text; everybody else may return, with one value for each kind of fact.
- Train and held-out texts use disjoint (name, value) pairs, divided by a hash: held-out facts were never read
  in training.
- Everything is drawn from `random.Random(str)`, so a task is a function of (seed, split, index) and the
  arguments alone.
"""

from __future__ import annotations

import random
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

from memfactory.data.synthetic.vocabulary import (
    DISTRACTORS,
    FACTS,
    FILLERS,
    KINDS,
    NAMES,
    QUESTIONS,
    VALUES,
    words_of,
)

SPLITS = ("train", "heldout")
SECTION_TOKENS = 40
FACTS_PER_SECTION = 4
TWO_FACT_SHARE = 0.3
_HELD_OUT_PERCENT = 20


@dataclass(frozen=True)
class Fact:
    """One thing that a text says of one person."""

    name: str
    kind: str
    value: str

    @property
    def note(self) -> str:
        """The fact as an agent writes it into its memory."""
        return f"{self.name} {self.value}."


@dataclass(frozen=True)
class Section:
    """A piece of text of a fixed number of tokens, and the facts it states, in the order of the text.

    `stated` are the sentences that state them, one for each.
    """

    text: str
    facts: tuple[Fact, ...]
    stated: tuple[str, ...] = ()


def split_of(name: str, value: str) -> str:
    """The split in which a (name, value) pair may appear; a hash decides, so it never depends on list positions."""
    return "heldout" if zlib.crc32(f"{name}|{value}".encode()) % 100 < _HELD_OUT_PERCENT else "train"


@cache
def allowed_values(name: str, kind: str, split: str, values: int | None = None) -> tuple[str, ...]:
    """Values of a kind that may stand with a name in a split; `values` keeps only the first so many of the kind."""
    if split not in SPLITS:
        raise ValueError(f"unknown split {split!r}; known: {', '.join(SPLITS)}")
    return tuple(value for value in VALUES[kind][:values] if split_of(name, value) == split)


def draw_fact(rng: random.Random, name: str, split: str, values: int | None = None) -> Fact:
    """Draw a fact about a person from the pairs of a split."""
    while True:
        kind = rng.choice(KINDS)
        if choices := allowed_values(name, kind, split, values):
            return Fact(name, kind, rng.choice(choices))


def make_question(facts: Sequence[Fact]) -> str:
    """Ask for the facts, in their order: "Where does Anna live and what does Ben play?"."""
    asked = " and ".join(QUESTIONS[fact.kind].format(n=fact.name) for fact in facts)
    return asked[0].upper() + asked[1:] + "?"


def make_answer(facts: Sequence[Fact]) -> str:
    """The gold answer to `make_question` of the same facts: "Paris and violin"."""
    return " and ".join(fact.value for fact in facts)


def make_section(
    rng: random.Random, facts: Sequence[Fact], *, section_tokens: int, others: Sequence[str] = NAMES
) -> Section:
    """State the facts in random order and shapes, between fillers, in exactly `section_tokens` tokens.

    `others` are the people that distractor sentences may name.
    """
    lengths = _filler_lengths()
    shortest = min(lengths)
    for _ in range(100):
        stated = [(fact, _state(rng, fact)) for fact in facts]
        room = section_tokens - sum(count for _, (_, count) in stated)
        if room == 0 or room >= shortest:
            break
    else:
        raise ValueError(f"{len(facts)} facts do not fit into a section of {section_tokens} tokens")
    sentences: list[tuple[Fact | None, str]] = [(fact, text) for fact, (text, _) in stated]
    while room > 0:
        count = rng.choice([n for n in lengths if n == room or room - n >= shortest])
        pattern = rng.choice(lengths[count])
        if "{" in pattern:
            who, whom = rng.sample(others, 2)
            pattern = pattern.format(n=who, m=whom)
        sentences.append((None, pattern))
        room -= count
    rng.shuffle(sentences)
    told = [(fact, text) for fact, text in sentences if fact is not None]
    return Section(
        " ".join(text for _, text in sentences),
        tuple(fact for fact, _ in told),
        tuple(text for _, text in told),
    )


def make_task(
    index: int,
    *,
    seed: int,
    split: str,
    sections: int,
    section_tokens: int = SECTION_TOKENS,
    facts_per_section: int = FACTS_PER_SECTION,
    two_fact_share: float = TWO_FACT_SHARE,
) -> dict[str, Any]:
    """Make one reading task.

    Returns a dict with `id`, `question`, `text`, `answers` and `meta`: the needed facts, the sections in which they
    stand (from 0), the number of facts in the text, and `length`, the text's tokens: `sections * section_tokens`.
    """
    if sections < 1 or facts_per_section < 2:
        raise ValueError("a text needs at least one section, and a section at least two facts")
    rng = random.Random(f"facts|{seed}|{split}|{index}|{sections}|{section_tokens}|{facts_per_section}")
    people = rng.sample(NAMES, 2 if rng.random() < two_fact_share else 1)
    needed = [draw_fact(rng, name, split) for name in people]
    places = [rng.randrange(sections) for _ in needed]
    others = [name for name in NAMES if name not in people]
    known: dict[tuple[str, str], Fact] = {}
    texts: list[str] = []
    gold: list[str] = []
    for number in range(sections):
        here = [fact for fact, place in zip(needed, places, strict=True) if place == number]
        for name in rng.sample(others, facts_per_section - len(here)):
            fact = draw_fact(rng, name, split)
            here.append(known.setdefault((name, fact.kind), fact))
        section = make_section(rng, here, section_tokens=section_tokens, others=others)
        texts.append(section.text)
        gold += [text for fact, text in zip(section.facts, section.stated, strict=True) if fact in needed]
    return {
        "id": f"facts-{split}-s{seed}-{sections}x{section_tokens}-{index}",
        "question": make_question(needed),
        "text": " ".join(texts),
        "answers": [make_answer(needed)],
        "meta": {
            "needed": [[fact.name, fact.kind, fact.value] for fact in needed],
            "sections_needed": places,
            "sections": sections,
            "facts": sections * facts_per_section,
            "length": sections * section_tokens,
            "split": split,
            "benchmark": "facts",
            "gold_evidence": " ".join(gold),
        },
    }


@cache
def _count(pattern: str) -> int:
    """Tokens of a sentence pattern; every placeholder is one word."""
    return len(words_of(pattern.format(n="Anna", m="Anna", v="Paris")))


@cache
def _filler_lengths() -> dict[int, tuple[str, ...]]:
    """Filler and distractor patterns by their number of tokens."""
    patterns = (*FILLERS, *DISTRACTORS)
    return {n: tuple(p for p in patterns if _count(p) == n) for n in sorted({_count(p) for p in patterns})}


def _state(rng: random.Random, fact: Fact) -> tuple[str, int]:
    """A sentence that states the fact, and its number of tokens."""
    pattern = rng.choice(FACTS[fact.kind])
    return pattern.format(n=fact.name, v=fact.value), _count(pattern)
