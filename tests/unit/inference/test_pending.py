"""Messages that wait for a bank: on disk at once, in the bank once."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from memfactory.core.errors import BadInput, DiskError
from memfactory.inference.pending import Pending
from memfactory.memory.lance import LanceBank


@pytest.fixture
def bank(tmp_path: Path) -> LanceBank:
    return LanceBank(tmp_path / "bank", embedder="e", dim=4)


def texts(bank: LanceBank) -> list[tuple[int, str]]:
    """What waits, as a new process sees it."""
    pending, found = Pending(bank), []
    while (said := pending.first()) is not None:
        found.append((said.number, said.text))
        pending._waiting.pop(0)
    return found


def keep(bank: LanceBank, notes: dict[str, str]) -> None:
    for key, text in notes.items():
        bank.set_meta(key, text)


def test_a_message_that_was_not_understood_waits_on_and_stops_no_other(bank: LanceBank) -> None:
    pending = Pending(bank)
    one, two = pending.add("Ana", "one", ""), pending.add("Ana", "two", "")
    keep(bank, pending.note_unread(one))
    assert pending.attempts(one) == 1 and pending.first({1}) == two and pending.first({1}, until=1) is None
    keep(bank, pending.note(two))
    pending.settle()
    assert texts(bank) == [(1, "one")] and pending.attempts(one) == 1
    assert pending.add("Ana", "three", "").number == 3
    keep(bank, pending.note_unread(one))
    assert Pending(bank).attempts(one) == 2
    keep(bank, pending.note(one))
    pending.settle()
    assert texts(bank) == [(3, "three")], "the mark went forward only"


@pytest.mark.parametrize(
    ("key", "text"), [("said", "x"), ("said", "-1"), ("said/unread", "[1]"), ("said/unread", "{")]
)
def test_a_damaged_note_is_one_line(bank: LanceBank, key: str, text: str) -> None:
    keep(bank, Pending(bank).note(Pending(bank).add("Ana", "one", "")))
    bank.set_meta(key, text)
    with pytest.raises(BadInput, match=f"note '{key}' is damaged"):
        Pending(bank)


def test_a_message_waits_until_the_bank_notes_it(bank: LanceBank) -> None:
    pending = Pending(bank)
    assert pending.first() is None and len(pending) == 0
    said = pending.add("Ana", "one\n\ud800", "3 May 2023")
    pending.add("Ben", "two", "")
    assert texts(bank) == [(1, "one\n\ud800"), (2, "two")]
    keep(bank, pending.note(said))
    # A kill before `settle`: the note decides, not the file.
    assert texts(bank) == [(2, "two")]
    pending.settle()
    second = pending.first()
    assert second is not None and second.text == "two"
    keep(bank, pending.note(second))
    pending.settle()
    assert texts(bank) == [] and not (bank.path / "pending.jsonl").exists()
    assert pending.add("Ana", "three", "").number == 3, "numbers are never used twice"


def test_a_message_that_was_cut_off_was_never_accepted(bank: LanceBank) -> None:
    Pending(bank).add("Ana", "one", "")
    file = bank.path / "pending.jsonl"
    whole = file.read_bytes()
    for cut in range(1, len(whole)):
        file.write_bytes(whole + whole[:cut].replace(b'"number": 1', b'"number": 2'))
        assert texts(bank) == [(1, "one")]
        assert file.read_bytes() == whole
    assert Pending(bank).add("Ana", "two", "").number == 2
    assert texts(bank) == [(1, "one"), (2, "two")]


@pytest.mark.parametrize(
    "line", ["", "[]", "{}", '{"number": "1", "speaker": "", "text": "", "time": ""}', "\xff"]
)
def test_a_file_of_something_else_is_one_line_and_stays(bank: LanceBank, line: str) -> None:
    file = bank.path / "pending.jsonl"
    file.write_bytes(line.encode("latin-1") + b"\n")
    with pytest.raises(BadInput, match=r"pending\.jsonl:1: .*delete the line"):
        Pending(bank)
    assert file.read_bytes() == line.encode("latin-1") + b"\n"


def test_a_full_disk_is_told_and_leaves_nothing_half_written(
    bank: LanceBank, monkeypatch: pytest.MonkeyPatch
) -> None:
    pending = Pending(bank)
    pending.add("Ana", "one", "")
    write = os.write

    def half(descriptor: int, data: bytes) -> int:
        return write(descriptor, data[: len(data) // 2])

    def none(descriptor: int, data: bytes) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    for failing in (half, none):
        monkeypatch.setattr(os, "write", failing)
        with pytest.raises(DiskError, match="the disk is full"):
            pending.add("Ana", "two", "")
        monkeypatch.undo()
        assert texts(bank) == [(1, "one")]
    assert len(pending) == 1
