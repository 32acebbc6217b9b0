"""LoCoMo's JSON, and its split by conversation."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from memfactory.core.errors import BadInput
from memfactory.core.registry import get
from memfactory.data.check import check_file
from memfactory.data.readers.locomo import count_questions, locomo, read_conversations

Write = Callable[..., str]


def record(name: str = "conv-1") -> dict[str, Any]:
    return {
        "sample_id": name,
        "conversation": {
            "speaker_a": "Ana",
            "speaker_b": "Ben",
            "session_10_date_time": "later",
            "session_10": [{"speaker": "Ben", "dia_id": "D10:1", "text": "Hello again"}],
            "session_2_date_time": "1:56 pm on 8 May, 2023",
            "session_2": [
                {"speaker": "Ana", "dia_id": "D2:1", "text": "Look", "blip_caption": "a cat", "img_url": []},
                {"speaker": "Ben", "dia_id": "D2:2", "text": "Nice"},
            ],
            "session_11_date_time": "never took place",
        },
        "qa": [
            {"question": "When?", "answer": 2022, "evidence": ["D2:1; D10:1"], "category": 2},
            {"question": "Adversarial?", "adversarial_answer": "x", "evidence": [], "category": 5},
            {"question": "Why?", "answer": "because", "evidence": ["D2:2", "D9:9", "D"], "category": 3},
        ],
    }


def test_a_conversation(write: Write) -> None:
    tasks = locomo(write(json.dumps([record()]), "x.json"))
    assert [task.id for task in tasks] == ["conv-1-q0", "conv-1-q2"]
    assert tasks[0].answers == ("2022",)
    assert tasks[0].meta == {
        "benchmark": "locomo",
        "metric": "locomo",
        "group": "temporal",
        "conversation": "conv-1",
        "category": 2,
        "category_name": "temporal",
        "evidence_turns": ("D2:1", "D10:1"),
        "evidence_sessions": ("session_2", "session_10"),
        "gold_evidence": "[1:56 pm on 8 May, 2023]\nAna: Look [shares a picture: a cat]\n\n[later]\nBen: Hello again",
    }
    assert tasks[1].meta["evidence_turns"] == ("D2:2",)
    dialogue = tasks[0].evidence
    assert dialogue.speakers == ("Ana", "Ben")
    assert [(s.id, s.time) for s in dialogue.sessions] == [
        ("session_2", "1:56 pm on 8 May, 2023"),
        ("session_10", "later"),
    ]
    assert str(dialogue.sessions[0]) == "Ana: Look [shares a picture: a cat]\nBen: Nice"
    assert [turn.id for turn in dialogue.turns()] == ["D2:1", "D2:2", "D10:1"]
    assert [session.id for session in dialogue.before("session_10").sessions] == ["session_2"]
    assert tasks[1].evidence is dialogue
    [first, _] = locomo(write(json.dumps([record()]), "x.json"), form="text")
    assert first.evidence == (
        "[1:56 pm on 8 May, 2023]\nAna: Look [shares a picture: a cat]\nBen: Nice\n\n[later]\nBen: Hello again"
    )


def test_splits_and_what_is_said_about_them(write: Write, capsys: pytest.CaptureFixture[str]) -> None:
    path = write(json.dumps([record("conv-30"), record("conv-1"), record("conv-26")]), "x.json")
    ids = {split: [t.id for t in locomo(path, split=split)] for split in ("train", "validation", "test")}
    assert ids["train"] == ["conv-26-q0", "conv-26-q2"]
    assert ids["validation"] == ["conv-30-q0", "conv-30-q2"]
    assert ids["test"] == ["conv-1-q0", "conv-1-q2"]
    assert len(locomo(path, limit=5)) == 5
    line = capsys.readouterr().err.splitlines()[0]
    assert "train 2, validation 2, test 2; differs from Memory-R1, which has train 152" in line
    counts = count_questions(path)
    assert counts.questions == {"train": 2, "validation": 2, "test": 2} and not counts.as_in_paper


def test_choices_that_cannot_be(write: Write) -> None:
    path = write(json.dumps([record()]), "x.json")
    with pytest.raises(BadInput, match="unknown split 'tran'; did you mean 'train'"):
        locomo(path, split="tran")
    with pytest.raises(BadInput, match="holds no question of split 'train'"):
        locomo(path, split="train")
    with pytest.raises(BadInput, match="offset 2 leaves none of the 2"):
        locomo(path, offset=2)


def turn(**change: Any) -> dict[str, Any]:
    return {"speaker": "Ana", "dia_id": "D3:1", "text": "Hi", **change}


@pytest.mark.parametrize(
    ("session", "message"),
    [
        ([], "session_3: must be a list of turns that is not empty"),
        ("x", "session_3: must be a list of turns that is not empty, not a string"),
        (["x"], r"session_3\[0\]: a turn must be an object"),
        ([{"speaker": "Ana", "text": "Hi"}], r"session_3\[0\]: no field 'dia_id'"),
        ([turn(dia_id="D2:2")], r"session_3\[0\]: turn id 'D2:2' was used before, at .*session_2\[1\]"),
        ([turn(), turn()], r"session_3\[1\]: turn id 'D3:1' was used before"),
        ([turn(speaker="Eve")], "speaker 'Eve' is none of Ana, Ben"),
        ([turn(text="")], "field 'text' is empty"),
    ],
)
def test_a_dialogue_that_is_wrong(write: Write, session: Any, message: str) -> None:
    bad = record("conv-2")
    bad["conversation"] |= {"session_3": session, "session_3_date_time": "now"}
    with pytest.raises(BadInput, match=r"x\.json\[1\]\.conversation\.?.*" + message):
        locomo(write(json.dumps([record(), bad]), "x.json"))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"qa": "x"}, "field 'qa' must be a list"),
        (
            {"qa": [{"question": "Q?", "answer": "a", "category": 6}]},
            "'category' must be a whole number from 1 to 5",
        ),
        ({"qa": [{"question": "Q?", "category": 1}]}, r"qa\[0\]: no field 'answer'"),
        ({"conversation": {"speaker_a": "A", "speaker_b": "B"}}, "no session"),
        ({"sample_id": "conv-1"}, "sample_id 'conv-1' was used before"),
    ],
)
def test_a_record_that_is_wrong(write: Write, change: dict[str, Any], message: str) -> None:
    path = write(json.dumps([record(), {**record("conv-2"), **change}]), "x.json")
    with pytest.raises(BadInput, match=r"x\.json\[1\].*" + message):
        locomo(path)


def test_a_session_without_its_time(write: Write) -> None:
    bad = record()
    del bad["conversation"]["session_2_date_time"]
    with pytest.raises(BadInput, match="no field 'session_2_date_time'"):
        locomo(write(json.dumps([bad]), "x.json"))


def test_registered() -> None:
    assert get("data", "locomo").source == "LoCoMo, arXiv 2402.17753"


def test_sample_of_locomo(sample_data: Path) -> None:
    path = str(sample_data / "locomo" / "locomo_sample.json")
    assert (len(locomo(path, split="train")), len(locomo(path, split="validation"))) == (152, 81)
    assert str(count_questions(path)).endswith("test 152; differs from Memory-R1, which has test 1307")
    assert [len(c.dialogue.sessions) for c in read_conversations(path)] == [19, 19, 32]
    report = check_file("locomo", path)
    assert report.ok and report.notes == (str(count_questions(path)),)
