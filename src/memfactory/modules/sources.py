"""On which turns of a session a memory rests, told from its words: a model's reply does not say it."""

from __future__ import annotations

from collections import Counter

from memfactory.data.dialogue import Session
from memfactory.memory.bm25 import words


def supporting_turns(text: str, session: Session) -> tuple[str, ...]:
    """Ids of the turns that share most with a text, in order; all of the session when none shares a word.

    A word counts 1 / (turns that have it), so names that come everywhere decide little. Speakers' names and
    captions of pictures count as words of their turns.
    """
    spoken = [set(words(str(turn))) for turn in session.turns]
    turns_with = Counter(word for turn in spoken for word in turn)
    wanted = set(words(text))
    scores = [sum(1 / turns_with[word] for word in sorted(wanted & turn)) for turn in spoken]
    best = max(scores, default=0.0)
    return tuple(turn.id for turn, score in zip(session.turns, scores, strict=True) if score >= best - 1e-9)
