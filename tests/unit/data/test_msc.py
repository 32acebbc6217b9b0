"""Multi-Session Chat's JSON Lines: earlier sessions are the evidence, the next utterance is the answer."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from memfactory.core.errors import BadInput
from memfactory.data.check import check_file
from memfactory.data.dialogue import Dialogue
from memfactory.data.readers.msc import msc, parse_chat
from memfactory.metrics.qa import meteor

Write = Callable[..., str]


def record(name: str = "train:ordered_7", **change: Any) -> dict[str, Any]:
    return {
        "personas": [["I own a jeep.", "I like steak."], ["I run a lot."]],
        "dialog": [
            {"text": "How is the jeep?", "id": "Speaker 2"},
            {"text": "It broke down.", "id": "Speaker 1"},
            {"text": "Oh no!", "id": "Speaker 2"},
        ],
        "metadata": {"initial_data_id": name, "session_id": 2},
        "previous_dialogs": [
            {
                "personas": [["x"], ["y"]],
                "dialog": [{"text": "What car do you own? I have a jeep."}, {"text": "None, I run."}],
                "time_num": 1,
                "time_unit": "hour",
                "time_back": "12 days 1 hour ago",
            },
            {"dialog": [{"text": "Hi again."}], "time_num": 3, "time_unit": "days"},
        ],
        "init_personas": [["a"], ["b"]],
        **change,
    }


def test_a_chat(write: Write) -> None:
    [task] = msc(write([record()], "valid.txt"))
    assert (task.id, task.answers) == ("train:ordered_7-s2-t2", ("Oh no!",))
    assert task.question == (
        "Speaker 2: How is the jeep?\nSpeaker 1: It broke down.\nWhat does Speaker 2 say next?"
    )
    past = task.evidence
    assert isinstance(past, Dialogue)
    assert [(session.id, session.time) for session in past.sessions] == [
        ("session_1", "12 days 1 hour ago"),
        ("session_2", "3 days before the next session"),
    ]
    # Earlier sessions do not name speakers: they take turns.
    assert str(past.sessions[0]) == (
        "Speaker 1: What car do you own? I have a jeep.\nSpeaker 2: None, I run."
    )
    assert task.meta == {
        "benchmark": "msc",
        "metric": "meteor",
        "group": "session 2",
        "speaker": "Speaker 2",
        "turn": 2,
        "gold_evidence": "Speaker 1: I own a jeep. I like steak.\nSpeaker 2: I run a lot.",
    }
    assert meteor("Oh no!", task.answers) > 0.9


def test_which_utterances_are_asked_for(write: Write) -> None:
    path = write([record("a"), record("b"), record("a")])
    assert [task.id for task in msc(path)] == ["a-s2-t2", "b-s2-t2", "a-s2#2-t2"]
    assert [(task.id, task.answers[0]) for task in msc(path, turns="first")][:1] == [
        ("a-s2-t1", "It broke down.")
    ]
    every = msc(path, turns="all", limit=3)
    assert [task.id for task in every] == ["a-s2-t1", "a-s2-t2", "b-s2-t1"]
    assert every[1] == msc(path)[0]
    assert msc(path, form="text")[0].evidence.startswith("[12 days 1 hour ago]\nSpeaker 1: What car")
    with pytest.raises(BadInput, match="unknown turns 'lst'; did you mean 'last'"):
        msc(path, turns="lst")


def test_a_chat_that_says_less(write: Write) -> None:
    bare = record(metadata={}, personas=None)
    bare["previous_dialogs"] = [{"dialog": [{"text": "Hi"}]}]
    [task] = msc(write([bare]))
    assert task.id == "data-0-t2" and task.meta["group"] == "" and "gold_evidence" not in task.meta
    assert task.evidence.sessions[0].time == ""


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"dialog": []}, "dialog: must be a list of utterances that is not empty"),
        ({"dialog": [{"text": "Hi"}]}, "field 'dialog' needs two utterances"),
        ({"dialog": ["Hi", "Ho"]}, r"dialog\[0\]: an utterance must be an object"),
        ({"dialog": [{"text": "Hi"}, {"text": " "}]}, r"dialog\[1\]: field 'text' is empty"),
        ({"metadata": []}, "field 'metadata' must be an object, not a list"),
        ({"previous_dialogs": []}, "field 'previous_dialogs' must be a list that is not empty"),
        ({"previous_dialogs": ["x"]}, r"previous_dialogs\[0\]: a session must be an object"),
        ({"previous_dialogs": [{}]}, r"previous_dialogs\[0\]: no field 'dialog'"),
        ({"personas": ["x"]}, "field 'personas' must hold a list of sentences for each speaker"),
    ],
)
def test_another_schema_is_one_line(write: Write, change: dict[str, Any], message: str) -> None:
    path = write([record("a"), record("b", **change)])
    with pytest.raises(BadInput, match=r"data\.jsonl:2.*" + message) as error:
        msc(path)
    assert "\n" not in str(error.value)
    assert check_file("msc", path).problems == (str(error.value),)


@pytest.mark.parametrize("field", ["dialog", "metadata", "previous_dialogs"])
def test_a_column_that_is_missing(write: Write, field: str) -> None:
    bad = record()
    del bad[field]
    with pytest.raises(BadInput, match=f"data.jsonl:1: no field '{field}'"):
        msc(write([bad]))


WILD = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)


@given(field=st.sampled_from(sorted(record())), value=WILD)
@settings(max_examples=150, deadline=None)
def test_wild_records_are_read_or_refused_in_one_line(field: str, value: Any) -> None:
    message = "f.txt:1"
    try:
        chat = parse_chat(json.loads(json.dumps(record(**{field: value}))), "f.txt:1", "d")
        assert chat.task(1).answers[0]
    except BadInput as error:
        message = str(error)
    assert message.startswith("f.txt:1") and "\n" not in message
