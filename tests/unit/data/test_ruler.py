"""RULER: every answer can be read from the text, lengths are exact, tasks depend on their arguments alone."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any, get_args

import pytest

from memfactory.core.errors import BadInput
from memfactory.core.types import Task
from memfactory.data.synthetic.haystack import estimated_tokens, read_sentences, token_counter
from memfactory.data.synthetic.ruler import ALL_TASKS, TaskName, make_task, ruler
from memfactory.data.synthetic.ruler_tasks import COMMON, COMMON_TIMES, DEPTHS, TASKS, needs_essay
from memfactory.data.synthetic.ruler_words import ADJECTIVES, NOUNS, names, parts_for
from memfactory.metrics.ruler import string_match_all

ESSAY = tuple(f"Sentence {i} says that a thing of some kind happened, and then another." for i in range(300))
LENGTHS = (2048, 4096, 20_000)


def words(text: str) -> int:
    return len(re.findall(r"\w+|[^\w\s]", text))


def made(
    task: str, length: int = 4096, index: int = 0, count: Callable[[str], int] = estimated_tokens
) -> Task:
    essay = ESSAY if needs_essay(task) else ()
    return make_task(index, task=task, length=length, seed=7, count=count, essay=essay)


def solve(task: Task) -> list[str]:
    """Answers as somebody finds them who knows how the tasks are meant, and has the text and the question only."""
    text, question = task.evidence, task.question
    if question.startswith("Find all"):
        [known] = re.findall(r"value (\d+)", question)
        found: list[str] = []
        for name, source in re.findall(r"VAR (\w+) = (?:VAR )?(\w+)", text):
            if source == known or source in found:
                found.append(name)
        return found
    if "numbered list" in question:
        counts = Counter(re.findall(r"\d+\. (\S+)", text))
        return [word for word, _ in counts.most_common(int(re.findall(r"\d+", question)[0]))]
    if "coded words" in question:
        counts = Counter(word for word in text.split() if word != "...")
        return [word for word, _ in counts.most_common(int(re.findall(r"\d+", question)[0]))]
    keys = re.findall(
        r"[\w-]+", question.partition(" for ")[2].partition(" mentioned")[0].replace(", and ", ", ")
    )
    needles = re.findall(r"One of the special magic \w+ for (\S+) is: (\S+)\.", text)
    return [value for key in keys for name, value in needles if name == key]


@pytest.mark.parametrize("length", LENGTHS)
@pytest.mark.parametrize("task", TASKS)
def test_the_answers_are_what_a_reader_finds(task: str, length: int) -> None:
    for index in range(3):
        one = made(task, length, index)
        assert sorted(solve(one)) == sorted(one.answers)
        assert string_match_all(f"They are {', '.join(one.answers)}.", one.answers) == 1.0
        assert one.meta["metric"] == "string_match_all"


@pytest.mark.parametrize("count", [estimated_tokens, words, len], ids=["estimate", "words", "letters"])
@pytest.mark.parametrize("task", TASKS)
def test_lengths_are_exact_within_one_percent(task: str, count: Callable[[str], int]) -> None:
    for length in LENGTHS:
        wanted = length * 6 if count is len else length
        assert 0.99 * wanted <= count(made(task, wanted, count=count).evidence) <= wanted


def test_a_model_measures_with_its_own_tokenizer(tmp_path: Path) -> None:
    (tmp_path / "essay.txt").write_text("Extraordinarily long words. " * 9)
    count = token_counter("tiny", "ruler")
    one = ruler("niah_single_2", length=3000, size=1, haystack=str(tmp_path / "essay.txt"), tokenizer="tiny")[
        0
    ]
    assert 2970 <= count(one.evidence) <= 3000
    assert count(one.evidence) != estimated_tokens(one.evidence)


@pytest.mark.parametrize("task", TASKS)
def test_a_task_is_a_function_of_its_arguments(task: str) -> None:
    assert made(task) == made(task)
    others = [made(task, index=1), made(task, length=3000)]
    assert all(other.id != made(task).id and other.answers != made(task).answers for other in others)


def test_the_published_numbers_of_needles_words_and_hops() -> None:
    shapes = {"niah_single_1": 1, "niah_single_2": 1, "niah_single_3": 1, "niah_multikey_1": 4}
    shapes |= {"niah_multivalue": 4, "niah_multiquery": 4}
    for task, needles in shapes.items():
        assert made(task).evidence.count("One of the special magic") == needles, task
    assert len(made("niah_multivalue").answers) == len(made("niah_multiquery").answers) == 4
    assert made("niah_multikey_3").evidence.count("magic uuids") > 20
    short = Counter(re.findall(r"\d+\. (\S+)", made("cwe", 2048).evidence))
    assert (
        sorted(short.values())[-COMMON - 1 :] == [1] + [6] * COMMON
    )  # the published lists below 4096 tokens
    assert len(DEPTHS) == 40 and (DEPTHS[0], DEPTHS[1], DEPTHS[20], DEPTHS[-1]) == (0, 3, 51, 100)
    assert made("vt").question.startswith("Find all 5 variables")
    chain = re.findall(r"VAR (\w+) = (?:VAR )?(\w+)", made("vt").evidence)
    assert len(chain) == 5 and all(later[1] == earlier[0] for earlier, later in pairwise(chain))
    counts = Counter(re.findall(r"\d+\. (\S+)", made("cwe").evidence))
    assert sorted(counts.values())[-COMMON:] == [COMMON_TIMES] * COMMON
    assert sorted(counts.values())[-COMMON - 1] == 3
    ranks = [number for _, number in Counter(made("fwe", 20_000).evidence.split()).most_common(4)]
    assert ranks[1] / ranks[3] == pytest.approx(4, rel=0.05)  # ranks 2 and 4 with exponent 2


def test_needles_are_all_over_the_text() -> None:
    depths = []
    for index in range(60):
        text = made("niah_single_1", 2048, index).evidence
        depths.append(text.index("One of the special") / len(text))
    assert min(depths) < 0.1 and max(depths) > 0.9
    assert 0.35 < sum(depths) / len(depths) < 0.65


def test_gold_evidence_answers_the_question() -> None:
    for task in ("niah_single_1", "niah_multivalue", "niah_multiquery", "niah_multikey_2", "vt"):
        one = made(task)
        alone = Task("t", one.question, one.meta["gold_evidence"])
        assert sorted(solve(alone)) == sorted(one.answers)
    assert "gold_evidence" not in made("cwe").meta | made("fwe").meta


def test_names_are_distinct_and_no_word_is_part_of_another() -> None:
    import random

    every = [*ADJECTIVES, *NOUNS]
    assert not [(a, b) for a in every for b in every if a is not b and a in b]
    assert [parts_for(10), parts_for(1000), parts_for(10**6), parts_for(10, least=2)] == [1, 2, 3, 2]
    singles = names(random.Random(0), 1)
    assert sorted(next(singles) for _ in every) == sorted(every)
    with pytest.raises(ValueError, match="no more than"):
        next(singles)


def test_an_essay_is_read_in_sentences(tmp_path: Path) -> None:
    path = tmp_path / "essay.txt"
    path.write_text("One here.  Two\nthere! " + "long " * 90)
    assert [len(sentence.split()) for sentence in read_sentences(str(path), "ruler")] == [2, 2, 40, 40, 10]
    one = ruler("niah_single_2", length=500, size=1, haystack=str(path))[0]
    assert "Two there!" in one.evidence and sorted(solve(one)) == sorted(one.answers)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"task": "niah_single"}, "unknown task 'niah_single'; did you mean 'niah_single_"),
        ({"task": "qa_1"}, "qa_1 needs SQuAD's own JSON; name it with questions"),
        ({"task": "vt", "questions": "x.json"}, "vt makes its own questions; leave questions out"),
        ({"task": "qa_2", "questions": "no.json"}, r"no\.json: no such data file"),
        ({"task": "niah_single_2"}, "niah_single_2 hides its needles in a text; name a file with haystack"),
        ({"task": "vt", "haystack": "x.txt"}, "vt makes its own text; leave haystack out"),
        ({"task": "niah_single_3", "haystack": "no.txt"}, "'no.txt' does not exist"),
        ({"task": "cwe", "length": 100}, r"length 100 is too short: the task alone has \d+ tokens"),
        ({"length": -1}, "length -1 is too short"),
        ({"size": 0}, "size must be at least 1"),
        ({"tokenizer": "tinny"}, "tokenizer: no such model folder 'tinny'; did you mean 'tiny'"),
    ],
)
def test_what_is_wrong_is_one_line(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(BadInput, match=message) as error:
        ruler(**fields)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("content", [b"", b" \n ", b"\xff\xfe\xff"])
def test_a_haystack_without_text_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "essay.txt"
    path.write_bytes(content)
    with pytest.raises(BadInput, match=r"essay\.txt"):
        ruler("niah_single_2", haystack=str(path))


def test_the_recipe_layer_knows_every_task() -> None:
    assert get_args(TaskName) == ALL_TASKS
