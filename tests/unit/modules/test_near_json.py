"""Replies that are nearly JSON: what is whole is carried out, what is cut off never."""

from __future__ import annotations

import json
import math
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from memfactory.memory.bank import InMemoryBank
from memfactory.modules.extractors import parse_facts, parse_memory_list
from memfactory.modules.ids import id_as_said, shown_id, whole_number
from memfactory.modules.mergers import parse_decision
from memfactory.modules.operations import parse_addressed, settle
from memfactory.modules.reflectors import parse_topics

ADD = '{"op": "ADD", "text": "A"}'


@pytest.mark.parametrize(
    ("reply", "text"),
    [
        ('{"operations": [{"op": "ADD", "text": "A",}]}', "A"),
        ('{"operations": [{"op": "ADD", "text": "A"},]}', "A"),
        ('{"operations": [\n  // new\n  {"op": "ADD", "text": "A"}\n]}', "A"),
        ('{"operations": [{"op": "ADD", "text": "A\nB"}]}', "A B"),
        ("{'operations': [{'op': 'ADD', 'text': 'A'}]}", "A"),
        (r'{"operations": [{"op": "ADD", "text": "costs \$5"}]}', "costs $5"),
        ('{"operations": [{"op": "ADD", "text": "She said "hi", then left"}]}', 'She said "hi", then left'),
        ('{operations: [{op: "ADD", text: "A"}]}', "A"),
        ('{"operations": [{"op": "ADD" "text": "A"}]}', "A"),
        (
            "{\u201coperations\u201d: [{\u201cop\u201d: \u201cADD\u201d, \u201ctext\u201d: \u201cA\u201d}]}",
            "A",
        ),
        ('{"operations": [{"op": "ADD", "text": "see https://x.y/z",}]}', "see https://x.y/z"),
        (f"[{ADD}]", "A"),
        (f"```json\n[\n  {ADD}\n]\n```", "A"),
        (f'{{"Operations": [{ADD}]}}', "A"),
    ],
)
def test_what_is_nearly_json_is_carried_out_and_not_well_formed(reply: str, text: str) -> None:
    plan = parse_addressed(reply)
    assert [(o.kind, o.text) for o in plan.operations] == [("add", text)]
    assert plan.errors == ("the JSON with 'operations' is not well-formed",)
    assert plan.malformed and plan.understood == "whole"


@pytest.mark.parametrize(
    "reply",
    [
        '{"operations": [{"op": "DELETE", "id": "m1"',
        '{"operations": [{"op": "DELETE", "id": "m1",',
        "{'operations': [{'op': 'DELETE', 'id': 'm1'",
        '{"operations": [{"op": "UPDATE", "id": "m1", "text": "half a te',
        '{"operations": [{"op": "UPDATE", "id": "m1", "text": "half a text"',
        "I would keep [m1] and drop [m2].",
        '{"operations": [{"op": "ADD", "text": "x"y}]}',
        "<think>" + f'{{"operations": [{ADD}]}}',
        f'{{"operations": {ADD}}}',
        "",
    ],
)
def test_what_is_cut_off_or_unclear_does_nothing(reply: str) -> None:
    plan = parse_addressed(reply)
    assert plan.operations == () and plan.errors and plan.malformed
    assert plan.understood == "nothing"


def test_how_much_was_understood() -> None:
    assert parse_addressed(f'{{"operations": [{ADD}]}}').understood == "whole"
    assert parse_addressed('{"operations": []}').understood == "whole"
    assert parse_addressed(f'{{"operations": [{ADD}, {{"op": "DEL').understood == "partly"
    assert parse_addressed(f'{{"operations": [{ADD}, 7]}}').understood == "partly"
    assert parse_facts('{"facts": ["a", "b"').understood == "partly"
    assert parse_facts('{"facts": [1, 2]}').understood == "nothing"
    assert parse_facts('{"facts": "a"}').understood == "nothing"
    assert parse_topics("hm", ["t"]).understood == "nothing"
    assert parse_decision('{"actions": [{"op": "ADD"},]}', ["m1"]).understood == "whole"
    assert parse_decision("hm", ["m1"]).understood == "nothing"


def test_a_draft_before_and_prose_behind() -> None:
    reply = f'Draft: {{"operations": [{{"op": "DELETE", "id": "m1"}}]}}. Final: {{"operations": [{ADD},]}}'
    assert [o.kind for o in parse_addressed(reply).operations] == ["add"]
    said = parse_facts('{"facts": ["a"]}\nI left out these facts: [m1]')
    assert [fact.text for fact in said.facts] == ["a"] and not said.errors


SAID = [
    ("m1", "m1"), ("1", "m1"), (1, "m1"), ("[m1]", "m1"), ("m1.", "m1"), ("M1", "m1"), (" m1 ", "m1"),
    ("#1", "m1"), ("m01", "m1"), (1.0, "m1"), (["m1"], "m1"), ("memory m1", "m1"), ("`m1`", "m1"),
    ("[m1] Ann lives in Rome.", "m1"), ("m1: Ann lives in Rome.", "m1"),
    ("m20230508123045", "m20230508123045"), ("[M20230508123045]", "m20230508123045"),
    ("7", "7"), ("old-1", "old-1"), ("[old-1].", "old-1"), ("[old-1] x", "old-1"),

    ("m1, m7", None), (["m1", "m7"], None), (1.5, None), (math.nan, None), (True, None), (None, None), ("m2", None),
    ({"id": "m1"}, None), (-1, None), (10**40, None), ("m" + "1" * 5000, None), ("\ud800", None), ("m\u0661", "m1"),
]  # fmt: skip


@pytest.mark.parametrize(("said", "meant"), SAID)
def test_ids_as_prompts_show_them(said: object, meant: str | None) -> None:
    shown = ["m1", "7", "m7", "old-1", "m20230508123045"]
    assert shown_id(id_as_said(said), shown) == meant


def test_an_id_that_was_shown_is_itself() -> None:
    assert [shown_id(name, ["m1", "m01", "M1"]) for name in ("m1", "m01", "M1")] == ["m1", "m01", "M1"]


def test_an_id_as_shown_reaches_its_memory() -> None:
    bank = InMemoryBank("none", 1)
    bank.add("Ann lives in Rome.")
    plan = settle(
        parse_addressed('{"operations": [{"op": "DELETE", "id": "[m1]"}]}'), bank, list(bank.items()), "skip"
    )
    assert [(o.kind, o.id) for o in plan.operations] == [("delete", "m1")] and not plan.errors
    assert parse_decision('{"actions": [{"op": "MERGE", "id": "M1.", "text": "x"}]}', ["m1"]).id == "m1"


def test_whole_numbers() -> None:
    values = [3, "3", "[3]", "3.", " 3 ", 3.0, "m3", True, "three", "\u0663", -3, "9" * 40]
    assert [whole_number(value) for value in values] == [3, 3, 3, 3, 3, *[None] * 7]


TEXTS = st.text(st.characters(blacklist_categories=("Cs",)), min_size=1, max_size=12)
OPERATIONS = st.lists(
    st.fixed_dictionaries(
        {
            "op": st.sampled_from(["ADD", "UPDATE", "DELETE"]),
            "id": st.sampled_from(["m1", "[m2]"]),
            "text": TEXTS,
        }
    ),
    min_size=1,
    max_size=4,
)
SPELLINGS = {
    "strict": lambda plan: json.dumps(plan),
    "bare": lambda plan: json.dumps(plan["operations"], indent=1),
    "commas": lambda plan: json.dumps(plan).replace('"}', '",}').replace("}]", "},]"),
    "lines": lambda plan: json.dumps(plan, ensure_ascii=False, indent=2).replace("\\n", "\n"),
    "quotes": lambda plan: str(plan),
    "commented": lambda plan: json.dumps(plan).replace("[{", "[ // new\n{"),
}


@pytest.mark.parametrize("spelling", SPELLINGS)
@given(operations=OPERATIONS, share=st.floats(0, 1))
def test_a_reply_that_is_cut_off_means_the_beginning_of_the_whole_one(
    spelling: str, operations: list[dict[str, str]], share: float
) -> None:
    reply = SPELLINGS[spelling]({"operations": operations})
    whole = parse_addressed(reply).operations
    cut = parse_addressed(reply[: int(share * len(reply))]).operations
    assert cut == whole[: len(cut)]


WILD = [
    "{",
    "}",
    "[",
    "]",
    '"',
    "'",
    ",",
    ":",
    "\\",
    "//",
    "/*",
    "#",
    "\n",
    "a",
    "1",
    "\ud800",
    "\x00",
    '"operations": [',
    "NaN",
]


@given(st.one_of(st.text(), st.lists(st.sampled_from(WILD), max_size=60).map("".join)))
def test_no_reply_raises(reply: str) -> None:
    for text in (reply, f'{{"operations": [{reply}', f'[{{"op": "ADD", "text": "{reply}"}}]'):
        for parse in (parse_addressed, parse_facts, parse_memory_list):
            assert parse(text) == parse(text)
        parse_decision(text, ["m1"])
        parse_topics(text, ["t"])


@pytest.mark.parametrize(
    "piece",
    ["{", "[", '{"a":', '"', "'", '[{"a": "b"', "\\", "/*", "#", "[ '", "{'a': 'b", '{"a": ', '"a" ', "1"],
)
def test_time_is_bounded(piece: str) -> None:
    began = time.process_time()
    parse_addressed('{"operations": [' + piece * (100_000 // len(piece)))
    parse_addressed("[" + piece * (100_000 // len(piece)))
    assert time.process_time() - began < 20  # a second at most; what grows with the square takes minutes
