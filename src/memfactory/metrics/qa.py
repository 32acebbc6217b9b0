"""Scores of a short answer against gold answers: EM, F1, sub-EM, BLEU-1, ROUGE-L and METEOR.

Every function takes `(prediction, golds)` and returns a score in [0, 1]: the best over the gold answers,
which are alternatives to each other. They never raise, whatever text a model wrote, and take time linear in
the prediction for a gold answer of a few words.

Normalisation is SQuAD's: lower-case, drop ASCII punctuation, drop the articles a, an, the, collapse spaces. Before that
both texts are put into Unicode's composed form (NFC), in every metric here: `é` in two characters is the same letter.
Nothing else is folded, as the public scorers do not: curly quotes, full-width letters and the Turkish dotless i are
characters of their own.

Rules for empty texts:

- no gold answers at all: 0.0;
- a text of which normalisation leaves nothing ("The", "A", "!") is compared with its articles kept, and if
  that is empty too, as it was written in lower case; so gold "A" is matched by "a." and not by an empty
  reply;
- two empty texts match; an empty text and another one score 0.0;
- a gold answer of which normalisation leaves nothing is no substring of anything: sub-EM then asks for
  equality.

Sources: SQuAD 1.1 (arXiv 1606.05250) and HotpotQA (1809.09600) scorers; BLEU (Papineni et al. 2002), ROUGE
(Lin 2004), METEOR (Banerjee and Lavie 2005).
"""

from __future__ import annotations

import re
import string
from collections import Counter
from collections.abc import Callable, Sequence
from functools import cache
from typing import Any

from memfactory.core.texts import nfc

_NO_PUNCTUATION = str.maketrans("", "", string.punctuation)
_ARTICLES = re.compile(r"\b(a|an|the)\b")
_WORDS = re.compile(r"\w+|[^\w\s]")
#: HotpotQA's closed answers: partly right is wrong.
_CLOSED = frozenset({"yes", "no", "noanswer"})


def normalize(text: str) -> str:
    """SQuAD's normal form of an answer: lower case, no ASCII punctuation, no articles, single spaces."""
    return " ".join(_ARTICLES.sub(" ", nfc(text).lower().translate(_NO_PUNCTUATION)).split())


def exact_match(prediction: str, golds: Sequence[str]) -> float:
    """1.0 if the prediction equals a gold answer after normalisation, else 0.0."""
    said = _comparable(prediction)
    return float(any(said == _comparable(gold) for gold in _as_list(golds)))


def sub_exact_match(prediction: str, golds: Sequence[str]) -> float:
    """1.0 if a normalised gold answer is a substring of the normalised prediction, else 0.0."""
    said = normalize(prediction)

    def found(gold: str) -> bool:
        plain = normalize(gold)
        return plain in said if plain else _comparable(prediction) == _comparable(gold)

    return float(any(found(gold) for gold in _as_list(golds)))


def f1(prediction: str, golds: Sequence[str]) -> float:
    """Harmonic mean of precision and recall over the bag of normalised words, best over the gold answers.

    As in HotpotQA's scorer, "yes", "no" and "noanswer" (on either side) score 1.0 when equal and 0.0
    otherwise: "yes, but in 1990" is not half of "yes".
    """
    return max((_f1(prediction, gold) for gold in _as_list(golds)), default=0.0)


def bleu1(prediction: str, golds: Sequence[str]) -> float:
    """BLEU-1: clipped unigram precision times the brevity penalty exp(min(0, 1 - gold length / length)).

    Computed by nltk. Tokens are lower-case words and single punctuation marks. Several golds are
    alternatives: the best single one counts, golds are not pooled as references of one translation.
    """
    from nltk.translate.bleu_score import sentence_bleu

    def score(said: list[str], gold: list[str]) -> float:
        return float(sentence_bleu([gold], said, weights=(1.0,)))

    return _best(prediction, golds, score)


def meteor(prediction: str, golds: Sequence[str], *, synonyms: bool = False) -> float:
    """METEOR by nltk (alpha 0.9, beta 3, gamma 0.5) on lower-case words and punctuation marks.

    By default words are matched exactly and by Porter stem only. The third stage of the published metric,
    WordNet synonyms, needs a corpus that cannot be installed with the package; `synonyms=True` uses it
    (nltk's `wordnet`, from nltk's data folders). So the figure never depends silently on what happens to be
    installed; without synonyms it is a lower bound.

    Raises `BadInput` if `synonyms` is asked for and the corpus is not there.
    """
    from nltk.translate.meteor_score import single_meteor_score

    wordnet = _wordnet() if synonyms else _NoSynonyms()

    def score(said: list[str], gold: list[str]) -> float:
        return float(single_meteor_score(gold, said, stemmer=_stemmer(), wordnet=wordnet))

    return _best(prediction, golds, score)


def rouge_l(prediction: str, golds: Sequence[str]) -> float:
    """ROUGE-L F-measure (longest common subsequence) by rouge-score, without stemming.

    rouge-score's tokens are runs of a-z and 0-9 in lower case: text in other scripts counts as empty.
    """
    said = _comparable(prediction)
    if not said:
        return float(any(said == _comparable(gold) for gold in _as_list(golds)))
    scores = (_rouge().score(nfc(gold), nfc(prediction))["rougeL"].fmeasure for gold in _as_list(golds))
    return float(max(scores, default=0.0))


def _as_list(golds: Sequence[str]) -> Sequence[str]:
    """A lone string is one gold answer, not a sequence of letters."""
    return [golds] if isinstance(golds, str) else golds


def _comparable(text: str) -> str:
    """The normal form; where that is empty, the text with its articles, or as written."""
    lowered = nfc(text).lower()
    return (
        normalize(text) or " ".join(lowered.translate(_NO_PUNCTUATION).split()) or " ".join(lowered.split())
    )


def _f1(prediction: str, gold: str) -> float:
    said, wanted = _comparable(prediction), _comparable(gold)
    if said == wanted:
        return 1.0
    if said in _CLOSED or wanted in _CLOSED:
        return 0.0
    return bag_f1(said.split(), wanted.split())


def bag_f1(said: Sequence[str], wanted: Sequence[str]) -> float:
    """F1 of two bags of words; 0.0 when they share none."""
    same = sum((Counter(said) & Counter(wanted)).values())
    if same == 0:
        return 0.0
    precision, recall = same / len(said), same / len(wanted)
    return 2 * precision * recall / (precision + recall)


def _best(prediction: str, golds: Sequence[str], score: Callable[[list[str], list[str]], float]) -> float:
    """The best score over golds of two token lists that are not empty; empty ones match only each other."""
    said = _WORDS.findall(nfc(prediction).lower())
    best = 0.0
    for gold in _as_list(golds):
        wanted = _WORDS.findall(nfc(gold).lower())
        best = max(best, score(said, wanted) if said and wanted else float(said == wanted))
    return best


class _NoSynonyms:
    """Stands in for WordNet: nothing has synonyms."""

    def synsets(self, word: str) -> list[Any]:
        return []


@cache
def _stemmer() -> Any:
    from nltk.stem.porter import PorterStemmer

    return PorterStemmer()


@cache
def _rouge() -> Any:
    from rouge_score.rouge_scorer import RougeScorer

    return RougeScorer(["rougeL"], use_stemmer=False)


@cache
def _wordnet() -> Any:
    from nltk.corpus import wordnet

    from memfactory.core.errors import BadInput

    try:
        wordnet.ensure_loaded()
    except LookupError:
        raise BadInput(
            "meteor with synonyms needs nltk's WordNet corpus: python -m nltk.downloader wordnet"
        ) from None
    return wordnet
