"""BABILong's score (arXiv 2406.10149, public scorer): is the right label the only one that the reply names?"""

from __future__ import annotations

from collections.abc import Sequence

from memfactory.core.texts import nfc


def score(prediction: str, golds: Sequence[str], question: str, labels: Sequence[str]) -> float:
    """1.0 if a gold answer is the only label in the reply's first sentence, labels of the question aside; else 0.0.

    `labels` are the words that answers of the task can be. As in the public scorer, in any case of letters, only up
    to the first full stop, and a label that the question names counts neither for nor against: a reply may repeat it.
    """
    said = _plain(prediction).split(".")[0]
    asked = _plain(question)
    named = {label for label in map(_plain, labels) if label in said and label not in asked}
    wanted = [golds] if isinstance(golds, str) else golds
    return float(any(named == {_plain(gold)} for gold in wanted))


def _plain(text: str) -> str:
    return nfc(text).lower()
