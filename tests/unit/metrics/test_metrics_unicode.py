"""The same letters are the same answer, however Unicode writes them; what public scorers keep apart stays apart."""

from __future__ import annotations

import unicodedata
from collections.abc import Callable

import pytest

from memfactory.core.types import Outcome, Rollout, Task
from memfactory.metrics import babilong, locomo, longmemeval, qa, retrieval, ruler
from memfactory.rewards.answer import ExactMatch

METRICS: dict[str, Callable[[str, list[str]], float]] = {
    "exact_match": qa.exact_match,
    "sub_exact_match": qa.sub_exact_match,
    "f1": qa.f1,
    "bleu1": qa.bleu1,
    "rouge_l": qa.rouge_l,
    "ruler_all": ruler.string_match_all,
    "ruler_part": ruler.string_match_part,
    "longmemeval": longmemeval.rule_accuracy,
    "babilong": lambda said, golds: babilong.score(said, golds, "Where?", [*golds, "garden"]),
    "locomo": lambda said, golds: locomo.score(said, golds[0], 4),
    "locomo_list": lambda said, golds: locomo.score(said, golds[0], 1),
}


@pytest.mark.parametrize("name", METRICS)
@pytest.mark.parametrize("word", ["Café Zürich", "Đà Nẵng", "한국", "İzmir", "Å"])
def test_composed_and_decomposed_letters_are_the_same(name: str, word: str) -> None:
    if name == "rouge_l" and word == "한국":
        pytest.skip("rouge-score reads a-z and 0-9 alone")
    one, other = unicodedata.normalize("NFC", word), unicodedata.normalize("NFD", word)
    assert one != other
    right = METRICS[name](one, [one])
    assert METRICS[name](other, [one]) == METRICS[name](one, [other]) == right
    assert right == 1.0 or name == "rouge_l"


@pytest.mark.parametrize(
    ("said", "gold"),
    [("don\u2019t", "don't"), ("\uff21\uff22", "AB"), ("\u0131", "i"), ("ﬁ", "fi"), ("ß", "ss")],
)
def test_what_the_public_scorers_keep_apart_stays_apart(said: str, gold: str) -> None:
    assert qa.exact_match(said, [gold]) == 0.0


async def test_a_boxed_answer_is_compared_like_any_other() -> None:
    rollout = Rollout(Task("t", "Where?", None, ("Zürich",)), 0)
    rollout.outcome = Outcome("\\boxed{Zu\u0308rich}")
    assert await ExactMatch()(rollout) == 1.0


def test_ids_of_turns_are_found_in_the_form_in_which_banks_keep_them() -> None:
    ranked, relevant = ["re\u0301union:1", "b"], ["r\u00e9union:1"]
    for metric in (
        retrieval.recall_at_k,
        retrieval.recall_any_at_k,
        retrieval.recall_all_at_k,
        retrieval.ndcg_at_k,
    ):
        assert metric(ranked, relevant, 1) == 1.0
    assert retrieval.session_ranking(ranked, {"r\u00e9union:1": "s"}) == ["s"]
