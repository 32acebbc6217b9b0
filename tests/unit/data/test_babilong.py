"""BABILong: answers against a reader that has only the text, exact lengths, facts in order."""

from __future__ import annotations

import random
import re
from collections import Counter
from pathlib import Path
from typing import Any, get_args

import pytest

from memfactory.core.errors import BadInput
from memfactory.data.make import make_tasks
from memfactory.data.readers.jsonl import jsonl
from memfactory.data.synthetic.babi import (
    FACTS,
    GIVERS,
    LABELS,
    PEOPLE,
    PLACES,
    TASKS,
    THINGS,
    Story,
    make_story,
)
from memfactory.data.synthetic.babilong import NOISE, TaskName, babilong
from memfactory.data.synthetic.haystack import estimated_tokens
from memfactory.metrics.babilong import score

_MOVED = re.compile(r"(\w+) (?:moved|went|journeyed|travelled|went back) to the (\w+)\.")
_TOOK = re.compile(r"(\w+) (?:got|took|grabbed|picked up) the (\w+)(?: there)?\.")
_LEFT = re.compile(r"(\w+) (?:dropped|discarded|left|put down) the (\w+)(?: there)?\.")
_GAVE = re.compile(r"(\w+) (?:gave|handed|passed) the (\w+) to (\w+)\.")
_LIES = re.compile(r"The (\w+) is (north|south|east|west) of the (\w+)\.")
_OPPOSITE = {"north": "south", "south": "north", "east": "west", "west": "east"}


def read(sentences: tuple[str, ...] | list[str], question: str) -> set[str]:
    """Every answer that a reader of the sentences can give: all states are kept, one after each sentence."""
    person: dict[str, str] = {}
    carries: dict[str, str] = {}
    thing: dict[str, str] = {}
    visits: dict[str, list[str]] = {}
    gifts: list[tuple[str, str, str]] = []
    north_of: set[tuple[str, str, str]] = set()
    for sentence in sentences:
        if found := _LIES.fullmatch(sentence):
            a, way, b = found.groups()
            north_of |= {(a, way, b), (b, _OPPOSITE[way], a)}
        elif found := _MOVED.fullmatch(sentence):
            person[found[1]] = found[2]
        elif found := _TOOK.fullmatch(sentence):
            carries[found[2]] = found[1]
        elif found := _LEFT.fullmatch(sentence):
            assert carries.pop(found[2]) == found[1]
        else:
            found = _GAVE.fullmatch(sentence)
            assert found is not None, sentence
            who, what, whom = found.groups()
            assert carries[what] == who
            carries[what] = whom
            gifts.append((who, what, whom))
        for what, who in carries.items():
            if who in person:
                thing[what] = person[who]
        if (found := _LEFT.fullmatch(sentence)) and found[1] in person:
            thing[found[2]] = person[found[1]]
        for what, place in thing.items():
            held = visits.setdefault(what, [])
            if held[-1:] != [place]:
                held.append(place)
    if found := re.fullmatch(r"Where is the (\w+)\?", question):
        return {thing[found[1]]}
    if found := re.fullmatch(r"Where is (\w+)\?", question):
        return {person[found[1]]}
    if found := re.fullmatch(r"Where was the (\w+) before the (\w+)\?", question):
        path = visits[found[1]]
        return {path[i - 1] for i, place in enumerate(path) if place == found[2] and i > 0}
    if found := re.fullmatch(r"What is (\w+) of the (\w+)\?", question):
        return {a for a, way, b in north_of if (way, b) == found.groups()}
    if found := re.fullmatch(r"What is the (\w+) (\w+) of\?", question):
        return {b for a, way, b in north_of if (a, way) == found.groups()}
    if found := re.fullmatch(r"What did (\w+) give to (\w+)\?", question):
        return {what for who, what, whom in gifts if (who, whom) == found.groups()}
    if found := re.fullmatch(r"Who gave the (\w+) to (\w+)\?", question):
        return {who for who, what, whom in gifts if (what, whom) == found.groups()}
    if found := re.fullmatch(r"Who did (\w+) give the (\w+) to\?", question):
        return {whom for who, what, whom in gifts if (who, what) == found.groups()}
    if found := re.fullmatch(r"Who gave the (\w+)\?", question):
        return {who for who, what, _ in gifts if what == found[1]}
    found = re.fullmatch(r"Who received the (\w+)\?", question)
    assert found is not None, question
    return {whom for _, what, whom in gifts if what == found[1]}


def stories(task: str, count: int = 400) -> list[Story]:
    return [make_story(task, random.Random(f"{task}|{i}")) for i in range(count)]


@pytest.mark.parametrize("task", TASKS)
def test_the_answer_is_the_only_one_a_reader_can_give(task: str) -> None:
    for story in stories(task):
        assert read(story.sentences, story.question) == {story.answer}
        assert story.answer in LABELS[task]


@pytest.mark.parametrize(("task", "facts"), [("qa1", 1), ("qa2", 2), ("qa3", 3), ("qa4", 1), ("qa5", 1)])
def test_the_facts_that_it_rests_on(task: str, facts: int) -> None:
    for story in stories(task):
        assert len(story.support) == facts and list(story.support) == sorted(set(story.support))
        alone = [story.sentences[i] for i in story.support]
        if task == "qa2" and _LEFT.fullmatch(alone[-1]):
            # A thing that was put down: a reader of the two facts alone has not seen it taken.
            [[_, what]] = _LEFT.findall(alone[-1])
            alone = [alone[0], f"{alone[-1].split()[0]} took the {what}.", alone[-1]]
        if task == "qa5":
            assert any(word in alone[0] for word in ("gave", "handed", "passed")) and story.answer in alone[0]
            continue
        assert story.answer in read(alone, story.question)
        for missing in range(facts):
            fewer = [sentence for i, sentence in enumerate(alone) if i != missing]
            try:
                assert story.answer not in read(fewer, story.question)
            except (KeyError, AssertionError):
                continue  # a fact is missing, and the reader cannot even follow


def test_stories_are_of_all_kinds_and_lengths() -> None:
    for task, (least, most) in FACTS.items():
        lengths = [len(story.sentences) for story in stories(task)]
        assert min(lengths) >= least and max(lengths) <= most
        assert max(lengths) > most - 3
    assert {len(story.sentences) for story in stories("qa4")} == {2}
    for task in TASKS:
        answers = Counter(story.answer for story in stories(task))
        assert set(answers) == set(LABELS[task])
    kinds = {re.sub(r"the \w+|[A-Z][a-z]+(?= )|to \w+\?", "_", story.question) for story in stories("qa5")}
    assert len({story.question.split()[1] for story in stories("qa5")}) >= 3 and len(kinds) >= 4


@pytest.mark.parametrize("length", [512, 4096, 20_000])
@pytest.mark.parametrize("task", TASKS)
def test_lengths_are_exact_and_the_facts_stand_in_order(task: str, length: int) -> None:
    for made in babilong(task, length=length, size=3):
        assert 0.99 * length <= estimated_tokens(made.evidence) <= length
        facts = [sentence for sentence in re.findall(r"[A-Z][^.]*\.", made.evidence) if sentence not in NOISE]
        assert len(facts) == made.meta["facts"]
        assert read(facts, made.question) == {made.answers[0]}
        assert all(line in made.evidence for line in made.meta["gold_evidence"].split("\n"))


def test_nothing_of_a_story_is_in_the_noise() -> None:
    words = set(re.findall(r"\w+", " ".join(NOISE).lower()))
    assert not words & {word.lower() for word in (*PLACES, *THINGS, *PEOPLE, *GIVERS)}


def test_a_story_in_a_text_of_ones_own(tmp_path: Path) -> None:
    path = tmp_path / "book.txt"
    path.write_text(" ".join(f"Chapter {i} tells of nothing at all." for i in range(50)))
    one = babilong("qa2", length=2000, size=1, haystack=str(path))[0]
    assert "tells of nothing at all" in one.evidence and NOISE[0] not in one.evidence
    other = babilong("qa2", length=2000, size=1)[0]
    assert other.question == one.question and other.evidence != one.evidence


def test_a_task_is_a_function_of_its_arguments(tmp_path: Path) -> None:
    assert list(babilong(size=5)) == list(babilong(size=5))
    assert babilong(size=5)[3] == babilong(size=100)[3]
    assert [t.evidence for t in babilong(size=5)] != [t.evidence for t in babilong(size=5, seed=1)]
    # The same story at every length: what changes is the text around it.
    assert babilong(size=1)[0].answers == babilong(length=900, size=1)[0].answers
    output = str(tmp_path / "qa1.jsonl")
    assert make_tasks(babilong(size=2), output) == 2
    assert jsonl(output)[1].evidence == babilong(size=2)[1].evidence


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"task": "qa6"}, "unknown task 'qa6'; did you mean 'qa"),
        ({"task": "qa3", "length": 20}, r"length 20 is too short: the task alone has \d+ tokens"),
        ({"haystack": "no.txt"}, "data 'babilong': haystack file 'no.txt' does not exist"),
        ({"tokenizer": "tinny"}, "data 'babilong': tokenizer: no such model folder"),
        ({"size": 0}, "size must be at least 1"),
    ],
)
def test_what_is_wrong_is_one_line(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(BadInput, match=message) as error:
        babilong(**fields)
    assert "\n" not in str(error.value)


def test_the_recipe_layer_knows_every_task() -> None:
    assert get_args(TaskName) == TASKS


@pytest.mark.parametrize(
    ("reply", "right"),
    [
        ("kitchen", 1.0),
        ("The most recent location of Mary is the KITCHEN. Before, the office.", 1.0),
        ("kitchen or office", 0.0),
        ("office", 0.0),
        ("The milk was in the kitchen before the garden", 1.0),  # the question names the garden
        ("I think. kitchen", 0.0),  # only the first sentence counts
        ("", 0.0),
    ],
)
def test_the_score_wants_one_label(reply: str, right: float) -> None:
    assert score(reply, ["kitchen"], "Where was the milk before the garden?", PLACES) == right
