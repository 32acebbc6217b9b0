"""Metrics on wild input: any unicode, megabytes of repetition, arguments that make no sense."""

from __future__ import annotations

import time
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from memfactory.core.errors import BadInput
from memfactory.metrics import locomo, qa, retrieval, ruler
from memfactory.metrics.boxed import last_boxed

METRICS: list[Callable[[str, list[str]], float]] = [
    qa.exact_match,
    qa.sub_exact_match,
    qa.f1,
    qa.bleu1,
    qa.rouge_l,
    qa.meteor,
    ruler.string_match_all,
    ruler.string_match_part,
]
#: Any characters at all, lone surrogates included, and words that the rules are about.
WILD = st.text(st.characters(), max_size=40) | st.lists(
    st.sampled_from(
        ["the", "a", "yes", "no", "\\boxed{", "}", "{", "oed", "cats", "...", "İ", "\ud800", "\0"]
    )
).map(" ".join)


@settings(deadline=None, max_examples=60)
@given(WILD, st.lists(WILD, max_size=3))
def test_no_text_makes_a_metric_raise(prediction: str, golds: list[str]) -> None:
    for metric in METRICS:
        assert 0.0 <= metric(prediction, golds) <= 1.0 + 1e-9, metric
    for category in locomo.CATEGORIES:
        assert 0.0 <= locomo.score(prediction, " ".join(golds), category) <= 1.0


@settings(deadline=None, max_examples=100)
@given(WILD)
def test_a_text_matches_itself(text: str) -> None:
    assert qa.exact_match(text, [text]) == qa.f1(text, [text]) == 1.0
    assert qa.bleu1(text, [text]) == pytest.approx(1.0)


@settings(deadline=None, max_examples=200)
@given(WILD, WILD)
def test_sub_em_is_no_stricter_than_em(prediction: str, gold: str) -> None:
    assert qa.sub_exact_match(prediction, [gold]) >= qa.exact_match(prediction, [gold])


@settings(deadline=None, max_examples=200)
@given(WILD, WILD)
def test_a_box_is_found_behind_any_text(before: str, inside: str) -> None:
    assert last_boxed(before + "\\boxed{x}") == "x"
    found = last_boxed(inside, tail=None)
    assert found is None or found in inside


@pytest.mark.parametrize("repeated", ["\\boxed{", "\\boxed", "{", "}", "\\boxed{x} ", "\\boxed " + " " * 50])
def test_megabytes_are_scanned_in_linear_time(repeated: str) -> None:
    text = repeated * (4_000_000 // len(repeated))
    start = time.perf_counter()
    last_boxed(text)
    last_boxed(text, tail=None)
    assert time.perf_counter() - start < 5


def test_metrics_take_a_megabyte() -> None:
    text = "the cat sat on the mat. " * 40_000
    start = time.perf_counter()
    for metric in METRICS:
        metric(text, ["the dog sat"])
    assert time.perf_counter() - start < 60


def test_the_box_must_begin_in_the_tail() -> None:
    reply = "\\boxed{x}" + "." * 300
    assert last_boxed(reply) is None
    assert last_boxed(reply, tail=309) == last_boxed(reply, tail=None) == "x"


def test_a_lone_string_is_one_gold() -> None:
    assert qa.exact_match("a", "abc") == 0.0
    assert ruler.string_match_all("abc", "abc") == 1.0


def test_numbers_that_make_no_sense() -> None:
    with pytest.raises(ValueError, match="k must be"):
        retrieval.recall_at_k(["a"], ["a"], 0)
    with pytest.raises(ValueError, match="categories"):
        locomo.score("a", "a", 6)


def test_synonyms_are_never_left_out_silently(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing() -> object:
        raise BadInput("meteor with synonyms needs nltk's WordNet corpus")

    monkeypatch.setattr(qa, "_wordnet", missing)
    with pytest.raises(BadInput, match="WordNet"):
        qa.meteor("cat", ["feline"], synonyms=True)
    assert qa.meteor("cat", ["feline"]) == 0.0
