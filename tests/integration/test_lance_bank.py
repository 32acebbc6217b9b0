"""The bank on disk: kills, locks, versions, readers, the index."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy
import pytest

from memfactory.core.errors import BadInput, UserError
from memfactory.memory import lance, layered
from memfactory.memory.item import MemoryItem
from memfactory.memory.lance import LanceBank

WRITER = """
import sys
import numpy
from memfactory.memory.lance import LanceBank

bank = LanceBank(sys.argv[1], embedder="e", dim=4, compact_every=7)
print("ready", flush=True)
rng = numpy.random.default_rng(len(bank))
for step in range(int(bank.meta.get("step", "0")), 100_000):
    with bank.transaction():
        for part in range(3):
            bank.add(f"{step}.{part}", embedding=rng.standard_normal(4))
        if step % 2:
            bank.delete(f"m{3 * step}")
        bank.set_meta("step", str(step + 1))
"""


def write_until_killed(path: Path, seconds: float) -> None:
    arguments = [sys.executable, "-c", WRITER, str(path)]
    with subprocess.Popen(arguments, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        time.sleep(seconds)
        process.send_signal(signal.SIGKILL)


def check_whole(bank: LanceBank) -> int:
    """Every transaction is there whole or not at all; returns how many there are."""
    steps = int(bank.meta.get("step", "0"))
    wanted = [f"{step}.{part}" for step in range(steps) for part in range(3)]
    gone = {3 * step - 1 for step in range(1, steps, 2)}
    assert [item.text for item in bank.items()] == [t for i, t in enumerate(wanted) if i not in gone]
    assert len(bank) == 3 * steps - len(gone)
    return steps


def test_a_kill_at_any_moment_loses_nothing_that_was_committed(tmp_path: Path) -> None:
    path = tmp_path / "bank"
    steps = 0
    for seconds in (0.3, 0.21, 0.37, 0.05, 0.44):
        write_until_killed(path, seconds)
        with LanceBank(path, mode="read") as reader:
            found = check_whole(reader)
        assert found >= steps
        steps = found
    with LanceBank(path) as bank:  # the lock went with its holder
        assert check_whole(bank) == steps > 0
        bank.optimize()
        assert check_whole(bank) == steps
        assert bank.add("next").id == f"m{3 * steps + 1}"


def test_a_kill_while_the_bank_is_made(tmp_path: Path) -> None:
    path = tmp_path / "bank"
    LanceBank(path, embedder="e", dim=4).close()
    (path / "bank.json").unlink()
    with pytest.raises(BadInput, match="no memory bank here yet"):
        LanceBank(path, mode="read")
    with LanceBank(path, embedder="f", dim=5) as bank:
        assert (len(bank), bank.embedder, bank.dim) == (0, "f", 5)


def test_one_writer_and_many_readers(tmp_path: Path) -> None:
    path = tmp_path / "bank"
    with LanceBank(path, embedder="e", dim=4) as writer:
        writer.add("a", embedding=[1, 0, 0, 0])
        with pytest.raises(BadInput, match=rf"process {os.getpid()} is writing to this memory bank"):
            LanceBank(path)
        readers = [LanceBank(path, mode="read", embedder="e", dim=4) for _ in range(3)]
        writer.add("b", embedding=[1, 0, 0, 0])
        writer.optimize()
        assert [len(list(reader.items())) for reader in readers] == [1, 1, 1]  # one moment, until asked
        readers[0].refresh()
        assert [item.text for item in readers[0].items()] == ["a", "b"]
        with pytest.raises(UserError, match="opened for reading only"):
            readers[0].add("c")
        fork = readers[0].fork()
        fork.add("only here")
        assert (len(fork), len(readers[0]), len(writer)) == (3, 2, 2)
    with pytest.raises(UserError, match="was closed"):
        writer.add("c")
    with LanceBank(path) as second:
        assert len(second) == 2


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"version": 2}, r"layout version 2, and this memfactory reads up to 1; install a newer memfactory"),
        ({"format": "other"}, r"is not a memory bank's description"),
        ({"embedder": None}, r"names no embedder"),
    ],
)
def test_a_bank_that_cannot_be_read_is_one_line(tmp_path: Path, change: dict[str, Any], message: str) -> None:
    path = tmp_path / "bank"
    LanceBank(path, embedder="e", dim=4).close()
    info = json.loads((path / "bank.json").read_text())
    (path / "bank.json").write_text(json.dumps({**info, **change}))
    for mode in ("read", "write"):
        with pytest.raises(BadInput, match=message):
            LanceBank(path, mode=mode)  # type: ignore[arg-type]


def test_folders_that_are_no_bank(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="no such memory bank"):
        LanceBank(tmp_path / "nothing", mode="read")
    with pytest.raises(BadInput, match="no embedder was named"):
        LanceBank(tmp_path / "nothing")
    assert not (tmp_path / "nothing").exists()
    (tmp_path / "file").write_text("x")
    with pytest.raises(BadInput, match="is a file"):
        LanceBank(tmp_path / "file", embedder="e", dim=4)
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis.tex").write_text("x")
    with pytest.raises(BadInput, match="holds other things"):
        LanceBank(tmp_path / "full", embedder="e", dim=4)
    assert os.listdir(tmp_path / "full") == ["thesis.tex"]


def test_a_bank_with_decomposed_texts_from_before_is_still_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text, item_id = "Zoe\u0308 ate a cre\u0302pe", "e\u0301"
    monkeypatch.setattr(layered, "_composed", lambda item: item)
    with LanceBank(tmp_path / "bank", embedder="e", dim=4) as bank:
        bank.insert(MemoryItem(item_id, text, embedding=[1, 0, 0, 0]))
    monkeypatch.undo()
    with LanceBank(tmp_path / "bank") as bank:
        assert bank.get(item_id).text == text  # type: ignore[union-attr]
        for asked in (text, "Zo\u00eb ate a cr\u00eape"):
            assert [item.id for item in bank.with_text(asked)] == [item_id]
            assert [hit.item.id for hit in bank.search_text(asked.split()[0], 1)] == [item_id]
        assert "\u00e9" in bank
        with pytest.raises(ValueError, match="is taken"):
            bank.insert(MemoryItem("\u00e9", "again"))
        assert (
            bank.update("\u00e9", key="k").text == "Zo\u00eb ate a cr\u00eape"
            and len(list(bank.items())) == 1
        )
        bank.delete("\u00e9")
    with LanceBank(tmp_path / "bank", mode="read") as bank:
        assert len(bank) == 0 and list(bank.items()) == []


def test_another_embedder_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "bank"
    LanceBank(path, embedder="e", dim=4).close()
    with pytest.raises(BadInput, match=r"built with embedder 'e' .*, not 'f'.*bank import --embedder NAME"):
        LanceBank(path, embedder="f", dim=4)
    LanceBank(path, embedder="e", dim=4).close()  # the refusal kept no lock


def test_damaged_files_are_one_line(tmp_path: Path) -> None:
    path = tmp_path / "bank"
    with LanceBank(path, embedder="e", dim=4) as bank:
        bank.add("a")
    shutil.rmtree(path / "items.lance" / "data")
    with pytest.raises(UserError, match="files cannot be read or written") as caught:
        list(LanceBank(path, mode="read").items())
    assert "\n" not in str(caught.value)


def test_a_commit_that_fails_leaves_the_bank_as_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with LanceBank(tmp_path / "bank", embedder="e", dim=4) as bank:
        bank.add("a")

        def fail(rows: Any) -> None:
            raise OSError("LanceError(IO): No space left on device (os error 28)")

        monkeypatch.setattr(bank, "_upsert", fail)
        with pytest.raises(UserError, match="the disk is full"):
            bank.update("m1", text="b")
        monkeypatch.undo()
        assert [item.text for item in bank.items()] == ["a"]
        bank.update("m1", text="c")
    with LanceBank(tmp_path / "bank") as bank:
        assert [item.text for item in bank.items()] == ["c"]


def test_an_indexed_bank_finds_what_brute_force_finds(tmp_path: Path) -> None:
    rng = numpy.random.default_rng(0)
    vectors = rng.standard_normal((5000, 32)).astype(numpy.float32)
    with LanceBank(tmp_path / "bank", embedder="e", dim=32, index_from=1000) as bank:
        with bank.transaction():
            for vector in vectors:
                bank.insert(MemoryItem("", "text", embedding=vector))
        assert not bank.indexed
        bank.optimize()
        assert bank.indexed
        bank.prewarm()
        unit = vectors / numpy.linalg.norm(vectors, axis=1, keepdims=True)
        hits = 0
        for query in rng.standard_normal((20, 32)).astype(numpy.float32):
            truth = set(numpy.argsort(-(unit @ query))[:10] + 1)
            hits += len(truth & {hit.item.number for hit in bank.search_vector(query, 10)})
        assert hits >= 0.95 * 200
        # What came after the index is found too, and what went is not.
        bank.delete("m17")
        new = bank.add("new", embedding=vectors[20])
        bank.update("m30", embedding=vectors[20])
        for found in (bank, LanceBank(tmp_path / "bank", mode="read")):
            best = [hit.item.id for hit in found.search_vector(vectors[20], 3)]
            assert best == ["m21", "m30", new.id]
            assert "m17" not in [hit.item.id for hit in found.search_vector(vectors[16], 10)]
        assert bank.get("m30") == LanceBank(tmp_path / "bank", mode="read").get("m30")


def test_an_index_of_many_parts_is_made_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(lance, "_PARTS", 2)
    rng = numpy.random.default_rng(0)
    with LanceBank(tmp_path / "bank", embedder="e", dim=8, index_from=500) as bank:
        with bank.transaction():
            for vector in rng.standard_normal((600, 8)):
                bank.add("text", embedding=vector)
        parts = []
        for step in range(5):
            new = bank.add(f"new {step}", embedding=rng.standard_normal(8))
            bank.optimize()
            parts.append(bank._index_parts())
            assert bank.search_vector(new.embedding, 1)[0].item == new  # type: ignore[arg-type]
        assert parts == [1, 2, 1, 2, 1]
    assert capfd.readouterr().err == ""
