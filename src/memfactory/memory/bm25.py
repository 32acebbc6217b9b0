"""BM25 over the texts of a bank, by bm25s."""

from __future__ import annotations

import re
from collections.abc import Iterable
from functools import lru_cache

import numpy

from memfactory.core.texts import nfc
from memfactory.memory.item import MemoryItem

# A word, or one character of a script that is written without spaces.
_CJK = "\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff"
_TOKEN = re.compile(rf"[{_CJK}]|[^\W_{_CJK}]+")


class TextIndex:
    """One state of a bank as a BM25 index (Lucene's variant, k1 = 1.5, b = 0.75).

    bm25s has no way to add to an index, and word weights depend on every text, so a bank that changed gets a
    new one at its next text search; only the words of a text are kept from before (`words`).
    """

    def __init__(self, items: Iterable[MemoryItem]) -> None:
        import bm25s

        self._ids: list[str] = []  # by number, as the items come
        corpus = []
        for item in items:
            self._ids.append(item.id)
            corpus.append(list(words(" ".join((item.key, item.text, *item.tags)))))
        self._known = {word for text in corpus for word in text}
        self._index = None
        if self._known:
            self._index = bm25s.BM25(method="lucene", k1=1.5, b=0.75)
            self._index.index(corpus, create_empty_token=False, show_progress=False)

    def search(self, query: str, k: int) -> list[tuple[str, float]]:
        """Ids and scores of the `k` best items that share a word with the query, best first."""
        asked = [word for word in words(query) if word in self._known]
        if not asked or self._index is None or k < 1:
            return []
        scores = self._index.get_scores(asked)
        found = numpy.flatnonzero(scores > 0)
        if len(found) > k:
            threshold = numpy.partition(scores[found], len(found) - k)[len(found) - k]
            found = found[scores[found] >= threshold]
        best = sorted((-float(scores[row]), int(row)) for row in found)[:k]
        return [(self._ids[row], -score) for score, row in best]


@lru_cache(maxsize=200_000)
def words(text: str) -> tuple[str, ...]:
    """The words of a text that BM25 compares: composed, lower-case, without English stop words, Porter stems."""
    return tuple(_stem(word) for word in _TOKEN.findall(nfc(text.lower())) if word not in _stop_words())


@lru_cache(maxsize=1)
def _stop_words() -> frozenset[str]:
    from bm25s.stopwords import STOPWORDS_EN

    return frozenset(STOPWORDS_EN)


@lru_cache(maxsize=100_000)
def _stem(word: str) -> str:
    return _stemmer().stem(word)  # type: ignore[attr-defined, no-any-return]


@lru_cache(maxsize=1)
def _stemmer() -> object:
    from nltk.stem.porter import PorterStemmer

    return PorterStemmer()
