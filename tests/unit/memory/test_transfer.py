"""Export and import, and the commands around them."""

from __future__ import annotations

import gzip
import json
import os
from pathlib import Path
from typing import Any

import numpy
import pytest

from memfactory.cli.main import run
from memfactory.core.errors import BadInput
from memfactory.memory.embedders import HashingEmbedder
from memfactory.memory.lance import LanceBank
from memfactory.memory.transfer import export_bank, import_bank

EMBEDDER = HashingEmbedder(16)


@pytest.fixture
def path(tmp_path: Path) -> str:
    """A bank with an update and a gap."""
    folder = str(tmp_path / "bank")
    texts = ["Ana's cat", "Ben [red]", "gone", "日本\u2028x"]
    with LanceBank(folder, embedder=EMBEDDER.name, dim=16) as bank:
        for text, vector in zip(texts, EMBEDDER.embed_now(texts), strict=True):
            bank.add(text, embedding=vector, tags=["t"], type="fact", session="s1", sources=["D1:1"])
        bank.add("no embedding")
        bank.delete("m3")
        bank.update("m1", key="cat", session="s2", time="noon")
        bank.set_meta("ingested", "s2")
    return folder


def test_an_export_replaces_no_file_unless_told(
    path: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    notes = tmp_path / "notes.txt"
    notes.write_text("mine")
    command = ["bank", "export", path, "--output", str(notes)]
    assert run(command) == 1 and "or replace it with --force" in capsys.readouterr().err
    assert notes.read_text() == "mine"
    assert run([*command, "--force"]) == 0 and notes.read_text().count("\n") == 5


def lines(*records: Any) -> str:
    return "".join(json.dumps(record) + "\n" for record in records)


def test_out_and_in_again_is_the_same(path: str, tmp_path: Path) -> None:
    file = str(tmp_path / "out" / "memories.jsonl")
    with LanceBank(path, mode="read") as bank:
        assert export_bank(bank, file) == 4
        assert import_bank(file, str(tmp_path / "new")) == 4
        with LanceBank(tmp_path / "new") as new:
            assert [i.id for i in new.items()] == ["m1", "m2", "m4", "m5"]
            for old_item, new_item in zip(bank.items(), new.items(), strict=True):
                assert [getattr(old_item, f) for f in ("id", "text", "key", "updated_time", "sources")] == [
                    getattr(new_item, f) for f in ("id", "text", "key", "updated_time", "sources")
                ]
                assert (old_item.embedding is None) == (new_item.embedding is None)
                if old_item.embedding is not None:
                    assert numpy.array_equal(old_item.embedding, new_item.embedding)  # type: ignore[arg-type]
            assert dict(new.meta) == {"ingested": "s2"} and new.embedder == EMBEDDER.name
            assert new.add("next").id == "m6"
    assert sorted(os.listdir(tmp_path / "out")) == ["memories.jsonl"]
    assert sorted(os.listdir(tmp_path / "new")) == [
        "bank.json",
        "checksums.jsonl",
        "items.lance",
        "writer.lock",
    ]


def test_a_readable_file_is_embedded_anew(path: str, tmp_path: Path) -> None:
    file = str(tmp_path / "memories.jsonl")
    with LanceBank(path, mode="read") as bank:
        export_bank(bank, file, embeddings=False)
    assert '"embedding":' not in Path(file).read_text().split("\n", 1)[1]
    with pytest.raises(BadInput, match="holds no embeddings; name an embedder"):
        import_bank(file, str(tmp_path / "new"))
    other = HashingEmbedder(32)
    import_bank(file, str(tmp_path / "new"), embedder=other)
    with LanceBank(tmp_path / "new", mode="read") as bank:
        hit = bank.search_vector(other.embed_now(["Ana's cat"])[0], 1)[0]
        assert (hit.item.id, bank.embedder) == ("m1", other.name) and hit.score == pytest.approx(1.0)


def test_a_damaged_export_is_noticed(path: str, tmp_path: Path) -> None:
    file = tmp_path / "x.jsonl"
    with LanceBank(path, mode="read") as bank:
        export_bank(bank, str(file))
    whole = file.read_text()
    head, *rest = [f"{line}\n" for line in whole.split("\n")[:-1]]
    for damaged in (whole.replace("cat", "bat"), head + "".join(rest[:-1]), head + "".join(reversed(rest))):
        file.write_text(damaged)
        with pytest.raises(BadInput, match=r"x\.jsonl:1: .* if it was changed on purpose, take 'check' out"):
            import_bank(str(file), str(tmp_path / "new"))
    assert not (tmp_path / "new").exists()
    values = {name: value for name, value in json.loads(head).items() if name != "check"}
    file.write_text(lines(values) + "".join(rest).replace("Ana's cat", "Ana's bat"))
    assert import_bank(str(file), str(tmp_path / "new")) == 4
    file.write_text(
        "".join(json.dumps(json.loads(line), indent=None, sort_keys=True) + "\n" for line in [head, *rest])
    )
    assert import_bank(str(file), str(tmp_path / "other")) == 4, "another spelling is no damage"


def test_ids_of_any_kind_come_in_and_out(tmp_path: Path) -> None:
    ids = ["m20230508123045", "m007", "it's", "a/b", "Zoe\u0308", "", "m99999999999999999999", 'x"); --']
    file = tmp_path / "x.jsonl"
    file.write_text(lines(*({"id": item_id, "text": f"t {item_id}"} for item_id in ids)))
    assert import_bank(str(file), str(tmp_path / "a"), embedder=EMBEDDER) == len(ids)
    with LanceBank(tmp_path / "a", mode="read") as bank:
        export_bank(bank, str(tmp_path / "y.jsonl"))
        wanted = [item.id for item in bank.items()]
    assert wanted == [*ids[:4], "Zo\u00eb", "m20230508123050", *ids[6:]]
    assert import_bank(str(tmp_path / "y.jsonl"), str(tmp_path / "b")) == len(ids)
    with LanceBank(tmp_path / "b", mode="read") as bank:
        assert [item.id for item in bank.items()] == wanted and all(bank.get(item_id) for item_id in wanted)
    file.write_text(lines({"id": "Zo\u00eb", "text": "a"}, {"id": "Zoe\u0308", "text": "b"}))
    with pytest.raises(BadInput, match="was used before"):
        import_bank(str(file), str(tmp_path / "c"), embedder=EMBEDDER)


def test_by_hand_and_packed(tmp_path: Path) -> None:
    file = tmp_path / "x.jsonl.gz"
    file.write_bytes(gzip.compress(lines({"text": "a"}, {"text": "b", "tags": ["t"]}).encode()))
    assert import_bank(str(file), str(tmp_path / "new"), embedder=EMBEDDER) == 2


@pytest.mark.parametrize(
    ("record", "message"),
    [
        ({"id": "x"}, "no field 'text'"),
        ({"text": " "}, "field 'text' is empty"),
        ({"text": "a", "tag": []}, "unknown field 'tag'; did you mean 'tags'"),
        ({"text": "a", "tags": "t"}, "field 'tags' must be a list of strings"),
        ({"text": "a", "key": 3}, "field 'key' must be a string, not a number"),
        ({"text": "a", "id": "m1"}, "id 'm1' was used before, at .*:2"),
        ({"text": "a", "embedding": [1.0]}, "field 'embedding' cannot be used: .* dimension 2"),
        ({"text": "a", "embedding": "?"}, "field 'embedding' cannot be used"),
        ({"text": "a", "embedding": [0, 0]}, "not all zeros"),
        ([], "expected an object"),
        ({"text": "a", "id": "a\nb"}, "field 'id' must be one line of at most 200 characters"),
        ({"text": "a", "id": " m2"}, "field 'id' must be one line"),
        ({"text": "a", "id": "m" + "9" * 5000}, "field 'id' must be one line of at most 200"),
    ],
)
def test_a_bad_line_is_named_and_nothing_is_made(tmp_path: Path, record: Any, message: str) -> None:
    file = tmp_path / "x.jsonl"
    header = {"format": "memfactory-memories", "version": 1, "embedder": "e", "dim": 2}
    file.write_text(lines(header, {"id": "m1", "text": "a", "embedding": [1, 0]}, record))
    with pytest.raises(BadInput, match=r"x\.jsonl:3: .*" + message):
        import_bank(str(file), str(tmp_path / "new"))
    assert os.listdir(tmp_path) == ["x.jsonl"]


@pytest.mark.parametrize(
    ("header", "message"),
    [
        ({"format": "other"}, "format 'other' is not"),
        ({"format": "memfactory-memories", "version": 2}, "version 2 of this format"),
        ({"format": "memfactory-memories", "version": 1, "embedder": "e", "dim": "x"}, "name and a number"),
        ({"format": "memfactory-memories", "version": 1, "embedder": "e", "dim": 0}, "from 1 to 65536"),
        ({"format": "memfactory-memories", "version": 1, "embedder": "e", "dim": True}, "from 1 to 65536"),
        (
            {"format": "memfactory-memories", "version": 1, "meta": {"memfactory:next_number": "x"}},
            "a note that a bank makes itself",
        ),
    ],
)
def test_a_bad_header(tmp_path: Path, header: Any, message: str) -> None:
    (tmp_path / "x.jsonl").write_text(lines(header, {"text": "a"}))
    with pytest.raises(BadInput, match=r"x\.jsonl:1: .*" + message):
        import_bank(str(tmp_path / "x.jsonl"), str(tmp_path / "new"))


def test_into_a_bank_that_is_there(path: str, tmp_path: Path) -> None:
    file = tmp_path / "x.jsonl"
    file.write_text(lines({"text": "new"}, {"id": "m2", "text": "clash"}))
    with pytest.raises(BadInput, match=r"x\.jsonl:2: the id 'm2' is taken; --renumber gives new ids"):
        import_bank(str(file), path, embedder=EMBEDDER)
    with LanceBank(path, mode="read") as bank:
        assert len(bank) == 4
    with pytest.raises(BadInput, match="built with embedder"):
        import_bank(str(file), path, embedder=HashingEmbedder(8))
    assert import_bank(str(file), path, embedder=EMBEDDER, renumber=True) == 2
    with LanceBank(path) as bank:
        assert [item.id for item in bank.items()] == ["m1", "m2", "m4", "m5", "m6", "m7"]
        with pytest.raises(BadInput, match="is writing to this memory bank"):
            import_bank(str(file), path, embedder=EMBEDDER, renumber=True)
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "thesis.tex").touch()
    with pytest.raises(BadInput, match="it is no memory bank"):
        import_bank(str(file), str(tmp_path / "folder"), embedder=EMBEDDER)


def test_commands(path: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["bank", "inspect", path]) == 0
    shown = capsys.readouterr().out
    assert "Ana's cat" in shown and "Ben [red]" in shown and "4 of 4 memories shown" in shown
    assert run(["bank", "inspect", path, "--query", "cats", "--limit", "3"]) == 0
    assert "1 of 4" in capsys.readouterr().out
    assert run(["bank", "inspect", path, "m1"]) == 0
    assert "s2 noon" in capsys.readouterr().out
    assert run(["bank", "stats", path]) == 0
    shown = capsys.readouterr().out
    assert EMBEDDER.name in shown and "fact" in shown and "ingested=s2" in shown
    file = str(tmp_path / "x.jsonl")
    assert run(["bank", "export", path, "--output", file]) == 0
    assert run(["bank", "import", str(tmp_path / "new"), "--input", file]) == 0
    assert capsys.readouterr().out.splitlines()[-1].endswith("new: 4 memories added")


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["inspect", "nowhere"], "nowhere: no such memory bank"),
        (["inspect", "{bank}", "m8"], "no memory 'm8'; did you mean 'm"),
        (["import", "{bank}", "--input", "nofile"], "no such data file"),
        (["export", "{bank}", "--output", "{bank}/bank.json", "--force"], "is in the bank's own folder"),
        (["export", "{bank}", "--output", "/dev/null/x"], "cannot be written here"),
    ],
)
def test_mistakes_are_one_line(
    path: str, capsys: pytest.CaptureFixture[str], arguments: list[str], text: str
) -> None:
    assert run(["bank", *(argument.format(bank=path) for argument in arguments)]) in (1, 2)
    out, err = capsys.readouterr()
    assert out == "" and err.startswith("error: ") and err.count("\n") == 1 and text in err
