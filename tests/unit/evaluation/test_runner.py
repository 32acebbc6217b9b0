"""Scores are means over tasks and repeats; failures score 0 and are counted; JSON holds all of it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from memfactory.core.chat import Models
from memfactory.core.errors import TaskError
from memfactory.core.types import Message, Outcome, Task
from memfactory.evaluation.report import results_table, write_results
from memfactory.evaluation.runner import evaluate_set, predict
from memfactory.rollouts.collect import Collector
from memfactory.samplers.scripted import ScriptedSampler
from tests.unit.fakes import models_of, rollout, task


async def ask(task: Task, models: Models) -> Outcome:
    if task.id == "bad":
        raise TaskError("too long")
    call = await models["policy"].chat([Message("user", task.question)], module="answer", max_tokens=40)
    return Outcome(reply=call.text, memories=("m",))


def evaluate(replies: list[str], tasks: list[Task], repeats: int = 1):  # type: ignore[no-untyped-def]
    run = Collector(ask, models_of(ScriptedSampler(replies)), concurrency=1)
    return evaluate_set(run, "s", tasks, repeats=repeats, phase="eval")


def test_scores_are_means_over_tasks_and_repeats() -> None:
    result = evaluate(
        ["\\boxed{gold}", "no", "\\boxed{the gold ring}", "\\boxed{}"], [task("a"), task("b")], 2
    )
    assert (result.tasks, result.repeats, len(result.predictions)) == (2, 2, 4)
    assert result.scores["exact_match"] == pytest.approx(1 / 4)
    assert result.scores["sub_exact_match"] == pytest.approx(2 / 4)
    assert result.scores["f1"] == pytest.approx((1 + 2 / 3) / 4)
    assert result.boxed == pytest.approx(3 / 4)
    assert result.errors == 0
    assert result.prompt_tokens == sum(p.prompt_tokens for p in result.predictions) > 0


def test_a_failed_rollout_scores_zero_and_stays_in_the_mean() -> None:
    result = evaluate(["\\boxed{gold}"], [task("a"), task("bad")])
    assert result.errors == 1
    assert result.scores["exact_match"] == 0.5
    assert [p.error for p in result.predictions] == [None, "too long"]


def test_no_tasks_is_no_error() -> None:
    assert evaluate(["x"], []).scores["f1"] == 0


def test_without_a_box_the_whole_reply_is_the_answer() -> None:
    prediction = predict(rollout("gold"))
    assert (prediction.answer, prediction.boxed, prediction.scores["exact_match"]) == ("gold", False, 1.0)


def test_an_unfinished_rollout_is_a_prediction_without_score() -> None:
    prediction = predict(rollout(None, error="gone"))
    assert prediction.reply == "" and set(prediction.scores.values()) == {0.0} and prediction.error == "gone"


def test_a_task_without_gold_answers_is_not_counted_as_right() -> None:
    result = evaluate([""], [task("a", answers=())])
    assert set(result.scores.values()) == {0.0}


def test_a_metric_that_tasks_name_is_a_score_if_all_of_them_do() -> None:
    named = Task("a", "Who?", "", ("ann", "bob"), {"metric": "string_match_all"})
    other = Task("b", "Who?", "", ("ann", "bob"), {"metric": "no such"})
    result = evaluate(["\\boxed{Ann and Eve}", "none"], [named, Task("c", **fields(named))])
    assert result.scores["string_match_all"] == pytest.approx(0.25)
    mixed = evaluate(["Ann"], [named, other])
    assert set(mixed.scores) == {"exact_match", "sub_exact_match", "f1"}
    assert mixed.predictions[0].scores["string_match_all"] == 0.5
    table = results_table({"ruler": result, "mixed": mixed}, "model")
    [column] = [column for column in table.columns if column.header == "all"]
    assert list(column.cells) == ["25.0", "–"]


def fields(task: Task) -> dict[str, Any]:
    return {"question": task.question, "evidence": "", "answers": task.answers, "meta": task.meta}


def test_results_are_written_whole(tmp_path: Path) -> None:
    results = {"s": evaluate(["\\boxed{g\ud800ld}"], [task("a")])}
    write_results(tmp_path / "r.json", results, {"seed": 1}, {"memfactory": "0"})
    value = json.loads((tmp_path / "r.json").read_text())
    assert value["sets"]["s"]["predictions"][0]["task_id"] == "a"
    assert value["recipe"] == {"seed": 1} and value["schema_version"] == 1
    assert results_table(results, "model").row_count == 1
