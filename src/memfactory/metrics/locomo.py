"""LoCoMo's scoring by question category (arXiv 2402.17753, public scorer of the benchmark).

| category | question | score |
|---|---|---|
| 1 | multi-hop | mean over the gold's comma parts of the best F1 with a comma part of the reply |
| 2 | temporal | F1 |
| 3 | open-domain | F1 with the part of the gold before `;` |
| 4 | single-hop | F1 |
| 5 | adversarial | 1 if the reply says that nothing was mentioned, else 0 |

F1 is over Porter stems of words after LoCoMo's own normalisation, which drops "and" as well as the articles.
"""

from __future__ import annotations

import re
import string
from functools import cache
from typing import Any

from memfactory.core.texts import nfc
from memfactory.metrics.qa import bag_f1

CATEGORIES = (1, 2, 3, 4, 5)

_NO_PUNCTUATION = str.maketrans("", "", string.punctuation)
_SMALL_WORDS = re.compile(r"\b(a|an|the|and)\b")
_NOTHING = ("no information available", "not mentioned")


def score(prediction: str, gold: object, category: int) -> float:
    """Score a reply against the gold answer of a question of `category` 1 to 5; in [0, 1].

    LoCoMo's gold answers may be numbers (years): they are read as text. In category 5 the gold answer is
    not looked at. As in the public scorer, a gold of which normalisation leaves nothing scores 0.0. Raises
    `ValueError` for another category.
    """
    if category not in CATEGORIES:
        raise ValueError(f"LoCoMo has categories 1 to 5, not {category!r}")
    wanted = nfc(str(gold))
    if category == 5:
        said = nfc(prediction).lower()
        return float(any(phrase in said for phrase in _NOTHING))
    if category == 1:
        parts = [_stems(part) for part in prediction.split(",")]
        golds = [_stems(part) for part in wanted.split(",")]
        return sum(max(bag_f1(part, one) for part in parts) for one in golds) / len(golds)
    if category == 3:
        wanted = wanted.split(";")[0]
    return bag_f1(_stems(prediction), _stems(wanted))


def _stems(text: str) -> list[str]:
    """Porter stems of the words of a text, normalised."""
    words = _SMALL_WORDS.sub(" ", nfc(text).lower().translate(_NO_PUNCTUATION)).split()
    return [_stem(word) for word in words]


@cache
def _stemmer() -> Any:
    from nltk.stem.porter import PorterStemmer

    return PorterStemmer()


def _stem(word: str) -> str:
    return str(_stemmer().stem(word))
