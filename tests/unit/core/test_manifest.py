"""A manifest tells what is damaged, and what in a folder is not ours to delete."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from memfactory.core.errors import BadInput
from memfactory.core.manifest import (
    MANIFEST,
    damage,
    foreign_files,
    read_manifest,
    remove_ours,
    require_ours,
    seal,
)
from memfactory.models.source import resolve_model


@pytest.fixture
def sealed(tmp_path: Path) -> Path:
    folder = tmp_path / "final"
    (folder / "deep").mkdir(parents=True)
    (folder / "deep" / "weights").write_bytes(bytes(range(256)) * 10)
    (folder / "config.json").write_text("{}")
    (folder / "empty").write_text("")
    seal(folder, "policy", step=3)
    return folder


def flip_a_bit(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def test_a_whole_folder_is_whole_and_ours_wherever_it_is(sealed: Path, tmp_path: Path) -> None:
    manifest = read_manifest(sealed)
    assert manifest is not None and (manifest.kind, manifest.facts) == ("policy", {"step": 3})
    assert damage(sealed, manifest) is None and foreign_files(sealed) == []
    moved = sealed.rename(tmp_path / "elsewhere")
    for path in moved.rglob("*"):
        os.utime(path, ns=(1, 1))  # a copy has other times
    assert foreign_files(moved) == []
    require_ours(moved, "policy", "")
    with pytest.raises(BadInput, match="is a policy, no export"):
        require_ours(moved, "export", "")
    assert remove_ours(moved) and list(tmp_path.iterdir()) == []


DAMAGE: dict[str, tuple[Callable[[Path], object], str]] = {
    "flipped": (lambda f: flip_a_bit(f / "deep" / "weights"), "deep/weights is not what was written"),
    "cut off": (lambda f: os.truncate(f / "deep" / "weights", 100), "deep/weights has 100 bytes instead of 2560"),
    "empty": (lambda f: (f / "config.json").write_text(""), "config.json has 0 bytes instead of 2"),
    "missing": (lambda f: (f / "empty").unlink(), "empty is missing"),
    "folder": (lambda f: ((f / "empty").unlink(), (f / "empty").mkdir()), "empty is missing"),
    "link": (
        lambda f: ((f / "config.json").rename(f.parent / "c"), (f / "config.json").symlink_to(f.parent / "c")),
        "config.json is missing",
    ),
}  # fmt: skip


@pytest.mark.parametrize("what", DAMAGE)
def test_damage_is_named(what: str, sealed: Path) -> None:
    act, said = DAMAGE[what]
    act(sealed)
    manifest = read_manifest(sealed)
    assert manifest is not None and said in str(damage(sealed, manifest))


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b"[]",
        b"null",
        b"\xff\xfe",
        b'{"format": "memfactory-manifest"}',
        b"[" * 100_000,
        b"9" * 6000,
    ],
    ids=range(8),
)
def test_an_unreadable_manifest_is_one_line_and_proves_nothing(content: bytes, sealed: Path) -> None:
    (sealed / MANIFEST).write_bytes(content)
    with pytest.raises(BadInput, match=MANIFEST) as caught:
        read_manifest(sealed)
    assert "\n" not in str(caught.value)
    assert foreign_files(sealed) == [MANIFEST] and not remove_ours(sealed) and sealed.is_dir()


def test_a_manifest_with_a_flipped_digit_or_a_path_out_of_its_folder_is_not_believed(sealed: Path) -> None:
    path = sealed / MANIFEST
    whole = json.loads(path.read_text())
    digit = json.loads(path.read_text())
    digit["files"]["empty"]["size"] = 7
    out = json.loads(path.read_text())
    out["files"]["../x"] = whole["files"]["empty"]
    for value in (digit, out):
        path.write_text(json.dumps(value))
        with pytest.raises(BadInput, match="not readable as a list of files"):
            read_manifest(sealed)


FOREIGN: dict[str, tuple[Callable[[Path], object], str]] = {
    "changed": (lambda f: flip_a_bit(f / "deep" / "weights"), "deep/weights"),
    "notes": (lambda f: (f / "deep" / "notes.txt").write_text("mine"), "deep/notes.txt"),
    "hidden": (lambda f: (f / ".notes").write_text("mine"), ".notes"),
    "empty folder": (lambda f: (f / "mine").mkdir(), "mine/"),
    "link": (lambda f: (f / "data").symlink_to("/tmp"), "data"),
    "link for a file": (
        lambda f: ((f / "empty").unlink(), (f / "empty").symlink_to(f / "config.json")),
        "empty",
    ),
}


@pytest.mark.parametrize("what", FOREIGN)
def test_a_folder_with_anything_foreign_stays(what: str, sealed: Path) -> None:
    act, name = FOREIGN[what]
    act(sealed)
    assert foreign_files(sealed) == [name] and not remove_ours(sealed)
    with pytest.raises(BadInput, match="nothing was deleted, choose another") as caught:
        require_ours(sealed, "policy", "choose another --output")
    assert name in str(caught.value) and sealed.is_dir()


def test_without_a_manifest_everything_is_foreign(tmp_path: Path) -> None:
    assert foreign_files(tmp_path) == []
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "link").symlink_to(tmp_path)
    assert foreign_files(tmp_path) == ["config.json", "link"]
    assert foreign_files(tmp_path / "link") == ["link"] and not remove_ours(tmp_path / "link")


def test_weights_that_are_not_what_was_written_are_not_loaded(tmp_path: Path) -> None:
    (tmp_path / "model.safetensors").write_bytes(bytes(1000))
    (tmp_path / "config.json").write_text("{}")
    seal(tmp_path, "policy")
    (tmp_path / "config.json").write_text('{"mine": 1}')
    with pytest.raises(BadInput, match="no model_type"):  # what is no weights may be changed
        resolve_model(str(tmp_path))
    flip_a_bit(tmp_path / "model.safetensors")
    with pytest.raises(BadInput, match=r"model\.safetensors is not what was written"):
        resolve_model(str(tmp_path))
