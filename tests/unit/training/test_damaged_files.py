"""A damaged small file of a finished run is one line that names it, and nothing is lost."""

from __future__ import annotations

from pathlib import Path

import pytest
from rich.console import Console

from memfactory.commands.train import _require_same_recipe, _show_if_finished
from memfactory.core.errors import BadInput
from memfactory.recipe.load import load_recipe
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


def test_lines_that_are_no_steps_are_left_out_of_the_metrics(tmp_path: Path) -> None:
    lines = [
        b'{"step": 1, "reward": 0.5}',
        b'{"step": "two"}',
        b'{"reward": 1}',
        b'{"step": null}',
        b"[1]",
        b'{"st',
    ]
    (tmp_path / "metrics.jsonl").write_bytes(b"\n".join(lines))
    assert RunFolder(tmp_path).metrics() == [{"step": 1, "reward": 0.5}]


@pytest.mark.parametrize("stored", [b"- a\n", b"3\n", b"a: [\n", b"\xff\xfe"])
def test_a_stored_recipe_that_is_none_is_told_as_such(stored: bytes, tmp_path: Path) -> None:
    (tmp_path / "recipe.yaml").write_bytes(stored)
    with pytest.raises(BadInput, match=r"recipe\.yaml: not readable as YAML"):
        _require_same_recipe(RunFolder(tmp_path), load_recipe("memagent"))
