"""The table of docs/memory_r1.md row by row, in both layouts, and replies that are anything but a reply."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from memfactory.memory.bank import InMemoryBank
from memfactory.modules.extractors import Fact
from memfactory.modules.operations import Operation, Plan, carry_out, parse_addressed, parse_numbered, settle

HOME, PET = "Ana lives in Rome.", "Ana has a cat."
FACTS = (Fact("Ana lives in Oslo.", "home", "fact", ("Ana",)), Fact("Ana has a dog."))


def new_bank() -> InMemoryBank:
    bank = InMemoryBank("none", 1)
    bank.add(HOME, key="home", session="s1", time="day 1")
    bank.add(PET, session="s1", time="day 1")
    return bank


def state(bank: InMemoryBank) -> dict[str, str]:
    return {item.id: item.text for item in bank.items()}


def do(reply: str, layout: str = "addressed", on_error: str = "skip") -> tuple[dict[str, str], Plan]:
    """The bank after a reply, and the plan that was carried out."""
    bank = new_bank()
    shown = list(bank.items())
    parsed = parse_addressed(reply, FACTS) if layout == "addressed" else parse_numbered(reply, shown, FACTS)
    plan = settle(parsed, bank, shown, on_error)  # type: ignore[arg-type]
    carry_out(plan, bank, dict.fromkeys(plan.texts), session="s2", time="day 2")
    return state(bank), plan


def orders(*operations: object) -> str:
    return json.dumps({"operations": operations})


ADD = {"op": "ADD", "text": "Ana plays the harp."}
BEFORE = {"m1": HOME, "m2": PET}
ADDED = {**BEFORE, "m3": "Ana plays the harp."}


def test_all_four_operations() -> None:
    after, plan = do(
        orders(
            ADD,
            {"op": "UPDATE", "id": "m1", "text": "Ana lives in Oslo."},
            {"op": "DELETE", "id": "m2"},
            {"op": "NOOP"},
        )
    )
    assert after == {"m1": "Ana lives in Oslo.", "m3": "Ana plays the harp."}
    assert not plan.errors
    assert [plan.count(kind) for kind in ("add", "update", "delete", "noop")] == [1, 1, 1, 1]


# Each row: what is wrong, the operations, and the bank when the wrong one is skipped.
ROWS = [
    ("unknown id", [{"op": "DELETE", "id": "m9"}, ADD], ADDED),
    ("no id", [{"op": "UPDATE", "text": "x"}, ADD], ADDED),
    ("update without text", [{"op": "UPDATE", "id": "m1"}, ADD], ADDED),
    ("update with an empty text", [{"op": "UPDATE", "id": "m1", "text": " "}, ADD], ADDED),
    ("add without text", [{"op": "ADD"}, ADD], ADDED),
    ("delete twice", [{"op": "DELETE", "id": "m1"}, {"op": "DELETE", "id": "m1"}], {"m2": PET}),
    ("add of a duplicate", [{"op": "ADD", "text": HOME}, ADD], ADDED),
    ("add of the same text twice", [ADD, ADD], ADDED),
    ("update to another memory's text", [{"op": "UPDATE", "id": "m1", "text": PET}, ADD], ADDED),
    (
        "conflict: update, then delete",
        [{"op": "UPDATE", "id": "m1", "text": "Ana lives in Oslo."}, {"op": "DELETE", "id": "m1"}],
        {"m1": "Ana lives in Oslo.", "m2": PET},
    ),
    (
        "conflict: delete, then update",
        [{"op": "DELETE", "id": "m1"}, {"op": "UPDATE", "id": "m1", "text": "x"}],
        {"m2": PET},
    ),
    ("unknown operation", [{"op": "MERGE", "id": "m1"}, ADD], ADDED),
    ("no operation at all", ["ADD", ADD], ADDED),
]


@pytest.mark.parametrize(("operations", "skipped"), [row[1:] for row in ROWS], ids=[row[0] for row in ROWS])
def test_what_is_wrong_is_skipped_or_voids_the_plan(
    operations: list[object], skipped: dict[str, str]
) -> None:
    after, plan = do(orders(*operations))
    assert after == skipped
    assert len(plan.errors) == 1
    after, plan = do(orders(*operations), on_error="void")
    assert after == BEFORE
    assert len(plan.errors) == 1 and plan.operations == ()


def test_a_memory_that_was_not_shown_is_unknown() -> None:
    bank = new_bank()
    plan = settle(parse_addressed(orders({"op": "DELETE", "id": "m2"})), bank, [bank.get("m1")], "skip")  # type: ignore[list-item]
    assert plan.operations == () and len(plan.errors) == 1


def test_a_text_whose_memory_the_same_reply_removed_may_be_added() -> None:
    after, plan = do(orders({"op": "DELETE", "id": "m1"}, {"op": "ADD", "text": HOME}))
    assert after == {"m2": PET, "m3": HOME} and not plan.errors


def test_an_update_to_the_same_text_changes_nothing() -> None:
    bank = new_bank()
    shown = list(bank.items())
    plan = settle(parse_addressed(orders({"op": "UPDATE", "id": "m1", "text": HOME})), bank, shown, "skip")
    carry_out(plan, bank, {HOME: None}, session="s2", time="day 2")
    item = bank.get("m1")
    assert item is not None and not plan.errors
    assert [operation.kind for operation in plan.operations] == ["noop"]
    assert (item.text, item.key, item.created_time, item.updated_time) == (HOME, "home", "day 1", "day 1")


@pytest.mark.parametrize("around", ["Let me think {{}} [1].\n```json\n{}\n```\nDone.", "{}", "x{{ {} }}"])
def test_text_around_the_json_is_no_error(around: str) -> None:
    after, plan = do(around.format(orders(ADD)))
    assert after == ADDED and not plan.errors and not plan.malformed


def test_the_last_of_several_objects_counts() -> None:
    after, _ = do(orders({"op": "DELETE", "id": "m1"}) + " No: " + orders(ADD))
    assert after == ADDED


def test_json_that_is_cut_off_keeps_its_whole_entries() -> None:
    reply = orders(ADD, {"op": "DELETE", "id": "m1"})
    after, plan = do(reply[:-10])
    assert after == ADDED and len(plan.errors) == 1 and plan.malformed
    assert do(reply[:-10], on_error="void")[0] == BEFORE


@pytest.mark.parametrize(
    "reply", ["", "no", "[]", "{}", '{"operations": 3}', '{"operations": {"op": "ADD"}}']
)
def test_no_list_of_operations_is_one_error(reply: str) -> None:
    after, plan = do(reply)
    assert after == BEFORE and len(plan.errors) == 1 and plan.malformed


def test_ids_may_come_as_numbers() -> None:
    assert do(orders({"op": "delete", "id": 2}))[0] == {"m1": HOME}


def test_an_added_fact_keeps_title_type_and_tags() -> None:
    [operation] = parse_addressed(orders({"op": "ADD", "text": FACTS[0].text}), FACTS).operations
    assert operation == Operation("add", text=FACTS[0].text, fact=FACTS[0])


def test_numbered_layout_counts_memories_then_candidates() -> None:
    after, plan = do(
        orders(
            {"id": 1, "op": "DEL"},
            {"id": 2, "op": "NONE"},
            {"id": 3, "op": "ADD"},
            {"id": "4", "op": "UPDATE", "key": "pets", "value": "Ana has a cat and a dog."},
        ),
        "numbered",
        "void",
    )
    assert after == {"m2": PET, "m3": "Ana lives in Oslo.", "m4": "Ana has a cat and a dog."}
    assert not plan.errors


@pytest.mark.parametrize(
    "wrong",
    [
        {"id": 1, "op": "ADD"},
        {"id": 1, "op": "UPDATE", "value": "x"},
        {"id": 3, "op": "DEL"},
        {"id": 3, "op": "UPDATE"},
        {"id": 0, "op": "NONE"},
        {"id": 5, "op": "ADD"},
        {"id": True, "op": "DEL"},
        {"op": "DEL"},
        {"id": 4, "op": "ADD"},
    ],
    ids=str,
)
def test_one_illegal_operation_voids_the_numbered_plan_unless_skipped(wrong: dict[str, object]) -> None:
    reply = orders({"id": 4, "op": "ADD"}, wrong)
    assert do(reply, "numbered", "void")[0] == BEFORE
    after, plan = do(reply, "numbered", "skip")
    assert after == {**BEFORE, "m3": "Ana has a dog."} and len(plan.errors) == 1


values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["op", "id", "text"]), inner),
    max_leaves=6,
)
entries = st.fixed_dictionaries(
    {},
    optional={
        "op": st.sampled_from(["ADD", "UPDATE", "DELETE", "NOOP", "DEL", "x"]) | values,
        "id": st.sampled_from(["m1", "m2", "m3", 1, 2, 3, "4", "m99"]) | values,
        "text": st.sampled_from([HOME, PET, "new", "\ud800", "a\x00b"]) | values,
        "value": st.sampled_from([HOME, "new"]) | values,
    },
)
well_formed = st.builds(
    lambda found: json.dumps({"operations": found}), st.lists(entries | values, max_size=6)
)
replies = st.one_of(
    st.text(),
    st.text(alphabet='{}[]":,\\ operationsADm1'),
    well_formed,
    st.builds(lambda reply, end: reply[:end], well_formed, st.integers(0, 200)),
    st.builds(lambda a, reply, b: a + reply + b, st.text(), well_formed, st.text()),
    st.builds(lambda value: json.dumps({"operations": value}), values),
)


@given(replies, st.sampled_from(["addressed", "numbered"]), st.sampled_from(["skip", "void"]))
def test_no_reply_raises_or_corrupts_and_the_same_reply_gives_the_same_bank(
    reply: str, layout: str, on_error: str
) -> None:
    after, plan = do(reply, layout, on_error)
    assert (after, plan) == do(reply, layout, on_error)
    assert len(set(after.values())) == len(after), "no text twice"
    assert all(text == " ".join(text.split()) != "" for text in after.values())
    assert all(text.encode("utf-8") for text in after.values()), "a bank on disk must be able to keep it"
    adds, deletes = plan.count("add"), plan.count("delete")
    assert len(after) == len(BEFORE) + adds - deletes
    if on_error == "void" and plan.errors:
        assert after == BEFORE


@pytest.mark.parametrize(
    "reply",
    ["[" * 100_000, '{"operations": ' * 3_000, '{"operations": [' + "9" * 10_000, "{" * 100_000],
    ids=["lists", "objects", "digits", "braces"],
)
def test_endless_replies_end(reply: str) -> None:
    assert do(reply)[0] == BEFORE
