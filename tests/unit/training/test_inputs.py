"""A run goes on only with the files that it began with."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from memfactory.core.errors import BadInput
from memfactory.training.inputs import INPUTS, check_inputs, named_files
from memfactory.training.run_folder import RunFolder


@pytest.fixture
def data(tmp_path: Path) -> Path:
    folder = tmp_path / "data"
    (folder / "bank").mkdir(parents=True)
    (folder / "train.jsonl").write_text("a\nb\n")
    (folder / "bank" / "rows").write_text("rows")
    (folder / "plugin.py").write_text("x = 1\n")
    return folder


def start(data: Path, run: RunFolder) -> list[str]:
    """One start of a run on the data; returns what it says."""
    block = {"train": {"type": "mixture", "of": [{"path": str(data / "train.jsonl"), "seed": 3}]}, "bank": ""}
    block["bank"] = str(data / "bank")
    said: list[str] = []
    found = check_inputs(run, named_files("data", block), [data / "plugin.py"], said.append)
    run.written.replace_json(run.path / INPUTS, found)
    return said


CHANGES: dict[str, tuple[Callable[[Path], object], str]] = {
    "changed": (
        lambda d: (d / "train.jsonl").write_text("a\nc\n"),
        r"train\.jsonl: has changed .*data\.train",
    ),
    "longer": (lambda d: (d / "train.jsonl").write_text("a\nb\nc\n"), r"train\.jsonl: has changed"),
    "in a folder": (lambda d: (d / "bank" / "rows").write_text("Rows"), r"bank/rows: has changed"),
    "new": (lambda d: (d / "bank" / "more").write_text("x"), r"bank/more: is new"),
    "gone": (lambda d: (d / "bank" / "rows").unlink(), r"rows: is gone"),
}


@pytest.mark.parametrize("change", CHANGES)
def test_other_data_are_refused(change: str, data: Path, tmp_path: Path) -> None:
    run = RunFolder(tmp_path / "run")
    assert start(data, run) == [] and start(data, run) == []
    act, said = CHANGES[change]
    act(data)
    with pytest.raises(BadInput, match=said) as caught:
        start(data, run)
    assert "put it back as it was, or choose another --output-dir" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_the_same_data_elsewhere_and_of_another_time_go_on(data: Path, tmp_path: Path) -> None:
    run = RunFolder(tmp_path / "run")
    start(data, run)
    moved = data.rename(tmp_path / "moved")
    os.utime(moved / "train.jsonl", ns=(5, 5))
    assert start(moved, run) == []


def test_a_plugin_that_changed_is_told(data: Path, tmp_path: Path) -> None:
    run = RunFolder(tmp_path / "run")
    start(data, run)
    (data / "plugin.py").write_text("x = 2\n")
    assert start(data, run)[0].startswith("warning: plugin plugin.py has changed since this run began")


@pytest.mark.parametrize(
    "content", [b"", b"{", b"[]", b"\xff", b'{"format": 1, "files": 3}', b"[" * 100_000], ids=range(6)
)
def test_a_damaged_list_is_one_line(content: bytes, data: Path, tmp_path: Path) -> None:
    run = RunFolder(tmp_path / "run")
    start(data, run)
    (run.path / INPUTS).write_bytes(content)
    with pytest.raises(BadInput, match=r"inputs\.json: not readable") as caught:
        start(data, run)
    assert "\n" not in str(caught.value)


def test_texts_that_are_no_paths_name_nothing() -> None:
    block = {"a": "x" * 9999, "b": "two\nlines", "c": "zero\0", "d": "~nobody-here/x", "type": "/etc", "e": 3}
    assert list(named_files("data", block)) == []
