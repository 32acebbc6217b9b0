"""MuSiQue and 2WikiMultihopQA: their records, their gold paragraphs, and both hidden among others."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from memfactory.core.errors import BadInput
from memfactory.core.registry import get
from memfactory.data.check import check_file
from memfactory.data.make import make_long
from memfactory.data.readers.hotpotqa import hotpotqa, two_wiki
from memfactory.data.readers.memagent import hotpotqa_long
from memfactory.data.readers.musique import musique

Write = Callable[..., str]


def musique_record(number: int = 0, **change: Any) -> dict[str, Any]:
    paragraphs = [
        {
            "idx": i,
            "title": f"Title {number}.{i}",
            "paragraph_text": f"Text {number}.{i}.",
            "is_supporting": i in (1, 3, 4),
        }
        for i in range(6)
    ]
    return {
        "id": f"3hop1__{number}",
        "paragraphs": paragraphs,
        "question": f"Who is {number}?",
        "question_decomposition": [],
        "answer": f"answer {number}",
        "answer_aliases": [f"alias {number}", f"answer {number}", ""],
        "answerable": True,
        **change,
    }


def two_wiki_record(number: int = 0, **change: Any) -> dict[str, Any]:
    return {
        "_id": f"w{number}",
        "type": "bridge_comparison",
        "question": f"Which is {number}?",
        "context": [[f"T{number}.{i}", [f"One {number}.{i}.", "Two."]] for i in range(5)],
        "supporting_facts": [[f"T{number}.0", 0], [f"T{number}.2", 1]],
        "evidences": [["a", "b", "c"]],
        "answer": f"answer {number}",
        **change,
    }


def test_musique(write: Write) -> None:
    records = [musique_record(0), musique_record(1, answerable=False), musique_record(2)]
    tasks = musique(write(records))
    assert [task.id for task in tasks] == ["3hop1__0", "3hop1__2"]  # the second has no answer in its texts
    task = tasks[1]
    assert task.answers == ("answer 2", "alias 2")
    assert task.meta["group"] == "3hop"
    assert task.meta["gold_titles"] == ("Title 2.1", "Title 2.3", "Title 2.4")
    assert task.meta["gold_evidence"].startswith(
        "Document 1:\nTitle 2.1\nText 2.1.\n\nDocument 2:\nTitle 2.3"
    )
    assert task.evidence.count("Document ") == 6 and "Document 6:\nTitle 2.5\nText 2.5." in task.evidence
    few = musique(write(records), paragraphs=4)[0]
    assert few.meta["paragraphs"] == 4 and "Title 0.5" not in few.evidence and "Title 0.0" in few.evidence
    assert len(musique(write(records), limit=1, offset=1)) == 1


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"paragraphs": "x"}, "field 'paragraphs' must be a list that is not empty, not a string"),
        ({"paragraphs": [1]}, r"paragraphs\[0\]: a paragraph must be an object"),
        ({"paragraphs": [{"title": "T"}]}, r"paragraphs\[0\]: no field 'paragraph_text'"),
        (
            {"paragraphs": [{"title": "T", "paragraph_text": "x", "is_supporting": 1}]},
            "'is_supporting' must be a boolean",
        ),
        ({"paragraphs": [{"title": "T", "paragraph_text": "x"}]}, "no paragraph has 'is_supporting': true"),
        ({"answer": ""}, "no gold answer in field 'answer'"),
        ({"answer_aliases": "x"}, "field 'answer_aliases' must be a list of strings"),
        ({"answerable": "yes"}, "field 'answerable' must be a boolean"),
        ({"question": 3}, "field 'question' must be a string"),
        ({"id": "3hop1__0"}, "id '3hop1__0' was used before, at .*:1"),
    ],
)
def test_musique_that_is_wrong(write: Write, change: dict[str, Any], message: str) -> None:
    path = write([musique_record(0), musique_record(1, **change)])
    with pytest.raises(BadInput, match=r"data\.jsonl:2.*" + message) as error:
        musique(path)
    assert "\n" not in str(error.value)
    report = check_file("musique", path)
    assert (report.records, report.bad) == (2, 1) and report.problems == (str(error.value),)


def test_a_file_without_any_answer(write: Write) -> None:
    with pytest.raises(BadInput, match="none of its 1 records can be used"):
        musique(write([musique_record(answerable=False)]))


def test_two_wiki(write: Write) -> None:
    [task] = two_wiki(write(json.dumps([two_wiki_record()]), "dev.json"))
    assert (task.id, task.answers, task.meta["group"]) == ("w0", ("answer 0",), "bridge_comparison")
    assert task.meta["benchmark"] == "2wikimultihopqa"
    assert (
        task.meta["gold_evidence"] == "Document 1:\nT0.0\nOne 0.0. Two.\n\nDocument 2:\nT0.2\nOne 0.2. Two."
    )


def test_the_layouts_of_the_hub_are_the_same_questions(write: Write) -> None:
    plain = two_wiki_record()
    texts = {key: json.dumps(plain[key]) for key in ("context", "supporting_facts")}
    columns = {
        "context": {
            "title": [title for title, _ in plain["context"]],
            "sentences": [held for _, held in plain["context"]],
        },
        "supporting_facts": {"title": ["T0.0", "T0.2"], "sent_id": [0, 1]},
    }
    [wanted] = hotpotqa(write([plain]))
    for change in (texts, columns):
        assert list(hotpotqa(write([{**plain, **change}]))) == [wanted]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"context": "no json"}, "field 'context': not valid JSON"),
        ({"context": {"title": ["a"]}}, "field 'context' must hold the columns title and sentences"),
        ({"context": {"title": ["a"], "sentences": []}}, "columns of field 'context' have different lengths"),
        ({"supporting_facts": [["Other", 0]]}, "no paragraph in field 'context' has a title"),
        ({"context": [["T0.0", "text"]]}, "must be a list of sentences"),
    ],
)
def test_two_wiki_that_is_wrong(write: Write, change: dict[str, Any], message: str) -> None:
    with pytest.raises(BadInput, match=r"data\.jsonl:1: .*" + message):
        two_wiki(write([two_wiki_record(**change)]))


@pytest.mark.parametrize("suffix", ["jsonl", "json", "parquet"])
@pytest.mark.parametrize("benchmark", ["musique", "2wikimultihopqa"])
def test_hidden_among_the_paragraphs_of_other_questions(
    write: Write, tmp_path: Any, benchmark: str, suffix: str
) -> None:
    record = musique_record if benchmark == "musique" else two_wiki_record
    source = write([record(number) for number in range(8)])
    output = str(tmp_path / f"long.{suffix}")
    assert make_long(benchmark, source, 20, output, limit=6) == 6
    tasks = hotpotqa_long(output)
    gold = 3 if benchmark == "musique" else 2
    places = set()
    for number, task in enumerate(tasks):
        assert task.evidence.count("Document ") == 20
        assert task.meta["gold_evidence"].count("Document ") == gold
        assert task.meta["group"] == ("3hop" if benchmark == "musique" else "bridge_comparison")
        assert task.meta["benchmark"] == benchmark
        here = [number_of for number_of in range(8) if f" {number_of}." in task.evidence]
        assert number in here
        # A question's own paragraphs that are not gold are nobody else's: they stay out.
        own = task.evidence.count(f"Title {number}.") + task.evidence.count(f"\nT{number}.")
        assert own == gold
        places.add(tuple(task.meta["gold_places"]))
    assert len(places) > 1
    first = tasks[0]
    assert make_long(benchmark, source, 20, output, limit=1) == 1
    assert hotpotqa_long(output)[0] == first  # drawn by the question's id, not by how many are made


def test_too_few_paragraphs(write: Write, tmp_path: Any) -> None:
    source = write([musique_record(number) for number in range(2)])
    with pytest.raises(BadInput, match="but the other questions have only 6"):
        make_long("musique", source, 20, str(tmp_path / "x.jsonl"))
    with pytest.raises(BadInput, match="paragraphs=2 cannot hold the 3 gold paragraphs"):
        make_long("musique", source, 2, str(tmp_path / "x.jsonl"))


def test_registered() -> None:
    assert get("data", "musique").source == "MuSiQue, arXiv 2108.00573"
    assert get("data", "2wikimultihopqa").source == "2WikiMultihopQA, arXiv 2011.01060"
