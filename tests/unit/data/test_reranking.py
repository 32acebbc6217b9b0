"""Dialogues in which surface similarity misleads: exactly one turn answers, and others sound more like the question."""

from __future__ import annotations

import asyncio

import pytest

from memfactory.core.errors import BadInput
from memfactory.data.dialogue import Dialogue
from memfactory.data.synthetic.facts import split_of
from memfactory.data.synthetic.reranking import make_reranking_task, reranking
from memfactory.data.synthetic.reranking_traces import make_rerank_trace, reranking_traces
from memfactory.data.synthetic.vocabulary import all_words, words_of
from memfactory.memory.item import MemoryItem
from memfactory.modules.pattern_reader import PatternReader
from memfactory.modules.rerankers import parse_ranking


def answer(question: str, texts: list[str]) -> tuple[str, tuple[str, ...]]:
    """What the pattern reader makes of texts, as memories m1, m2, ..."""
    items = [MemoryItem(f"m{number}", text, number=number) for number, text in enumerate(texts, start=1)]
    found = asyncio.run(PatternReader().answer(question, items, None, 0))  # type: ignore[arg-type]
    return found.reply, found.used


@pytest.mark.parametrize("split", ["train", "heldout"])
def test_one_turn_answers_and_others_share_more_words_with_the_question(split: str) -> None:
    for index in range(30):
        task = make_reranking_task(index, seed=1, split=split, sessions=3, turns_per_session=5, asides=4)
        assert isinstance(task.evidence, Dialogue)
        turns = list(task.evidence.turns())
        (right,) = task.meta["evidence_turns"]
        place = [turn.id for turn in turns].index(right)
        assert answer(task.question, [turn.text for turn in turns]) == (
            f"\\boxed{{{task.answers[0]}}} [m{place + 1}]",
            (f"m{place + 1}",),
        )
        others = [turn.text for turn in turns if turn.id != right]
        assert answer(task.question, others) == ("\\boxed{unknown} [NO_CITE]", ())
        asked = set(words_of(task.question.lower()))
        shared = [len(asked & set(words_of(turn.text.lower()))) for turn in turns]
        assert sum(count > shared[place] for count in shared) >= 4
        assert split_of(task.meta["about"][0], task.answers[0]) == split


def test_a_task_is_a_function_of_seed_and_index_and_its_options_are_checked() -> None:
    def make(index: int, seed: int = 0) -> object:
        return make_reranking_task(index, seed=seed, split="train", sessions=2, turns_per_session=3, asides=1)

    assert make(3) == make(3) and make(3) != make(4) and make(3) != make(3, seed=1)
    assert len(reranking(size=7, sessions=2, turns_per_session=3, asides=2)) == 7
    with pytest.raises(BadInput, match="asides"):
        reranking(sessions=1, turns_per_session=2, asides=2)
    with pytest.raises(BadInput, match="at least one session"):
        reranking(sessions=0)


def test_traces_list_the_right_memory_or_the_first_two() -> None:
    known = set(all_words())
    habits = 0
    for index in range(200):
        row = make_rerank_trace(index, seed=0, habit=0.5)
        prompt = row["messages"][0]["content"]
        assert len(words_of(prompt)) <= 150 and set(words_of(prompt + row["completion"])) <= known
        *lines, last = prompt.removeprefix("Memory: ").split("\n")
        question = last[last.index(f" {len(lines) + 1} ") :].removesuffix(" rank.")
        texts = [line.rsplit(" ", 1)[0] for line in (*lines, last.split(f" {len(lines) + 1} ")[0] + " 0")]
        _, (right,) = answer(question, texts)
        numbers, errors = parse_ranking(row["completion"], len(texts), 2)
        assert not errors
        habits += numbers == (1, 2)
        assert numbers in ((1, 2), (int(right[1:]),))
    assert 70 < habits < 130
    assert reranking_traces(size=5, habit=0.0)[0].module == "reranker"
