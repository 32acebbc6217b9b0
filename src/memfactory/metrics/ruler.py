"""RULER's scores (arXiv 2404.06654): which of the gold strings occur in the reply, in any case of letters.

`string_match_all` serves niah, vt, cwe and fwe; `string_match_part` serves the qa tasks.
"""

from __future__ import annotations

from collections.abc import Sequence

from memfactory.core.texts import nfc


def string_match_all(prediction: str, golds: Sequence[str]) -> float:
    """Share of the gold strings that occur in the prediction; an empty one never does. No golds: 0.0."""
    found = _found(prediction, golds)
    return sum(found) / len(found) if found else 0.0


def string_match_part(prediction: str, golds: Sequence[str]) -> float:
    """1.0 if any of the gold strings occurs in the prediction, else 0.0."""
    return float(any(_found(prediction, golds)))


def _found(prediction: str, golds: Sequence[str]) -> list[bool]:
    said = nfc(prediction).lower()
    wanted = [golds] if isinstance(golds, str) else golds
    return [bool(gold) and nfc(gold).lower() in said for gold in wanted]
