"""Dialogues about many people in which surface similarity misleads: what sounds like the question does not answer it.

Two people talk about others. One turn states what the question asks for ("These days Anna owns a hamster."); several
turns only wonder about it ("Ben asked what pet Anna should keep.") and share more words with the question than the one
that answers it. Retrieval by words or by embeddings ranks them first; a reranker can learn better.

- Nobody has two values of one kind, so exactly one turn answers the question.
- Train and held-out dialogues use disjoint (name, value) pairs, divided by the hash of `facts.split_of`.
- All words are in the tiny policy's vocabulary. Everything is drawn from `random.Random(str)`: a task is a function of
  (seed, split, index) and the arguments.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from memfactory.core.bounds import AtLeastOne, Count, Seed, Some, SomeOrNone
from memfactory.core.registry import register
from memfactory.core.types import Task
from memfactory.data.dialogue import Dialogue, Session, Turn
from memfactory.data.synthetic.dialogues import session_days
from memfactory.data.synthetic.facts import Fact, allowed_values, draw_fact, make_question
from memfactory.data.synthetic.vocabulary import FACTS, KINDS, NAMES
from memfactory.data.traces import generated

#: What is wondered about a person, nearly in the words of `vocabulary.QUESTIONS`.
WONDERS: dict[str, str] = {
    "home": "where {n} should live",
    "job": "what job {n} will have",
    "pet": "what pet {n} should keep",
    "food": "what food {n} may like",
    "music": "what {n} can play",
    "colour": "what colour {n} may like",
}
#: Sentences around a wonder `{w}`; `{m}` is somebody else. None of them answers anything.
ASIDES: tuple[str, ...] = (
    "{m} asked {w}.",
    "{m} forgot {w}.",
    "{m} never said {w}.",
    "{m} wants to know {w}.",
    "{m} thought about {w}.",
    "Nobody knows {w}.",
    "Who knows {w}?",
    "I am not sure {w}.",
    "We never knew {w}.",
)
#: So that there is always something left to say.
MOST_SENTENCES = 400


@dataclass(frozen=True)
class RerankingConfig:
    """Fields of `reranking`, described at `memfactory.data.synthetic.reranking.make_reranking_task`.

    `split` is train or heldout; `size` tasks, from number `offset` on; `asides` turns share words with the question
    and do not answer it.
    """

    split: Literal["train", "heldout"] = "train"
    size: AtLeastOne = 100_000
    seed: Seed = 0
    offset: Count = 0
    sessions: Some = 3
    turns_per_session: Some = 4
    asides: SomeOrNone = 3


@register("data", "reranking", config=RerankingConfig)
def reranking(
    split: str = "train",
    size: int = 100_000,
    seed: int = 0,
    offset: int = 0,
    sessions: int = 3,
    turns_per_session: int = 4,
    asides: int = 3,
) -> Sequence[Task]:
    """Synthetic dialogues in which what sounds like the question does not answer it, generated as asked for."""

    def make(index: int) -> Task:
        return make_reranking_task(
            offset + index,
            seed=seed,
            split=split,
            sessions=sessions,
            turns_per_session=turns_per_session,
            asides=asides,
        )

    return generated("reranking", size, make)


@dataclass(frozen=True)
class Scene:
    """Sentences that may be remembered, in order, a question, and the place (from 0) of the one that answers it."""

    fact: Fact
    sentences: tuple[str, ...]
    right: int

    @property
    def question(self) -> str:
        """The question: "What pet does Anna keep?"."""
        return make_question([self.fact])

    @property
    def answer(self) -> str:
        """Its answer: "hamster"."""
        return self.fact.value


def make_scene(rng: random.Random, *, split: str, sentences: int, asides: int) -> Scene:
    """Draw a scene of so many sentences in random order, `asides` of them wondering about what is asked.

    The others state facts: half of the same kind of other people, the rest of the person asked about, as far as there
    are kinds, or of anybody; or they wonder about others. Raises `ValueError` for too few sentences.
    """
    if asides < 0 or not asides < sentences <= MOST_SENTENCES:
        raise ValueError(
            f"a scene has at most {MOST_SENTENCES} sentences, and one that answers besides its {asides} asides"
        )
    asked = draw_fact(rng, rng.choice(NAMES), split)
    others = [name for name in rng.sample(NAMES, len(NAMES)) if name != asked.name]
    said = [_state(rng, asked)]
    said += [_wonder(rng, asked.name, asked.kind, others) for _ in range(asides)]
    known = {(asked.name, asked.kind)}
    while len(said) < sentences:
        name, kind = _somebody(rng, asked, others)
        if (name, kind) in known:
            continue
        known.add((name, kind))
        values = allowed_values(name, kind, split)
        if name != asked.name and rng.random() < 0.2:
            said.append(_wonder(rng, name, kind, [*others, asked.name]))
        elif values:
            said.append(_state(rng, Fact(name, kind, rng.choice(values))))
    order = rng.sample(range(len(said)), len(said))
    return Scene(asked, tuple(said[place] for place in order), order.index(0))


def make_reranking_task(
    index: int,
    *,
    seed: int,
    split: str,
    sessions: int,
    turns_per_session: int,
    asides: int,
) -> Task:
    """Make one dialogue of `sessions * turns_per_session` turns with one question about it.

    `meta` has the kind of question, whom and what it is about, and in `evidence_turns` the turn that answers it. Raises
    `ValueError` for options out of range.
    """
    if sessions < 1 or turns_per_session < 1:
        raise ValueError("a dialogue needs at least one session, a session at least one turn")
    rng = random.Random(f"reranking|{seed}|{split}|{index}|{sessions}|{turns_per_session}|{asides}")
    scene = make_scene(rng, split=split, sentences=sessions * turns_per_session, asides=asides)
    speakers = tuple(rng.sample([name for name in NAMES if name != scene.fact.name], 2))
    days = session_days(rng, sessions)
    held = []
    for number in range(sessions):
        first = number * turns_per_session
        turns = tuple(
            Turn(f"D{number + 1}:{place + 1}", speakers[place % 2], text)
            for place, text in enumerate(scene.sentences[first : first + turns_per_session])
        )
        held.append(Session(f"session_{number + 1}", days[number], turns))
    name = f"reranking-{split}-s{seed}-{sessions}x{turns_per_session}-{asides}-{index}"
    evidence = held[scene.right // turns_per_session].turns[scene.right % turns_per_session]
    dialogue = Dialogue(name, speakers, tuple(held))
    return Task(
        id=name,
        question=scene.question,
        evidence=dialogue,
        answers=(scene.answer,),
        meta={
            "question_kind": scene.fact.kind,
            "about": (scene.fact.name, scene.fact.kind),
            "split": split,
            **dialogue.gold((evidence.id,)),
        },
    )


def _somebody(rng: random.Random, asked: Fact, others: Sequence[str]) -> tuple[str, str]:
    """Of whom and what another sentence speaks: often of nearly what is asked."""
    chance = rng.random()
    if chance < 0.5:
        return rng.choice(others), asked.kind
    if chance < 0.75:
        return asked.name, rng.choice(KINDS)
    return rng.choice(others), rng.choice(KINDS)


def _state(rng: random.Random, fact: Fact) -> str:
    return rng.choice(FACTS[fact.kind]).format(n=fact.name, v=fact.value)


def _wonder(rng: random.Random, name: str, kind: str, others: Sequence[str]) -> str:
    return rng.choice(ASIDES).format(m=rng.choice(others), w=WONDERS[kind].format(n=name))
