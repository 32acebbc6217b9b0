"""LongMemEval's JSON: sessions in the order of their dates, gold turns and sessions, abstentions."""

from __future__ import annotations

import json
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from memfactory.core.errors import BadInput
from memfactory.data.check import check_file
from memfactory.data.dialogue import Dialogue
from memfactory.data.readers.longmemeval import TYPES, longmemeval, parse_longmemeval
from memfactory.metrics import longmemeval as metric
from memfactory.metrics.retrieval import recall_all_at_k, session_ranking

Write = Callable[..., str]


def record(name: str = "q1", **change: Any) -> dict[str, Any]:
    """Two sessions, the later one first, and one evidence turn in each."""
    return {
        "question_id": name,
        "question_type": "multi-session",
        "question": "How many plants did I buy?",
        "answer": 3,
        "question_date": "2023/05/30 (Tue) 23:40",
        "haystack_session_ids": ["answer_b", "answer_a", "ultra_1"],
        "haystack_dates": ["2023/05/25 (Thu) 10:00", "2023/05/20 (Sat) 02:21", "2023/05/21 (Sun) 08:00"],
        "haystack_sessions": [
            [
                {"role": "user", "content": "Two more plants today.", "has_answer": True},
                {"role": "assistant", "content": "Lovely.", "has_answer": False},
            ],
            [
                {"role": "user", "content": "Hello"},
                {"role": "assistant", "content": "Hi"},
                {"role": "user", "content": "I bought a plant.", "has_answer": True},
            ],
            [{"role": "user", "content": "What is a prime?"}, {"role": "assistant", "content": ""}],
        ],
        "answer_session_ids": ["answer_a", "answer_b"],
        **change,
    }


def test_a_question(write: Write) -> None:
    [task] = longmemeval(write(json.dumps([record()]), "longmemeval_oracle.json"))
    assert (task.id, task.answers) == ("q1", ("3",))
    assert task.question == "How many plants did I buy? (asked on 2023/05/30 (Tue) 23:40)"
    dialogue = task.evidence
    assert isinstance(dialogue, Dialogue) and dialogue.speakers == ("user", "assistant")
    assert [session.id for session in dialogue.sessions] == ["answer_a", "ultra_1", "answer_b"]
    assert [turn.id for turn in dialogue.sessions[0].turns] == ["answer_a_1", "answer_a_2", "answer_a_3"]
    assert task.meta == {
        "benchmark": "longmemeval",
        "metric": "longmemeval",
        "group": "multi-session",
        "question_type": "multi-session",
        "abstention": False,
        "question_date": "2023/05/30 (Tue) 23:40",
        "asked": "How many plants did I buy?",
        "evidence_turns": ("answer_a_3", "answer_b_1"),
        "evidence_sessions": ("answer_a", "answer_b"),
        "gold_evidence": (
            "[2023/05/20 (Sat) 02:21]\nuser: I bought a plant.\n\n"
            "[2023/05/25 (Thu) 10:00]\nuser: Two more plants today."
        ),
    }


def test_as_a_text(write: Write) -> None:
    [task] = longmemeval(write([record()]), form="text")
    assert task.evidence.startswith(
        "[2023/05/20 (Sat) 02:21]\nuser: Hello\nassistant: Hi\nuser: I bought a plant.\n\n"
    )
    assert task.evidence.endswith(
        "[2023/05/25 (Thu) 10:00]\nuser: Two more plants today.\nassistant: Lovely."
    )


def test_a_question_to_abstain_from_has_its_sessions_as_gold(write: Write) -> None:
    chats = record()["haystack_sessions"]
    for turn in (turn for chat in chats for turn in chat):
        turn.pop("has_answer", None)
    [task] = longmemeval(write([record("q1_abs", haystack_sessions=chats, answer_session_ids=["answer_a"])]))
    assert task.meta["abstention"] is True and task.meta["evidence_turns"] == ()
    assert task.meta["evidence_sessions"] == ("answer_a",)
    assert "Hello" in task.meta["gold_evidence"] and "Two more" not in task.meta["gold_evidence"]


def test_a_session_that_was_drawn_twice_keeps_ids_apart(write: Write) -> None:
    [task] = longmemeval(write([record(haystack_session_ids=["x", "x", "x"], answer_session_ids=["x"])]))
    ids = [session.id for session in task.evidence.sessions]
    assert sorted(ids) == ["x", "x#2", "x#3"] and task.meta["evidence_sessions"] == tuple(ids)
    turns = [turn.id for turn in task.evidence.turns()]
    assert len(set(turns)) == len(turns)


def test_types_are_kept_apart(write: Write) -> None:
    path = write([record(f"q{i}", question_type=kind) for i, kind in enumerate(TYPES)] + [record("z_abs")])
    assert [task.id for task in longmemeval(path, question_type="temporal-reasoning")] == ["q3"]
    assert [task.id for task in longmemeval(path, question_type="multi-session")] == ["q5", "z_abs"]
    assert [task.id for task in longmemeval(path, question_type="abstention")] == ["z_abs"]
    with pytest.raises(BadInput, match="unknown question_type 'multisession'; did you mean 'multi-session'"):
        longmemeval(path, question_type="multisession")
    with pytest.raises(BadInput, match="none of its 1 records can be used"):
        longmemeval(write([record()]), question_type="abstention")


def test_turns_ranked_and_sessions_scored(write: Write) -> None:
    [task] = longmemeval(write([record()]))
    session_of = {turn.id: session.id for session in task.evidence.sessions for turn in session.turns}
    ranked = ["answer_b_2", "answer_b_1", "ultra_1_1", "answer_a_1"]
    sessions = session_ranking(ranked, session_of)
    assert sessions == ["answer_b", "ultra_1", "answer_a"]
    assert recall_all_at_k(sessions, task.meta["evidence_sessions"], 2) == 0.0
    assert recall_all_at_k(sessions, task.meta["evidence_sessions"], 3) == 1.0


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"question_type": "multi"}, "unknown question_type 'multi'; did you mean 'multi-session'"),
        ({"answer": None}, "field 'answer' must hold strings, not null"),
        ({"answer": " "}, "no gold answer in field 'answer'"),
        ({"haystack_dates": ["x"]}, "3 haystack_session_ids, 1 haystack_dates and 3 haystack_sessions"),
        ({"haystack_session_ids": [1, 2, 3]}, "'haystack_session_ids' must be a list of strings"),
        ({"haystack_sessions": "x"}, "'haystack_sessions' must be a list, not a string"),
        ({"haystack_sessions": []}, "'haystack_sessions' is empty"),
        ({"haystack_sessions": ["x", [], []]}, r"haystack_sessions\[0\]: a session must be a list of turns"),
        ({"haystack_sessions": [[], [1], []]}, r"haystack_sessions\[1\]\[0\]: a turn must be an object"),
        (
            {"haystack_sessions": [[{"role": "bot", "content": "x"}], [], []]},
            r"\[0\]\[0\]: role 'bot' is none of",
        ),
        ({"haystack_sessions": [[{"role": "user"}], [], []]}, r"\[0\]\[0\]: no field 'content'"),
        ({"answer_session_ids": None}, "'answer_session_ids' must be a list of strings"),
    ],
)
def test_another_schema_is_one_line(write: Write, change: dict[str, Any], message: str) -> None:
    path = write([record("q0"), record("q1", **change)])
    with pytest.raises(BadInput, match=r"data\.jsonl:2.*" + message) as error:
        longmemeval(path)
    assert "\n" not in str(error.value)
    assert check_file("longmemeval", path).bad == 1


@pytest.mark.parametrize("field", sorted(record()))
def test_a_column_that_is_missing(write: Write, field: str) -> None:
    bad = record()
    del bad[field]
    with pytest.raises(BadInput, match=f"data.jsonl:1: no field '{field}'"):
        longmemeval(write([bad]))


def test_a_file_larger_than_memory_is_read_one_question_at_a_time(tmp_path: Path) -> None:
    """20 MB of the largest file's layout: neither its questions nor their check may hold more than a few of them."""
    path = tmp_path / "longmemeval_m_cleaned.json"
    chat = [{"role": "user", "content": 'Schöne "words" [and {brackets. ' * 250}] * 2
    with path.open("w") as file:
        for number in range(160):
            haystack = record(
                f"q{number}", haystack_sessions=[chat] * 8, haystack_session_ids=[f"s{i}" for i in range(8)],
                haystack_dates=["2023/05/25 (Thu) 10:00"] * 8, answer_session_ids=["s1"],
            )  # fmt: skip
            file.write(("[" if number == 0 else ",\n") + json.dumps(haystack))
        file.write("]\n")
    assert path.stat().st_size > 20e6
    tracemalloc.start()
    try:
        report = check_file("longmemeval", str(path))
        tasks = longmemeval(str(path))[:150]
        read = [task.id for task in tasks]
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert (report.records, report.bad) == (160, 0) and read == [f"q{number}" for number in range(150)]
    assert peak < 5e6, f"{peak / 1e6:.1f} MB at once"


WILD = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)


@given(field=st.sampled_from(sorted(record())), value=WILD)
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_wild_records_are_read_or_refused_in_one_line(field: str, value: Any) -> None:
    message = "f.json[0]"
    try:
        parse_longmemeval(record(**{field: value}), "f.json[0]", "d")
    except BadInput as error:
        message = str(error)
    assert message.startswith("f.json[0]") and "\n" not in message


def test_accuracies_as_the_public_scripts_average_them() -> None:
    # Two types; the abstention counts within its type as well: (1 + 0 + 1) / 3 and 0 / 1.
    rows = [
        ("multi-session", False, 1.0),
        ("multi-session", False, 0.0),
        ("multi-session", True, 1.0),
        ("knowledge-update", False, 0.0),
    ]
    found = metric.summary(rows)
    assert found.by_type == {"knowledge-update": 0.0, "multi-session": pytest.approx(2 / 3)}
    assert found.task_averaged == pytest.approx(1 / 3)
    assert found.overall == 0.5 and found.abstention == 1.0
    assert metric.summary(rows[:1]).abstention is None
    with pytest.raises(ValueError, match="no scores"):
        metric.summary([])


def test_rules_instead_of_a_judge() -> None:
    assert metric.rule_accuracy("You bought 3 of them.", ["3"]) == 1.0
    assert metric.rule_accuracy("You bought four.", ["3"]) == 0.0
    assert metric.rule_accuracy("You didn’t mention a hamster.", ["x"], abstention=True) == 1.0
    assert metric.rule_accuracy("It is 3.", ["3"], abstention=True) == 0.0
