"""What RMM's parsers make of replies, right, wrong and wild: none raises, and nothing not shown is ever used."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from memfactory.modules.citing_answerer import parse_cited
from memfactory.modules.mergers import Decision, parse_decision
from memfactory.modules.reflectors import Topic, parse_topics
from memfactory.modules.rerankers import parse_ranking

SHOWN = ["m1", "m4", "m12"]
TURNS = ["D1:1", "D1:2", "D1:3"]

#: Fragments of what models write, so that wild text is often nearly right.
PIECES = st.sampled_from(
    [
        *("[", "]", "[m1]", "[1, 2]", "[3]", "m4", ", ", "12", "\\boxed{", "}", "[NO_CITE]", "]}", '"'),
        *('{"topics": [', '{"actions": [', '{"summary": "a", "turns": [1, 9]}'),
        *('{"op": "MERGE", "id": "m1", "text": "x"}', "9" * 5000, "[" * 400),
    ]
)
WILD = st.one_of(st.text(max_size=60), st.lists(PIECES, max_size=12).map("".join))


@pytest.mark.parametrize(
    ("reply", "used", "errors"),
    [
        ("\\boxed{Paris} [m1, m4]", ("m1", "m4"), 0),
        ("\\boxed{Paris} [m4][m1] [m4]", ("m4", "m1"), 0),
        ("\\boxed{Paris} [1; 12]", ("m1", "m12"), 0),
        ("\\boxed{Paris} [NO_CITE]", (), 0),
        ("\\boxed{Paris} [none]", (), 0),
        ("\\boxed{Paris}", (), 1),
        ("Paris [m1]", ("m1",), 1),
        ("\\boxed{Paris} [m1, m7]", ("m1",), 1),  # m7 was not shown
        ("\\boxed{Paris} [99]", (), 1),
        ("\\boxed{Paris} [laughs] [m1]", ("m1",), 0),
        ("\\boxed{Paris} [see m1]", (), 1),
        ("\\boxed{Paris} [m1, m", (), 1),  # cut off
        ("", (), 2),
    ],
)
def test_citations(reply: str, used: tuple[str, ...], errors: int) -> None:
    found = parse_cited(reply, SHOWN)
    assert (found.reply, found.used, len(found.errors)) == (reply, used, errors)


@pytest.mark.parametrize(
    ("reply", "numbers", "errors"),
    [
        ("[3, 1]", (3, 1), 0),
        ("I think [1] and [2] are alike. [2, 3]", (2, 3), 0),
        ('["3", 1]', (3, 1), 0),
        ("[3, 3]", (3,), 1),
        ("[0, 5, 2]", (2,), 2),
        ("[1, 2, 3, 4]", (1, 2, 3), 1),
        ("[]", (), 1),
        ("[1, 2", (), 1),
        ("[true, 1.0, null, 2]", (2,), 3),
        ("nothing", (), 1),
    ],
)
def test_lists_of_numbers(reply: str, numbers: tuple[int, ...], errors: int) -> None:
    found, problems = parse_ranking(reply, shown=4, most=3)
    assert (found, len(problems)) == (numbers, errors)


@pytest.mark.parametrize(
    ("reply", "topics", "errors"),
    [
        (
            '{"topics": [{"topic": "home", "summary": "Ana lives in Rome.", "turns": [1, 3]}]}',
            (Topic("Ana lives in Rome.", "home", ("D1:1", "D1:3")),),
            0,
        ),
        ('{"topics": []}', (), 0),
        ('{"topics": [{"summary": "A.", "turns": [2, 9]}]}', (Topic("A.", "", ("D1:2",)),), 1),
        ('{"topics": [{"summary": "A."}]}', (Topic("A."),), 1),
        ('{"topics": [{"topic": "home", "turns": [1]}]}', (), 1),
        (
            '{"topics": [{"summary": "A.", "turns": [1]}, {"summary": "A.", "turns": ["2", 1]}]}',
            (Topic("A.", "", ("D1:1", "D1:2")),),
            0,
        ),
        ('{"topics": [{"summary": "A.", "turns": [1]}, {"summ', (Topic("A.", "", ("D1:1",)),), 1),
        ("no", (), 1),
    ],
)
def test_topics(reply: str, topics: tuple[Topic, ...], errors: int) -> None:
    found = parse_topics(reply, TURNS)
    assert (found.topics, len(found.errors), found.called) == (topics, errors, True)


@pytest.mark.parametrize(
    ("actions", "into", "text", "errors"),
    [
        ([{"op": "ADD"}], "", "", 0),
        ([{"op": "merge", "id": "m4", "text": "Both."}], "m4", "Both.", 0),
        ([{"op": "MERGE", "id": 12, "text": "Both."}], "m12", "Both.", 0),
        ([{"op": "MERGE", "id": "m9", "text": "Both."}], "", "", 1),
        ([{"op": "MERGE", "id": "m4"}], "", "", 1),
        ([{"op": "MERGE", "id": "m9", "text": "x"}, {"op": "MERGE", "id": "m1", "text": "y"}], "m1", "y", 1),
        ([{"op": "ADD"}, {"op": "MERGE", "id": "m1", "text": "y"}], "", "", 1),
        ([{"op": "DELETE", "id": "m1"}], "", "", 1),
        ([], "", "", 1),
        (["ADD"], "", "", 1),
    ],
)
def test_decisions_add_what_is_not_merged(actions: list[object], into: str, text: str, errors: int) -> None:
    found = parse_decision(json.dumps({"actions": actions}), SHOWN)
    assert (found.id, found.text, len(found.errors)) == (into, text, errors)


def test_a_reply_without_a_decision_adds() -> None:
    found = parse_decision("I would merge them.", SHOWN)
    assert found == Decision("", "", found.errors, called=True) and found.errors


@given(WILD)
def test_no_reply_makes_a_parser_raise_or_use_what_was_not_shown(reply: str) -> None:
    cited = parse_cited(reply, SHOWN)
    assert set(cited.used) <= set(SHOWN) and len(set(cited.used)) == len(cited.used)
    numbers, _ = parse_ranking(reply, shown=4, most=3)
    assert len(numbers) <= 3 and set(numbers) <= {1, 2, 3, 4} and len(set(numbers)) == len(numbers)
    for topic in parse_topics(reply, TURNS).topics:
        assert topic.text and set(topic.sources) <= set(TURNS)
    decision = parse_decision(reply, SHOWN)
    assert decision.id in ("", *SHOWN) and bool(decision.id) == bool(decision.text)
