"""RULER's qa_1 and qa_2: questions of SQuAD and HotpotQA among documents of the same file."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from memfactory.core.errors import BadInput
from memfactory.core.types import Task
from memfactory.data.make import make_tasks
from memfactory.data.readers.jsonl import jsonl
from memfactory.data.readers.squad import read_squad
from memfactory.data.synthetic.haystack import estimated_tokens
from memfactory.data.synthetic.ruler import ruler
from memfactory.metrics.ruler import string_match_part

Write = Callable[..., str]
FILLER = " ".join(f"word{i}" for i in range(60))


def squad(articles: int = 6, paragraphs: int = 5) -> dict[str, Any]:
    """Two questions a paragraph, the second without an answer; every paragraph says which it is."""

    def paragraph(a: int, p: int) -> dict[str, Any]:
        answers = [
            {"text": f"secret-{a}-{p}", "answer_start": 0},
            {"text": f"secret-{a}-{p}", "answer_start": 0},
        ]
        return {
            "context": f"Paragraph {a}.{p} has secret-{a}-{p}. {FILLER}.",
            "qas": [
                {
                    "question": f"What has {a}.{p}?",
                    "id": f"{a}{p}",
                    "answers": answers,
                    "is_impossible": False,
                },
                {"question": "Nothing?", "id": f"{a}{p}x", "answers": [], "is_impossible": True},
            ],
        }

    data = [
        {"title": f"Article {a}", "paragraphs": [paragraph(a, p) for p in range(paragraphs)]}
        for a in range(articles)
    ]
    return {"version": "v2.0", "data": data}


def documents(task: Task) -> list[str]:
    found = re.split(r"\n\nDocument \d+:\n", "\n\n" + task.evidence)[1:]
    numbers = [int(number) for number in re.findall(r"(?:^|\n\n)Document (\d+):\n", task.evidence)]
    assert numbers == list(range(1, len(found) + 1))
    return found


@pytest.fixture
def squad_file(write: Write) -> str:
    return write(json.dumps(squad(), indent=1), "squad.json")


def test_squad_is_read_with_the_answers_there_are(squad_file: str) -> None:
    articles = read_squad(squad_file)
    assert [len(article) for article in articles] == [5] * 6
    [question] = articles[2][3].questions
    assert (question.text, question.answers) == ("What has 2.3?", ("secret-2-3",))


@pytest.mark.parametrize("length", [700, 2000, 3500])
def test_qa_1_holds_its_paragraph_among_those_of_its_article_first(squad_file: str, length: int) -> None:
    tasks = ruler("qa_1", length=length, size=30, questions=squad_file)
    for number, task in enumerate(tasks):
        a, p = divmod(number, 5)
        assert task.question == f"What has {a}.{p}?" and task.answers == (f"secret-{a}-{p}",)
        assert 0.99 * length <= estimated_tokens(task.evidence) <= length
        *whole, _ = found = documents(task)
        assert string_match_part(task.evidence, task.answers) == 1.0
        assert task.meta["metric"] == "string_match_part"
        assert sum(task.answers[0] in document for document in found) == 1
        assert task.meta["gold_evidence"].startswith(f"Document 1:\nParagraph {a}.{p} has")
        own = sum(document.startswith(f"Paragraph {a}.") for document in found)
        assert own == min(5, len(found))
        if len(found) < 30:
            assert len(set(whole)) == len(whole)


def test_a_small_file_is_gone_through_again_but_the_answer_stays_single(squad_file: str) -> None:
    [task] = ruler("qa_1", length=20_000, size=1, questions=squad_file)
    found = documents(task)
    assert len(found) > 60 and sum("secret-0-0" in document for document in found) == 1
    assert estimated_tokens(task.evidence) >= 19_800


def test_places_are_drawn_for_each_question_and_tasks_are_functions_of_their_arguments(
    squad_file: str,
) -> None:
    def places(seed: int) -> list[int]:
        tasks = ruler("qa_1", length=2000, size=30, seed=seed, questions=squad_file)
        return [next(i for i, d in enumerate(documents(t)) if t.answers[0] in d) for t in tasks]

    assert places(0) == places(0) != places(1)
    assert len(set(places(0))) > 5


def test_qa_2_holds_all_paragraphs_of_its_question(hotpot_file: str) -> None:
    tasks = ruler("qa_2", length=400, size=10, questions=hotpot_file)
    for number, task in enumerate(tasks):
        found = documents(task)
        own = {f"Other {number}.{i}" for i in range(4)} | {f"Gold {number}.{i}" for i in range(2)}
        assert own <= {document.split("\n")[0] for document in found}
        assert task.answers == (f"answer {number}",)
        assert 396 <= estimated_tokens(task.evidence) <= 400
        gold = [document.split("\n")[0] for document in documents(Task("x", "", task.meta["gold_evidence"]))]
        assert gold == [f"Gold {number}.0", f"Gold {number}.1"]


def test_a_short_text_keeps_the_gold_and_leaves_the_others_out(hotpot_file: str) -> None:
    [task] = ruler("qa_2", length=30, size=1, questions=hotpot_file)
    assert "First half." in task.evidence and "Second half." in task.evidence
    with pytest.raises(BadInput, match=r"length 10 is too short: the task alone has \d+ tokens"):
        ruler("qa_2", length=10, size=1, questions=hotpot_file)


def test_a_real_sample_of_hotpotqa(sample_data: Path, tmp_path: Path) -> None:
    source = str(sample_data / "hotpotqa" / "hotpotqa_distractor_60.json")
    tasks = ruler("qa_2", length=8000, size=3, questions=source)
    for task in tasks:
        assert 7920 <= estimated_tokens(task.evidence) <= 8000
    output = str(tmp_path / "qa_2.jsonl")
    assert make_tasks(tasks, output) == 3
    assert [(t.id, t.question, t.evidence, t.answers) for t in jsonl(output)] == [
        (t.id, t.question, t.evidence, t.answers) for t in tasks
    ]
    assert jsonl(output)[1].meta["gold_evidence"] == tasks[1].meta["gold_evidence"]


def change(path: list[Any], value: Any) -> Any:
    """A SQuAD file with one thing in it replaced; None takes it away."""
    whole: Any = squad(1, 2)
    inside = whole
    for key in path[:-1]:
        inside = inside[key]
    if value is None:
        del inside[path[-1]]
    else:
        inside[path[-1]] = value
    return whole


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (change(["data"], None), r"squad\.json: no field 'data'"),
        (change(["data"], {}), r"squad\.json: field 'data' must be a list, not an object"),
        (change(["data"], []), r"squad\.json: field 'data' is empty"),
        (
            change(["data", 0, "paragraphs", 1], 3),
            r"squad\.json\.data\[0\]\.paragraphs\[1\]: expected an object",
        ),
        (
            change(["data", 0, "paragraphs", 1, "context"], None),
            r"squad\.json\.data\[0\]\.paragraphs\[1\]: no field 'context'",
        ),
        (
            change(["data", 0, "paragraphs", 0, "qas", 0, "answers"], []),
            r"paragraphs\[0\]\.qas\[0\]: field 'answers' is empty",
        ),
        ([1], r"squad\.json: expected an object, found a list"),
    ],
)
def test_another_schema_is_one_line(write: Write, content: Any, message: str) -> None:
    with pytest.raises(BadInput, match=message) as error:
        ruler("qa_1", size=1, questions=write(json.dumps(content), "squad.json"))
    assert "\n" not in str(error.value)


def test_questions_that_do_not_suffice(squad_file: str, write: Write, hotpot_file: str) -> None:
    with pytest.raises(BadInput, match=r"holds 30 questions that can be asked, 100 are wanted; lower size"):
        ruler("qa_1", questions=squad_file)
    with pytest.raises(BadInput, match="holds no other documents"):
        ruler("qa_1", size=1, questions=write(json.dumps(squad(1, 1)), "one.json"))
    with pytest.raises(BadInput, match="the list is under 'data'"):
        ruler("qa_2", size=1, questions=write(json.dumps(squad()), "squad.json"))
    with pytest.raises(BadInput, match=r"hotpot\.json: expected an object"):
        ruler("qa_1", size=1, questions=hotpot_file)
