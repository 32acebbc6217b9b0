"""What a memory bank promises, in every store."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy
import pytest

from memfactory.core.errors import BadInput
from memfactory.memory.item import MemoryItem
from memfactory.memory.layered import LayeredBank

Again = Callable[[LayeredBank], LayeredBank]
X, Y, Z = [1.0, 0, 0, 0], [0, 1.0, 0, 0], [0, 0, 1.0, 0]


def ids(hits: list) -> list[str]:  # type: ignore[type-arg]
    return [hit.item.id for hit in hits]


def test_an_item_is_kept_whole(bank: LayeredBank, again: Again) -> None:
    item = bank.add(
        "Ana's cat is 'Tom'; 一只猫",
        embedding=[3.0, 0, 0, 4.0],
        key="cat",
        type="fact",
        tags=["pet", "cat"],
        session="s1",
        time="8 May",
        sources=["D1:1", "D1:2"],
    )
    assert item == MemoryItem(
        id="m1",
        text="Ana's cat is 'Tom'; 一只猫",
        key="cat",
        type="fact",
        tags=("pet", "cat"),
        created_session="s1",
        created_time="8 May",
        updated_session="s1",
        updated_time="8 May",
        sources=("D1:1", "D1:2"),
        number=1,
    )
    found = again(bank).get("m1")
    assert found == item
    assert found is not None and found.embedding is not None
    assert found.embedding.tolist() == pytest.approx([0.6, 0, 0, 0.8])
    with pytest.raises(ValueError, match="read-only"):
        found.embedding[0] = 1


ODD = [
    *("m007", "m20230508123045", "m999999999999999999", "m" + "9" * 5000, "m9223372036854775807", "m\u0663"),
    *("m-1", "m0", "12", "it's", "a' OR '1'='1", 'say "hi"', "back\\slash\\'", "100%_", "a/b", "item/x"),
    *(
        "x; DROP TABLE items --",
        "\u200b",
        "Zo\u00eb",
        "\u65e5\u672c",
        "\U0001f600",
        "a\nb",
        " ",
        "NULL",
        "--",
    ),
    *("\x00", "m1\x00"),
]


def test_ids_of_any_kind_are_kept_apart_and_found(bank: LayeredBank, again: Again) -> None:
    for number, item_id in enumerate(ODD):
        bank.insert(MemoryItem(item_id, f"text '{number}' of it's", embedding=[1.0, number, 0, 0]))
    for found in (bank, again(bank)):
        assert [item.id for item in found.items()] == ODD
        for number, item_id in enumerate(ODD):
            item = found.get(item_id)
            assert item is not None and item.text == f"text '{number}' of it's" and item_id in found
            assert [hit.id for hit in found.with_text(item.text)] == [item_id]
        assert ids(found.search_vector([1.0, 0, 0, 0], 3)) == ODD[:3]
        assert {hit.item.id for hit in found.search_text("text", 99)} == set(ODD)
        assert "' OR 1=1 --" not in found and "m8" not in found and found.with_text("' OR '1'='1") == []
    for item_id in ODD:
        with pytest.raises(ValueError, match="is taken"):
            bank.insert(MemoryItem(item_id, "again"))
    new = [bank.add("new").id, bank.add("newer").id]
    assert len({*ODD, *new}) == len(ODD) + 2 and new[0] == "m1000000000000000024"
    for item_id in ODD:
        bank.update(item_id, type="seen")
        bank.delete(item_id)
    assert [item.id for item in again(bank).items()] == new


def test_a_number_of_nineteen_digits_is_never_given_twice(bank: LayeredBank) -> None:
    bank.insert(MemoryItem("m1000000000000000000", "long"))
    bank.insert(MemoryItem("m999999999999999999", "as far as numbers go"))
    assert bank.add("next").id == "m1000000000000000001" and len(bank) == 3


def test_every_form_of_unicode_is_one(bank: LayeredBank, again: Again) -> None:
    composed, decomposed = "Zo\u00eb ate a cr\u00eape", "Zoe\u0308 ate a cre\u0302pe"
    item = bank.add(decomposed, key="Zoe\u0308", tags=["cre\u0302pe"])
    bank.insert(MemoryItem("e\u0301", "other"))
    assert (item.text, item.key, item.tags) == (composed, "Zo\u00eb", ("cr\u00eape",))
    for found in (bank, again(bank)):
        for text in (composed, decomposed):
            assert [item.id for item in found.with_text(text)] == ["m1"]
            assert ids(found.search_text(text.split()[-1], 2)) == ["m1"]
        assert "\u00e9" in found and found.get("e\u0301") == found.get("\u00e9") is not None
    with pytest.raises(ValueError, match="is taken"):
        bank.insert(MemoryItem("\u00e9", "again"))
    assert bank.update("m1", text=composed) == item and bank.delete("e\u0301").id == "\u00e9"


def test_ids_follow_the_order_of_adding_and_are_never_given_twice(bank: LayeredBank, again: Again) -> None:
    assert [bank.add("a").id, bank.add("b").id, bank.add("c").id] == ["m1", "m2", "m3"]
    bank.delete("m3")
    assert bank.add("d").id == "m4"
    bank.insert(MemoryItem("mine", "e"))
    bank.insert(MemoryItem("m9", "f"))
    assert bank.add("g").id == "m10"
    assert [item.id for item in again(bank).items()] == ["m1", "m2", "m4", "mine", "m9", "m10"]
    assert len(bank) == len(again(bank)) == 6
    assert "m2" in bank and "m3" not in bank and 7 not in bank


def test_update_changes_what_is_given_and_keeps_the_place(bank: LayeredBank, again: Again) -> None:
    bank.add("old", embedding=X, key="k", session="s1", time="t1", sources=["D1:1"])
    bank.add("other", embedding=X)
    new = bank.update(
        "m1", text="new", embedding=Y, session="s2", time="t2", sources=["D1:1", "D2:3"], tags=["x"]
    )
    assert new.created_session == "s1" and new.updated_session == "s2" and new.key == "k"
    assert [item.text for item in again(bank).items()] == ["new", "other"]
    assert again(bank).get("m1") == new
    assert ids(again(bank).search_vector(Y, 1)) == ["m1"]
    assert bank.update("m1", embedding=None).embedding is None
    assert ids(bank.search_vector(Y, 5)) == ["m2"]


def test_misuse_raises_and_changes_nothing(bank: LayeredBank) -> None:
    bank.add("a", embedding=X)
    before = list(bank.items())
    for call, error in (
        (lambda: bank.update("m7", key="x"), KeyError),
        (lambda: bank.delete("m7"), KeyError),
        (lambda: bank.update("m1", text="b"), ValueError),  # its embedding would be a lie
        (lambda: bank.add("  "), ValueError),
        (lambda: bank.add("b", embedding=[1.0, 2.0]), ValueError),
        (lambda: bank.add("b", embedding=[0.0] * 4), ValueError),
        (lambda: bank.add("b", embedding=[float("nan")] * 4), ValueError),
        (lambda: bank.insert(MemoryItem("m1", "b")), ValueError),
        (lambda: bank.search_vector([1.0], 3), ValueError),
    ):
        with pytest.raises(error):
            call()  # type: ignore[no-untyped-call]
    assert list(bank.items()) == before
    assert bank.add("b").id == "m2"


def test_vector_search_ranks_by_cosine_and_ties_by_age(bank: LayeredBank, again: Again) -> None:
    for vector in (Y, X, Z, X, [5.0, 5.0, 0, 0], None, X):
        bank.add("text", embedding=vector)
    hits = again(bank).search_vector([2.0, 0.2, 0, 0], 10)
    assert ids(hits) == ["m2", "m4", "m7", "m5", "m1", "m3"]
    assert hits[0].score == hits[1].score == pytest.approx(2 / 4.04**0.5)
    assert ids(bank.search_vector([2.0, 0.2, 0, 0], 2)) == ["m2", "m4"]
    assert bank.search_vector(X, 0) == []


def test_many_equal_scores_do_not_shuffle(bank: LayeredBank, again: Again) -> None:
    with bank.transaction():
        for _ in range(300):
            bank.add("same", embedding=X)
    bank.delete("m2")
    assert ids(again(bank).search_vector(X, 3)) == ids(bank.search_vector(X, 3)) == ["m1", "m3", "m4"]


def test_text_search(bank: LayeredBank, again: Again) -> None:
    bank.add("Ana adopted a cat", tags=["pets"])
    bank.add("Ben plays chess", key="hobby")
    bank.add("Ana plays the violin")
    assert ids(again(bank).search_text("who is playing chess?", 5)) == ["m2", "m3"]
    assert ids(bank.search_text("pet", 5)) == ["m1"]  # tags and keys count, words by their stem
    assert bank.search_text("nothing of it", 5) == bank.search_text("", 5) == []
    bank.update("m2", text="Ben swims")
    assert ids(bank.search_text("chess", 5)) == []
    bank.delete("m3")
    assert ids(bank.search_text("Ana", 5)) == ["m1"]


def test_text_search_of_an_empty_bank(bank: LayeredBank) -> None:
    assert bank.search_text("cat", 3) == []
    bank.add("???")
    assert bank.search_text("cat", 3) == []


def test_items_of_the_same_text(bank: LayeredBank, again: Again) -> None:
    for text in ("it's", "b", "it's"):
        bank.add(text)
    assert [item.id for item in again(bank).with_text("it's")] == ["m1", "m3"]
    bank.update("m1", text="c")
    assert [item.id for item in bank.with_text("it's")] == ["m3"]
    assert bank.with_text("it") == []


def test_a_transaction_is_whole_or_nothing(bank: LayeredBank, again: Again) -> None:
    bank.add("a", embedding=X)
    before = list(bank.items())
    with pytest.raises(RuntimeError, match="stop"), bank.transaction():
        bank.add("b", embedding=X)
        bank.update("m1", key="changed")
        bank.set_meta("session", "s2")
        assert len(bank) == 2 and ids(bank.search_vector(X, 5)) == ["m1", "m2"]
        raise RuntimeError("stop")
    assert list(bank.items()) == list(again(bank).items()) == before and dict(bank.meta) == {}
    with bank.transaction():
        bank.add("b")
        with pytest.raises(RuntimeError), bank.transaction():
            bank.delete("m1")
            raise RuntimeError("inner only")
        bank.set_meta("session", "s2")
    assert [item.text for item in again(bank).items()] == ["a", "b"]
    assert dict(again(bank).meta) == {"session": "s2"}


def test_forks_go_their_own_ways(bank: LayeredBank, again: Again) -> None:
    for number in range(20):
        bank.add(f"item {number}", embedding=X)
    forks = [bank.fork() for _ in range(3)]
    forks[0].delete("m1")
    forks[1].update("m1", text="changed", embedding=Y)
    assert forks[2].add("more", embedding=Z).id == "m21"
    child = forks[1].fork()
    child.update("m1", key="k")
    bank.delete("m20")
    assert [len(fork) for fork in forks] == [19, 20, 21] and len(bank) == len(again(bank)) == 19
    assert ids(forks[0].search_vector(X, 1)) == ["m2"]
    assert ids(forks[1].search_vector(Y, 1)) == ["m1"] == ids(child.search_vector(Y, 1))
    first = bank.get("m1")
    assert first is not None and first.text == "item 0"
    assert forks[1].get("m1") == replace(first, text="changed")
    assert ids(forks[0].search_text("item 19", 1)) == ["m20"]


def test_a_chain_of_forks_stays_shallow(bank: LayeredBank) -> None:
    now = bank.fork()
    rng = numpy.random.default_rng(0)
    for step in range(300):
        now.add(f"step {step}", embedding=rng.standard_normal(4))
        if step % 3 == 2:
            now.delete(f"m{step}")
        now = now.fork()
    assert len(now._layers) < 12
    assert [item.number for item in now.items()] == [n for n in range(1, 301) if (n - 2) % 3]


def test_another_embedder_is_refused_in_one_line(bank: LayeredBank) -> None:
    bank.require_embedder("e", 4)
    with pytest.raises(
        BadInput, match=r"^this memory bank: built with embedder 'e' \(dimension 4\), not 'f'"
    ):
        bank.require_embedder("f", 4)
