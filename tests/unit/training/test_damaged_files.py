"""A damaged small file of a finished run is one line that names it, and nothing is lost."""

from __future__ import annotations

from pathlib import Path

import pytest
from rich.console import Console

from memfactory.commands.train import _show_if_finished
from memfactory.core.errors import BadInput
from memfactory.training.run_folder import RunFolder

WILD = [
    b"",
    b"{",
    b"[]",
    b"3",
    b"null",
    b"\xff\xfe\x00",
    b'{"metric": 3}',
    b'{"sets": [1]}',
    b"[" * 100_000,
    b'{"metric": "f1", "before": {"x": "y"}, "after": {}, "steps": 1, "seconds": 1, "seed": 0}',
]


@pytest.mark.parametrize("number", range(len(WILD)))
@pytest.mark.parametrize("name", ["summary.json", "evaluation/before.json", "evaluation/after.json"])
def test_a_finished_run_with_a_damaged_file_is_one_line(name: str, number: int, tmp_path: Path) -> None:
    run = RunFolder(tmp_path)
    whole = {"metric": "f1", "before": {"x": 0.5}, "after": {"x": 0.5}, "steps": 1, "seconds": 1.0, "seed": 0}
    run.written.replace_json(tmp_path / "summary.json", whole)
    for label in ("before", "after"):
        run.written.replace_json(run.evaluation_path / f"{label}.json", {"sets": {}})
    with run.new_final() as folder:
        (folder / "weights").write_text("w")
    (tmp_path / name).write_bytes(WILD[number])
    with pytest.raises(BadInput, match="not readable") as caught:
        _show_if_finished(RunFolder(tmp_path), Console(quiet=True))
    assert name in str(caught.value) and "\n" not in str(caught.value)
    assert (tmp_path / name).read_bytes() == WILD[number]
