"""Dialogue files: two layouts, and one clear line for whatever is wrong with them."""

from __future__ import annotations

import json
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from memfactory.core.errors import BadInput
from memfactory.data.readers.dialogues import DialogueFile, read_dialogues


def turns(path: Path, *records: Any) -> DialogueFile:
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    return read_dialogues(str(path))


def conversation(name: str = "conv-1", **sessions: list[str]) -> dict[str, Any]:
    inside: dict[str, Any] = {"speaker_a": "Ana", "speaker_b": "Ben"}
    for key, texts in sessions.items():
        number = key.removeprefix("session_")
        inside[f"{key}_date_time"] = f"day {number}"
        inside[key] = [
            {"dia_id": f"D{number}:{place}", "speaker": "Ana", "text": text}
            for place, text in enumerate(texts, start=1)
        ]
    return {"sample_id": name, "conversation": inside}


def test_turns_by_session(tmp_path: Path) -> None:
    file = turns(
        tmp_path / "talk.jsonl",
        {"speaker": "Ana", "text": "a", "session": 1, "time": "3 May"},
        {"speaker": "Ben", "text": "b", "session": 1, "time": "later", "id": "x"},
        {"speaker": "Ana", "text": "", "caption": "a dog", "session": 2},
    )
    [dialogue] = file.dialogues
    assert (dialogue.id, dialogue.speakers, file.warnings) == ("talk", ("Ana", "Ben"), ())
    shown = [(s.id, s.time, [(t.id, str(t)) for t in s.turns]) for s in dialogue.sessions]
    assert shown == [
        ("1", "3 May", [("1:1", "Ana: a"), ("x", "Ben: b")]),
        ("2", "", [("2:1", "Ana:  [shares a picture: a dog]")]),
    ]


def test_turns_without_session_belong_together_by_time(tmp_path: Path) -> None:
    records = [{"speaker": "Ana", "text": str(n), "time": f"day {n // 2}"} for n in range(4)]
    [dialogue] = turns(tmp_path / "t.jsonl", *records).dialogues
    assert [(s.id, s.time, len(s.turns)) for s in dialogue.sessions] == [
        ("session_1", "day 0", 2),
        ("session_2", "day 1", 2),
    ]
    [dialogue] = turns(tmp_path / "t.jsonl", *({"speaker": "Ana", "text": "x"} for _ in range(3))).dialogues
    assert [len(s.turns) for s in dialogue.sessions] == [3]


@pytest.mark.parametrize("indent", [None, 2])
def test_locomo_one_or_several_on_one_line_or_many(tmp_path: Path, indent: int | None) -> None:
    path = tmp_path / "l.json"
    one, two = conversation(session_1=["a"], session_2=["b"]), conversation("conv-2", session_1=["c"])
    path.write_text(json.dumps(one, indent=indent))
    assert [(d.id, len(d.sessions)) for d in read_dialogues(str(path)).dialogues] == [("conv-1", 2)]
    path.write_text(json.dumps([one, two], indent=indent))
    assert [d.id for d in read_dialogues(str(path)).dialogues] == ["conv-1", "conv-2"]


def test_missing_turns_and_sessions_are_warnings(tmp_path: Path) -> None:
    record = conversation(session_1=["a", "b", "c"], session_4=["d"])
    del record["conversation"]["session_1"][1]
    file = turns(tmp_path / "l.json", record)
    assert [line.partition("dialogue ")[2] for line in file.warnings] == [
        "'conv-1': no session between 'session_1' and 'session_4'; reading what is there",
        "'conv-1': no turn of 'session_1' between 'D1:1' and 'D1:3'; reading what is there",
    ]


GOOD = {"speaker": "Ana", "text": "a"}


@pytest.mark.parametrize(
    ("records", "message"),
    [
        ([], "t.jsonl: the file is empty"),
        (
            [{"role": "user", "content": "hi"}],
            r"is neither a LoCoMo conversation .* it has 'role', 'content'",
        ),
        ([{}], "it has no fields"),
        ([{"speaker": "Ana"}], r":1: no field 'text'"),
        ([GOOD, {"text": "a"}], ":2: no field 'speaker'"),
        ([GOOD, {"speaker": "Ana", "text": " "}], ":2: field 'text' is empty"),
        ([GOOD, {**GOOD, "sesion": 1}], ":2: unknown field 'sesion'; did you mean 'session'"),
        ([{**GOOD, "id": "x"}, {**GOOD, "id": "x"}], "turn id 'x' was used before, at .*t.jsonl:1"),
        ([{**GOOD, "session": 1}, GOOD], "either every turn has a 'session' or none"),
        ([{**GOOD, "session": n} for n in (1, 2, 1)], ":3: session '1' comes again"),
        ([{**GOOD, "time": n} for n in ("a", "b", "a")], ":3: time 'a' comes again"),
        ([{**GOOD, "session": ""}], "field 'session' is empty"),
        ([{**GOOD, "time": 1.5}], "field 'time' must be a text, not a number"),
        ([GOOD, [1]], ":2: expected an object, found a list"),
        (
            [conversation(session_1=["a"]), conversation(session_1=["b"])],
            "sample_id 'conv-1' was used before",
        ),
        ([conversation(session_1=[])], "session_1: must be a list of turns that is not empty"),
        ([conversation()], "no session"),
    ],
)
def test_what_is_wrong_is_one_line(tmp_path: Path, records: list[Any], message: str) -> None:
    with pytest.raises(BadInput, match=message) as caught:
        turns(tmp_path / "t.jsonl", *records)
    assert "\n" not in str(caught.value) and "t.jsonl" in str(caught.value)


def test_a_cut_file_names_the_line(tmp_path: Path) -> None:
    path = tmp_path / "t.jsonl"
    path.write_text(json.dumps(GOOD) + '\n{"speaker": "A')
    with pytest.raises(BadInput, match=r"t\.jsonl:2: not valid JSON"):
        read_dialogues(str(path))
    with pytest.raises(BadInput, match="no such data file"):
        read_dialogues(str(tmp_path / "none.jsonl"))


@given(
    st.recursive(st.none() | st.integers() | st.text(), lambda c: st.lists(c) | st.dictionaries(st.text(), c))
)
def test_any_json_is_read_or_refused(tmp_path_factory: pytest.TempPathFactory, value: Any) -> None:
    path = tmp_path_factory.getbasetemp() / "wild.json"
    for record in (value, {"conversation": value}, {**GOOD, "session": value}):
        path.write_text(json.dumps(record))
        with suppress(BadInput):
            read_dialogues(str(path))
