"""A bank's folder: nothing that holds memories is ever made anew, and what is lost or damaged can be put in order."""

from __future__ import annotations

import json
import os
import shutil
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from memfactory.cli.main import run
from memfactory.core.errors import BadInput, UserError
from memfactory.memory.embedders import HashingEmbedder
from memfactory.memory.lance import LanceBank, making_bank
from memfactory.memory.lance_rows import OWN_NOTE
from memfactory.memory.repair import repair_bank
from memfactory.memory.transfer import import_bank

EMBEDDER = HashingEmbedder(16)
TEXTS = ["Ana's cat", "Ben", "日本"]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A bank of three memories, each a commit of its own."""
    with LanceBank(tmp_path / "bank", embedder=EMBEDDER.name, dim=16) as bank:
        for text, vector in zip(TEXTS, EMBEDDER.embed_now(TEXTS), strict=True):
            bank.add(text, embedding=vector)
    return tmp_path / "bank"


def open_for_writing(path: Path) -> None:
    LanceBank(path, embedder=EMBEDDER.name, dim=16).close()


def held(path: Path) -> list[str]:
    with LanceBank(path, mode="read") as bank:
        return [item.text for item in bank.items()]


def files(path: Path) -> dict[str, bytes]:
    """Content of all files but the lock, which names the last writer."""
    found = {file.relative_to(path).as_posix(): file for file in path.rglob("*") if file.is_file()}
    return {name: file.read_bytes() for name, file in found.items() if name != "writer.lock"}


LOST: dict[str, Callable[[Path], object]] = {
    "missing": lambda file: file.unlink(),
    "empty": lambda file: file.write_text(""),
    "cut off": lambda file: file.write_text(file.read_text()[:40]),
    "no text": lambda file: file.write_bytes(b"\xff\xfe\x00"),
    "a list": lambda file: file.write_text("[1]"),
    "deep": lambda file: file.write_text("[" * 100_000),
    "other format": lambda file: change(file, format="other"),
    "no version": lambda file: change(file, version=None),
    "version as text": lambda file: change(file, version="1"),
    "older than any": lambda file: change(file, version=0),
    "version true": lambda file: change(file, version=True),
    "no embedder": lambda file: change(file, embedder=None),
    "dimension as text": lambda file: change(file, dim="16"),
    "dimension 0": lambda file: change(file, dim=0),
    "a letter of the embedder": lambda file: file.write_text(file.read_text().replace("hashing", "hashinG")),
    "another embedder, no checksum": lambda file: change(file, embedder="other", check=None),
    "another dimension, no checksum": lambda file: change(file, dim=17, check=None),
}


def change(file: Path, **values: object) -> None:
    info = {**json.loads(file.read_text()), **values}
    if info["check"] is None:
        del info["check"]
    file.write_text(json.dumps(info))


@pytest.mark.parametrize("how", LOST)
def test_a_bank_without_a_sound_description_is_never_made_anew(path: Path, how: str) -> None:
    LOST[how](path / "bank.json")
    before = files(path)
    for opened in (open_for_writing, held, lambda path: make_over(path)):
        with pytest.raises(BadInput, match="memfactory bank repair") as caught:
            opened(path)
        assert "bank.json" in str(caught.value) and "\n" not in str(caught.value)
    assert files(path) == before
    assert run(["bank", "repair", str(path)]) == 0
    assert held(path) == TEXTS
    open_for_writing(path)
    assert repair_bank(path) == []


def make_over(path: Path) -> None:
    if (path / "bank.json").exists():
        open_for_writing(path)
    else:
        with making_bank(path, EMBEDDER.name, 16):
            pass


def test_a_bank_from_before_needs_its_embedder_named(path: Path, tmp_path: Path) -> None:
    bank = LanceBank(path)
    bank._table.delete(f"row = 'meta/{OWN_NOTE}'")
    bank.close()
    shutil.copytree(path, tmp_path / "old")
    (path / "bank.json").unlink()
    with pytest.raises(BadInput, match=r"dimension 16\) are of; name it with --embedder"):
        repair_bank(path)
    with pytest.raises(BadInput, match="has dimension 8, and the bank's vectors 16"):
        repair_bank(path, "hashing_for_tests-8")
    done = repair_bank(path, EMBEDDER.name)
    assert done == [
        "bank.json was made anew: embedder hashing_for_tests-16, dimension 16",
        "3 memories can be read",
    ]
    with LanceBank(tmp_path / "old") as old:  # once written to, the table knows
        old.add("new")
        assert dict(old.meta) == {}
    (tmp_path / "old" / "bank.json").unlink()
    assert len(repair_bank(tmp_path / "old")) == 2
    assert held(tmp_path / "old") == [*TEXTS, "new"]


def test_vectors_of_another_embedder_are_noticed(path: Path) -> None:
    with LanceBank(path) as bank:
        bank.update("m2", text="Ben", embedding=EMBEDDER.embed_now(["quite other words"])[0])
        bank._table.delete(f"row = 'meta/{OWN_NOTE}'")
    (path / "bank.json").unlink()
    with pytest.raises(BadInput, match="vector of memory 'm2' is not one of embedder"):
        repair_bank(path, EMBEDDER.name)
    assert not (path / "bank.json").exists()


def newest(path: Path, pattern: str) -> Path:
    return max(path.glob(pattern), key=lambda file: file.stat().st_mtime_ns)


@pytest.mark.parametrize("damage", ["manifest gone bad", "manifest empty", "rows missing", "rows cut off"])
def test_a_newest_state_that_cannot_be_read_is_one_line_and_repair_goes_back(path: Path, damage: str) -> None:
    manifest = min((path / "items.lance/_versions").glob("*.manifest"))
    data = newest(path, "items.lance/data/*")
    if damage == "manifest gone bad":
        manifest.write_bytes(manifest.read_bytes()[:-9][::-1])
    elif damage == "manifest empty":
        manifest.write_bytes(b"")
    elif damage == "rows missing":
        data.unlink()
    else:
        data.write_bytes(data.read_bytes()[:40])
    with pytest.raises(UserError, match=f"memfactory bank repair {path}") as caught:
        held(path)
    assert "\n" not in str(caught.value)
    done = repair_bank(path)
    assert done[0] == f"what was there is kept in {path}/damaged/items.lance.1"
    assert "took it out" in done[1] if "manifest" in damage else "went back from version 4 to 3" in done[1], (
        done
    )
    assert done[-1] == "2 memories can be read" and held(path) == TEXTS[:2]
    with LanceBank(path) as bank:
        bank.add("on from here")
    assert held(path)[-1] == "on from here"


def flip(file: Path, place: int) -> None:
    content = bytearray(file.read_bytes())
    content[place] ^= 1
    file.write_bytes(content)


def test_a_flipped_bit_anywhere_in_the_table_is_noticed_when_the_bank_is_opened(path: Path) -> None:
    with LanceBank(path, compact_every=1) as bank:
        bank.update("m2", key="k")
        bank.delete("m1")
        bank.update("m3", key="k")
    table = path / "items.lance"
    names = [
        file for kind in ("data", "_versions", "_deletions") for file in sorted((table / kind).iterdir())
    ]
    for file in (file for file in names if file.suffix != ".json"):
        for place in (0, file.stat().st_size // 2, -1):
            flip(file, place)
            for opened in (open_for_writing, held):
                with pytest.raises(BadInput, match=f"{file}: is damaged .* memfactory bank repair {path}"):
                    opened(path)
            flip(file, place)
    assert held(path) == TEXTS[1:]


@pytest.mark.parametrize("kind", ["data", "_versions", "_deletions"])
def test_repair_goes_back_to_the_newest_state_with_sound_checksums(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "bank"
    with LanceBank(path, embedder=EMBEDDER.name, dim=16) as bank:
        with bank.transaction():
            for text in TEXTS:
                bank.add(text)
        bank.delete("m1")
    flip(newest(path, f"items.lance/{kind}/*[!n]"), -20)
    done = repair_bank(path)
    assert done[0].startswith("what was there is kept in") and done[-1] == "3 memories can be read"
    assert held(path) == TEXTS, "before the last change"
    with LanceBank(path) as bank:
        bank.add("on from here")
    assert held(path)[-1] == "on from here" and repair_bank(path) == []


def test_what_is_damaged_everywhere_can_be_kept_as_it_is(path: Path) -> None:
    for file in (path / "items.lance" / "data").iterdir():
        file.write_bytes(file.read_bytes().replace(b"Ana's", b"Anna's"[:5]))
    with pytest.raises(BadInput, match=r"no version that holds memories is whole; .*--keep-damaged"):
        repair_bank(path)
    assert not (path / "damaged").exists()
    assert run(["bank", "repair", str(path), "--keep-damaged"]) == 0
    assert held(path) == ["Anna' cat", *TEXTS[1:]]


def test_a_list_of_checksums_that_was_cut_off_or_lost_is_no_obstacle(path: Path) -> None:
    sums = path / "checksums.jsonl"
    whole = sums.read_bytes()
    sums.write_bytes(whole[:-5])
    assert held(path) == TEXTS
    open_for_writing(path)
    assert sorted(sums.read_bytes().splitlines()) == sorted(whole.splitlines())
    sums.unlink()  # a bank from before
    open_for_writing(path)
    assert sorted(sums.read_bytes().splitlines()) == sorted(whole.splitlines())
    sums.write_bytes(b"[1]\n" + whole)
    with pytest.raises(BadInput, match=r"checksums.jsonl:1: is no checksum; memfactory bank repair"):
        held(path)
    assert repair_bank(path)[0] == "the list of checksums was made anew" and held(path) == TEXTS


def test_a_table_of_which_nothing_can_be_read_stays_as_it_is(path: Path) -> None:
    for manifest in (path / "items.lance/_versions").glob("*.manifest"):
        manifest.write_bytes(b"x")
    (path / "bank.json").unlink()
    with pytest.raises(
        BadInput, match=r"bank\.json is missing, and items.lance holds memories that cannot be counted"
    ):
        open_for_writing(path)
    with pytest.raises(BadInput, match="there is no older version either"):
        repair_bank(path)
    assert len(list((path / "items.lance/data").iterdir())) == 4


def test_a_missing_table_is_one_line(path: Path) -> None:
    shutil.rmtree(path / "items.lance")
    for opened in (open_for_writing, held, repair_bank):
        with pytest.raises(BadInput, match=r"memories \(items.lance\) are missing"):
            opened(path)
    (path / "bank.json").unlink()
    (path / "pending.jsonl").write_text("{}\n")
    with pytest.raises(BadInput, match=r"pending\.jsonl is there; copy them back"):
        open_for_writing(path)


def test_what_is_no_bank_is_not_repaired(tmp_path: Path) -> None:
    (tmp_path / "notes").write_text("x")
    (tmp_path / "work").mkdir()
    (tmp_path / "work" / "thesis.tex").touch()
    LanceBank(tmp_path / "Ana", embedder="e", dim=4).close()
    for name, message in {
        "notes": "is a file",
        "work": r"other things \(thesis.tex\)",
        "Anna": "no such memory bank; did you mean 'Ana'",
        "x": "no such memory bank; the banks in .*: Ana",
    }.items():
        with pytest.raises(BadInput, match=message):
            repair_bank(tmp_path / name)
        with pytest.raises(BadInput, match=message):
            held(tmp_path / name)
    with LanceBank(tmp_path / "Ana"), pytest.raises(BadInput, match="is writing to this memory bank"):
        repair_bank(tmp_path / "Ana")
    assert sorted(os.listdir(tmp_path)) == ["Ana", "notes", "work"]


def test_a_bank_that_was_being_made_is_made(path: Path, tmp_path: Path) -> None:
    """Killed before the table, between table and description, and in the middle of an import."""
    with LanceBank(tmp_path / "b", embedder="e", dim=4):
        pass
    (tmp_path / "b" / "bank.json").unlink()
    with LanceBank(tmp_path / "b", embedder="f", dim=5) as bank:
        assert (len(bank), bank.embedder, bank.dim) == (0, "f", 5)
    (tmp_path / "c" / "importing.partial").mkdir(parents=True)
    shutil.copytree(path / "items.lance", tmp_path / "c" / "importing.partial" / "items.lance")
    with making_bank(tmp_path / "c", "e", 4) as bank:
        bank.add("whole")
    assert held(tmp_path / "c") == ["whole"]
    assert sorted(os.listdir(tmp_path / "c")) == [
        "bank.json",
        "checksums.jsonl",
        "items.lance",
        "writer.lock",
    ]


def test_importers_at_once_into_one_new_bank(tmp_path: Path) -> None:
    ended: dict[int, str] = {}

    def one(number: int) -> None:
        file = tmp_path / f"{number}.jsonl"
        file.write_text("".join(json.dumps({"text": f"fact {number} {part}"}) + "\n" for part in range(2)))
        try:
            ended[number] = str(import_bank(str(file), str(tmp_path / "new"), embedder=EMBEDDER))
        except BadInput as error:
            ended[number] = str(error)

    threads = [threading.Thread(target=one, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(ended) == 6, "none ended with a traceback"
    done = [number for number, end in ended.items() if end == "2"]
    assert done and sorted(held(tmp_path / "new")) == sorted(
        f"fact {n} {part}" for n in done for part in range(2)
    )
    assert all("is writing to" in e or "has just made" in e for n, e in ended.items() if n not in done)


def test_a_chat_during_an_import_is_told_and_one_after_it_adds(tmp_path: Path) -> None:
    with making_bank(tmp_path / "new", EMBEDDER.name, 16) as bank:
        bank.add("imported")
        with pytest.raises(BadInput, match=f"process {os.getpid()} is writing"):
            open_for_writing(tmp_path / "new")
        with pytest.raises(BadInput, match="no memory bank here yet"):
            held(tmp_path / "new")
    with LanceBank(tmp_path / "new") as bank:
        bank.add("told")
    assert held(tmp_path / "new") == ["imported", "told"]


def test_an_import_that_fails_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError), making_bank(tmp_path / "new", "e", 4) as bank:
        bank.add("half")
        raise ZeroDivisionError
    assert os.listdir(tmp_path) == []
