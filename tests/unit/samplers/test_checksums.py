"""Checksums tell tensors apart, and a ledger says what an engine lacks."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from memfactory.samplers import checksums
from memfactory.samplers.checksums import FEW_COLUMNS, Held, Ledger, digest, perturbed, sampled_columns


def by_hand(words: list[int]) -> int:
    """The rule in plain integers: each 64-bit word times an odd number of its place, modulo 2^64."""
    golden = 0x9E3779B97F4A7C15
    return sum(word * ((place * golden) % 2**64 | 1) for place, word in enumerate(words, 1)) * golden % 2**64


def test_the_rule_by_hand() -> None:
    assert digest(torch.tensor([3, 5, 7], dtype=torch.int64)) == by_hand([3, 5, 7])
    one, two = 0x3F800000, 0x40000000  # 1.0 and 2.0 in float32
    assert digest(torch.tensor([1.0, 2.0])) == by_hand([one + (two << 32)])
    assert digest(torch.tensor([1.0, 2.0, 1.0])) == by_hand([one, two, one])  # no whole words
    assert digest(torch.zeros(0)) == 0


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 70), st.data(), st.sampled_from([torch.float32, torch.bfloat16, torch.float16]))
def test_the_smallest_change_anywhere_is_seen(size: int, data: st.DataObject, dtype: torch.dtype) -> None:
    tensor = torch.randn(size).to(dtype)
    place = data.draw(st.integers(0, size - 1))
    other = tensor.clone()
    bits = other.view(torch.int32 if dtype == torch.float32 else torch.int16)
    bits[place] ^= 1
    assert digest(other) != digest(tensor)
    if size > 1 and tensor[0] != tensor[-1]:
        assert digest(tensor.flip(0)) != digest(tensor) or torch.equal(tensor.flip(0), tensor)
    assert digest(tensor.reshape(1, -1).t()) == digest(tensor)


def test_minus_zero_is_zero() -> None:
    assert digest(torch.tensor([-0.0, 1.0])) == digest(torch.tensor([0.0, 1.0]))


@pytest.mark.parametrize("width", [1, FEW_COLUMNS, FEW_COLUMNS + 1, 576, 1536])
def test_over_the_turns_every_column_is_compared(width: int) -> None:
    seen = {column for turn in range(width) for column in sampled_columns(width, turn)}
    assert seen == set(range(width))
    assert all(len(sampled_columns(width, turn)) <= FEW_COLUMNS for turn in range(5))


def test_a_ledger_says_what_is_wrong() -> None:
    ledger = Ledger("bfloat16")
    tensors = {"a": torch.tensor([[1.0, 1.00001]]), "b": torch.ones(2)}
    assert dict(ledger.watch(tensors.items())).keys() == tensors.keys()
    assert ledger.layout() == {"a": ["bfloat16", 1, 2], "b": ["bfloat16", 2]}
    right = {name: digest(tensor.bfloat16()) for name, tensor in tensors.items()}
    assert ledger.faults(Held(right)) == []
    assert ledger.faults(Held({"b": right["b"]}, unread=["a"], empty=["fused"])) == []
    [said] = ledger.faults(Held({**right, "a": 1}, where="http://s"))
    assert said == "http://s: 1 of 2 tensors differ from those sent, 'a' first"
    assert "2 of its parameters did not come, 'c' first" in ledger.faults(Held(right, empty=["c", "d"]))[0]
    assert "1 tensors that were sent are not there, 'b'" in ledger.faults(Held({"a": right["a"]}))[0]


def test_of_wide_packed_matrices_some_columns_are_compared() -> None:
    wide = torch.randn(5, FEW_COLUMNS + 44)
    ledger = Ledger("float32", turn=7)
    list(ledger.watch([("w", wide)]))
    chosen = wide[:, sampled_columns(wide.shape[1], 7)].t().contiguous()
    assert ledger.faults(Held({"w": digest(chosen)}, packed=["w"])) == []
    assert ledger.faults(Held({"w": digest(chosen + 1)}, packed=["w"]))


@pytest.mark.parametrize("size", [2**17 - 1, 2**18, 3 * 2**17 + 5])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.int8])
def test_however_many_parts_are_handed_over_at_once(
    monkeypatch: pytest.MonkeyPatch, size: int, dtype: torch.dtype
) -> None:
    """As on a GPU, whose checksums are held against those of a CPU."""
    tensor = (torch.randn(size) * 50).to(dtype)
    one_by_one = digest(tensor)
    monkeypatch.setitem(checksums._AT_ONCE, "cpu", 2)
    assert digest(tensor) == one_by_one


def test_parts_beyond_the_first_count_too() -> None:
    long = torch.zeros(2**18 + 2)
    places = (0, 2**17, 2**18, 2**18 + 1)
    assert len({digest(long.index_fill(0, torch.tensor([place]), 1.0)) for place in places}) == 4


def test_a_perturbation_changes_every_tensor() -> None:
    tensors = {"zero": torch.zeros(3), "some": torch.randn(4, 4).bfloat16()}
    for name, tensor in perturbed(tensors.items()):
        assert (tensor != tensors[name]).all() and tensor.dtype == tensors[name].dtype
