"""Scores are means over tasks and repeats; failures score 0 and are counted; JSON holds all of it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from memfactory.core.chat import Models
from memfactory.core.errors import TaskError
from memfactory.core.types import Message, Outcome, Rollout, Task, Verdict
from memfactory.evaluation.judged import judge_lines
from memfactory.evaluation.report import results_table, write_results
from memfactory.evaluation.runner import SetResult, evaluate_set, predict
from memfactory.rewards.rubric import RewardComponent, Rubric
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


def judging(*values: float | None) -> Rubric:
    """A judge that gives these values in turn."""
    left = list(values)

    async def judge(rollout: Rollout) -> Verdict:
        value = left.pop(0)
        return Verdict("gpt-x", value, "timed out" if value is None else "ok")

    return Rubric({"judge": RewardComponent(judge)})


def judged(rubric: Rubric, replies: list[str], names: str) -> SetResult:
    run = Collector(ask, models_of(ScriptedSampler(replies)), rubric.score, concurrency=1)
    tasks = [task(name if name != "x" else "bad") for name in names]
    return evaluate_set(run, "s", tasks, repeats=1, phase="eval")


def test_a_judges_mean_is_over_what_it_judged_and_what_failed() -> None:
    replies = ["\\boxed{gold}", "\\boxed{no}", "\\boxed{gold}", "\\boxed{gold}"]
    result = judged(judging(1.0, 1.0, None, 0.0), replies, "abcdx")
    judge = result.judges["judge"]
    # Two right of three judged and one failed: 2/4. It agrees with exact match on the first only.
    assert (judge.judge, judge.judged, judge.unjudged, judge.score) == ("gpt-x", 3, 1, 0.5)
    assert judge.agreement == {"exact_match": pytest.approx(1 / 3)} and judge.problem == "timed out"
    assert result.scores["exact_match"] == pytest.approx(3 / 5)
    [line] = judge_lines({"s": result.judges})
    assert line == (
        "s: judge by gpt-x: agrees with exact_match on 33.3 % of 3 replies; 1 unjudged, left out; first: timed out"
    )
    table = results_table({"s": result, "none": evaluate(["x"], [task("a")])}, "model")
    shown = {str(column.header): list(column.cells) for column in table.columns}
    assert (shown["judge"], shown["unjudged"]) == (["50.0", "–"], ["1", "0"])
    assert json.loads(json.dumps(result.as_json()))["predictions"][2]["verdicts"]["judge"]["value"] is None


def test_nothing_judged_is_a_warning_and_no_score() -> None:
    result = judged(judging(None, None), ["x", "y"], "ab")
    assert result.judges["judge"].score is None
    [line] = judge_lines({"s": result.judges})
    assert line.startswith(
        "warning: s: judge by gpt-x: nothing could be judged (2 replies), so there is no score"
    )
    [column] = [c for c in results_table({"s": result}, "m").columns if c.header == "judge"]
    assert list(column.cells) == ["–"]
