"""Synthetic dialogues: repeatable, split by pairs, and with the answers that a reader who follows them would give."""

from __future__ import annotations

import re

import pytest

from memfactory.core.errors import BadInput
from memfactory.core.types import Task
from memfactory.data.dialogue import Dialogue, Turn
from memfactory.data.sources import dialogues, facts
from memfactory.data.synthetic.dialogues import NUMBERS, PET, SAYINGS
from memfactory.data.synthetic.facts import split_of
from memfactory.data.synthetic.vocabulary import VALUES

SIZE = 150


def tasks(**options: object) -> list[Task]:
    return list(dialogues(size=SIZE, **options))  # type: ignore[arg-type]


def heard(turn: Turn) -> tuple[str, str, str, str] | None:
    """Kind, action, value and old value of a turn, found by its sentence alone; None for small talk."""
    for kind, sayings in SAYINGS.items():
        for action, patterns in sayings.items():
            for pattern in patterns:
                shape = re.escape(pattern).replace(r"\{v\}", r"(?P<v>\w+)").replace(r"\{o\}", r"(?P<o>\w+)")
                found = re.fullmatch(shape, turn.text)
                if found and set(found.groupdict().values()) <= set(VALUES[kind]):
                    groups = found.groupdict()
                    return kind, action, groups.get("v", ""), groups.get("o", "")
    return None


def true_answer(task: Task) -> str:
    """The answer as a reader finds it in the dialogue."""
    assert isinstance(task.evidence, Dialogue)
    name, about = task.meta["about"]
    value, pets, day = "", [], ""
    for session in task.evidence.sessions:
        for turn in session.turns:
            told = heard(turn)
            if told is None or turn.speaker != name or told[0] != about:
                continue
            _, action, new, old = told
            if about == PET and action == "state":
                pets.append(new)
            elif about == PET and action == "retract":
                pets.remove(old)
            value = new
            if action in ("state", "change") and re.search(rf"\b{new}\b", task.question):
                assert not day, "a value begins on one day only"
                day = session.time
    if task.meta["question_kind"] == "when":
        return day
    if task.meta["question_kind"] == "count":
        return NUMBERS[len(pets)]
    return value or "none"


@pytest.mark.parametrize("split", ["train", "heldout"])
@pytest.mark.parametrize("sessions", [1, 4, 16])
def test_the_answer_is_what_a_careful_reader_finds(split: str, sessions: int) -> None:
    for task in tasks(split=split, sessions=sessions):
        assert task.answers[0] == true_answer(task), task.id


def test_the_same_arguments_give_the_same_tasks_whatever_the_offset() -> None:
    whole = tasks()
    assert whole == tasks()
    assert whole[5] == dialogues(size=1, offset=5)[0]
    assert whole != tasks(seed=1)
    assert len({task.id for task in whole}) == SIZE


def test_train_and_held_out_share_no_pair() -> None:
    for split in ("train", "heldout"):
        for task in tasks(split=split):
            assert isinstance(task.evidence, Dialogue)
            for turn in task.evidence.turns():
                told = heard(turn)
                if told is not None:
                    assert all(split_of(turn.speaker, value) == split for value in told[2:] if value)


def test_facts_are_stated_changed_taken_back_and_repeated_among_small_talk() -> None:
    seen: dict[str, int] = {}
    kinds: dict[str, int] = {}
    for task in tasks():
        assert isinstance(task.evidence, Dialogue)
        kinds[task.meta["question_kind"]] = kinds.get(task.meta["question_kind"], 0) + 1
        for turn in task.evidence.turns():
            told = heard(turn)
            action = told[1] if told else "small talk"
            seen[action] = seen.get(action, 0) + 1
    assert set(seen) == {"state", "change", "retract", "repeat", "small talk"}
    assert min(seen.values()) > SIZE // 5
    assert set(kinds) == {"value", "count", "when"} and min(kinds.values()) > SIZE // 5


def test_the_turns_that_matter_are_turns_of_the_dialogue() -> None:
    for task in tasks(question="when"):
        assert isinstance(task.evidence, Dialogue)
        said = {turn.id: turn for turn in task.evidence.turns()}
        [turn] = task.meta["evidence_turns"]
        assert said[turn].speaker == task.meta["about"][0]


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"question": "why"}, "unknown question 'why'"),
        ({"sessions": 0}, "at least one session"),
        ({"split": "test"}, "unknown split 'test'"),
        ({"size": 0}, "size must be at least 1"),
    ],
)
def test_bad_options_are_one_line(options: dict[str, object], named: str) -> None:
    with pytest.raises(BadInput, match=named):
        dialogues(**options)  # type: ignore[arg-type]


def test_gold_evidence_is_the_turns_that_the_answer_rests_on() -> None:
    for task in dialogues(split="train", sessions=3, size=20):
        turns = {turn.id: turn.text for turn in task.evidence.turns()}
        gold = task.meta.get("gold_evidence", "")
        assert all(turns[turn] in gold for turn in task.meta["evidence_turns"])
        assert gold.count("\n[") + gold.startswith("[") == len(task.meta["evidence_sessions"])


def test_gold_evidence_of_the_reading_task_is_the_sentences_of_the_needed_facts() -> None:
    for task in facts(split="heldout", size=30):
        gold = task.meta["gold_evidence"]
        sentences = gold.split(". ")
        assert len(sentences) == len(task.meta["needed"])
        assert all(sentence.rstrip(".") in task.evidence for sentence in sentences)
        assert all(name in gold and value in gold for name, _, value in task.meta["needed"])
