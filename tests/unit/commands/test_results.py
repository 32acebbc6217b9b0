"""The file of answers: what decides an answer, and one writer at a time."""

from __future__ import annotations

import io
import json
from pathlib import Path

import pytest
from rich.console import Console

from memfactory.commands.results import Answers
from memfactory.core.errors import BadInput
from memfactory.core.types import Task
from memfactory.inference.reading import result_of
from tests.unit.fakes import rollout, task


def left(answers: Answers, *tasks: Task, by: str = "model") -> tuple[list[str], str]:
    said = io.StringIO()
    names = [one.id for one in answers.left(tasks, {"by": by}, Console(file=said, width=500))]
    return names, said.getvalue()


def test_one_process_writes_at_a_time_and_stale_answers_are_replaced(tmp_path: Path) -> None:
    path = tmp_path / "new" / "answers.jsonl"
    answers = Answers(path)
    assert left(answers, task("a"), task("b")) == (["a", "b"], "")
    with answers.begin() as file:
        for name in ("a", "b"):
            answers.write(file, {**result_of(rollout("r"), memories=False), "id": name})
        with pytest.raises(BadInput, match="another process is writing answers here"):
            Answers(path).begin()
    again = Answers(path)
    changed = Task("b", "Another?", "text", ("gold",))
    names, said = left(again, task("a", answers=("other gold",)), changed)
    assert (
        names == ["b"] and "1 answer is there already" in said and "1 answer is of another question" in said
    )
    assert path.read_text().count("\n") == 2, "until the first is made again nothing goes"
    with again.begin() as file:
        assert [json.loads(line)["id"] for line in path.read_text().splitlines()] == ["a"]
        again.write(file, {**result_of(rollout("new"), memories=False), "id": "b"})
    assert left(Answers(path), task("a"), changed)[0] == []
    assert left(Answers(path), task("a"), changed, by="another model")[0] == ["a", "b"]
