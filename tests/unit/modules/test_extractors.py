"""Facts of a reply in both layouts."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from memfactory.modules.extractors import Fact, parse_facts, parse_memory_list


def test_facts() -> None:
    found = parse_facts('Here: {"facts": ["Ana  lives in Rome.", "Ana lives in Rome.", 3, ""]}')
    assert found.facts == (Fact("Ana lives in Rome."),)
    assert found.errors == ("fact 3 is not a text", "fact 4 is not a text")


def test_nothing_to_remember_is_no_error() -> None:
    assert parse_facts('{"facts": []}').errors == ()


def test_facts_that_are_cut_off_keep_the_whole_ones() -> None:
    found = parse_facts('{"facts": ["a", "b", "c')
    assert [fact.text for fact in found.facts] == ["a", "b"] and len(found.errors) == 1


def test_memory_list() -> None:
    entry = {"key": "home", "memory_type": "fact", "value": "Ana lives in Rome.", "tags": ["Ana", 3]}
    found = parse_memory_list(json.dumps({"memory_list": [entry, {"key": "x"}, "y"], "summary": "s"}))
    assert found.facts == (Fact("Ana lives in Rome.", "home", "fact", ("Ana",)),)
    assert len(found.errors) == 2


json_values = st.recursive(
    st.none() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)


@pytest.mark.parametrize(("parse", "key"), [(parse_facts, "facts"), (parse_memory_list, "memory_list")])
@given(text=st.text(), value=json_values, end=st.integers(0, 60))
def test_no_reply_raises(parse, key: str, text: str, value: object, end: int) -> None:  # type: ignore[no-untyped-def]
    whole = json.dumps({key: value})
    for reply in (text, whole, whole[:end], text + whole + text):
        found = parse(reply)
        assert found == parse(reply)
        assert all(fact.text.strip() == fact.text != "" for fact in found.facts)
