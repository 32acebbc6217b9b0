"""A report on a run with a damaged small file leaves it out, or names it in one line."""

from __future__ import annotations

from pathlib import Path

import pytest

from memfactory.core.errors import BadInput
from memfactory.evaluation.compare import read_run as read_result
from memfactory.reports import tables
from memfactory.reports.page import embed
from memfactory.reports.run_data import read_run
from memfactory.training.ahead import load_batch
from tests.unit.reports.folders import make_run, write_result

DEEP = b"[" * 5000 + b"]" * 5000
DAMAGE = [
    b"",
    b"{",
    b"3",
    b"null",
    b"\xff\xfe\x00",
    b"9" * 5000,
    DEEP,
    b'{"step": 1' + b"0" * 400 + b', "index": 1' + b"0" * 400 + b', "seconds": NaN, "results": 3, "sets": 3}',
    b'{"results": [{"recipe": [], "metrics": {"f1": {"mean": 1, "low": "x", "high": {}}}}], "recipes": {}}',
    None,
]
FILES = ["summary.json", "metrics.jsonl", "evaluation/before.json", "rollouts/step-1.jsonl", "eval/r.json"]


def _damage(path: Path, data: bytes | None) -> None:
    path.unlink(missing_ok=True)
    path.mkdir() if data is None else path.write_bytes(data)


@pytest.mark.parametrize("data", DAMAGE, ids=range(len(DAMAGE)))
@pytest.mark.parametrize("name", [*FILES, "recipe.yaml"])
def test_a_report_names_or_leaves_out_a_damaged_file(name: str, data: bytes | None, tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", steps=2)
    write_result(run, "r", "memagent", {100: 0.5})
    _damage(run / name, data)
    said = None
    try:
        runs = [read_run(run)]
        embed(runs, {}, 10)
        tables.main_figures(runs)
        tables.results_table(runs)
    except BadInput as error:
        said = str(error)
    assert said is None or (name in said and "\n" not in said)


@pytest.mark.parametrize("data", DAMAGE, ids=range(len(DAMAGE)))
def test_a_damaged_result_or_batch_is_one_line(data: bytes | None, tmp_path: Path) -> None:
    file = tmp_path / "damaged.json"
    _damage(file, data)
    for read in (lambda: read_result(f"{tmp_path}/damaged.json"), lambda: load_batch(file)):
        with pytest.raises(BadInput, match=r"damaged\.json"):
            read()
