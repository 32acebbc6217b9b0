"""Scores are means over tasks and repeats; failures score 0 and are counted; what a service lost is no score."""

from __future__ import annotations

from typing import Any

import pytest

from memfactory.core.chat import Models
from memfactory.core.errors import ServiceError, TaskError
from memfactory.core.types import Message, Outcome, Rollout, Task, Verdict
from memfactory.evaluation.judged import judge_lines
from memfactory.evaluation.predictions import predict
from memfactory.evaluation.runner import SetResult, Settings, evaluate_set
from memfactory.rewards.rubric import RewardComponent, Rubric
from memfactory.rollouts.collect import Collector
from memfactory.samplers.scripted import ScriptedSampler
from tests.unit.fakes import models_of, rollout, task


async def ask(task: Task, models: Models) -> Outcome:
    if task.id == "bad":
        raise TaskError("too long")
    if task.id == "gone":
        raise ServiceError("the server is gone")
    call = await models["policy"].chat([Message("user", task.question)], module="answer", max_tokens=40)
    return Outcome(reply=call.text, memories=("m",))


def evaluate(replies: list[str], tasks: list[Task], **settings: Any) -> SetResult:
    run = Collector(ask, models_of(ScriptedSampler(replies)), concurrency=1)
    return evaluate_set(run, "s", tasks, phase="eval", settings=Settings(**settings))


def test_scores_are_means_over_tasks_and_repeats() -> None:
    result = evaluate(
        ["\\boxed{gold}", "no", "\\boxed{the gold ring}", "\\boxed{}"], [task("a"), task("b")], repeats=2
    )
    assert (result.tasks, result.repeats, len(result.predictions)) == (2, 2, 4)
    assert result.scores["exact_match"] == pytest.approx(1 / 4)
    assert result.scores["sub_exact_match"] == pytest.approx(2 / 4)
    assert result.scores["f1"] == pytest.approx((1 + 2 / 3) / 4)
    assert result.boxed == pytest.approx(3 / 4)
    assert result.errors == 0
    assert result.cost.prompt_tokens == sum(p.finished.prompt_tokens for p in result.predictions) > 0
    assert result.cost.calls == 4 and result.cost.peak_memory_bytes > 2**20


def test_intervals_are_over_tasks_and_pass_at_k_over_repeats() -> None:
    right, wrong = "\\boxed{gold}", "no"
    replies = [right, right, right, wrong, wrong, wrong]
    result = evaluate(replies, [task("a"), task("b"), task("c")], repeats=2)
    score = result.metrics["exact_match"]
    assert score.mean == pytest.approx(0.5) and score.tasks == 3
    assert (score.low, score.high) == (0.0, 1.0), (
        "three tasks with 1, 1/2 and 0: all draws of one are 1 in 27"
    )
    assert score.pass_at_k == {1: pytest.approx(0.5), 2: pytest.approx(2 / 3)}


def test_a_failed_rollout_scores_zero_and_stays_in_the_mean() -> None:
    result = evaluate(["\\boxed{gold}"], [task("a"), task("bad")])
    assert result.errors == 1
    assert result.scores["exact_match"] == 0.5
    assert [p.error for p in result.predictions] == [None, "too long"]


def test_a_service_that_fails_leaves_no_score_and_starts_nothing_more() -> None:
    seen: list[str] = []
    run = Collector(ask, models_of(ScriptedSampler(["\\boxed{gold}"])), concurrency=1)
    with pytest.raises(ServiceError, match=r"server is gone \(2 of 3 rollouts of set 's' are not finished"):
        evaluate_set(
            run,
            "s",
            [task("a"), task("gone"), task("b")],
            phase="eval",
            on_prediction=lambda prediction, made: seen.append(prediction.task_id),
        )
    assert seen == ["a"]


def test_no_tasks_is_no_error() -> None:
    assert evaluate(["x"], []).scores["f1"] == 0


def test_without_a_box_the_whole_reply_is_the_answer() -> None:
    prediction = predict(rollout("gold"))
    assert (prediction.answer, prediction.boxed, prediction.scores["exact_match"]) == ("gold", False, 1.0)


def test_an_unfinished_rollout_is_a_prediction_without_score() -> None:
    prediction = predict(rollout(None, error="gone"))
    assert prediction.finished.reply == "" and set(prediction.scores.values()) == {0.0}
    assert prediction.error == "gone"


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


def test_chosen_metrics_are_the_columns_and_one_that_does_not_apply_is_counted() -> None:
    locomo = Task("a", "Who?", "", ("ann",), {"category": 4})
    result = evaluate(["\\boxed{ann}"], [locomo, task("b")], metrics=("locomo", "rouge_l"))
    assert list(result.metrics) == ["locomo", "rouge_l"]
    score = result.metrics["locomo"]
    assert (score.mean, score.tasks, score.unscored) == (1.0, 1, 1)


def test_scores_by_group() -> None:
    def of(name: str, group: str) -> Task:
        return Task(name, "Who?", "", ("gold",), {"group": group, "gold_evidence": "x" * 500})

    result = evaluate(["gold", "no", "gold"], [of("a", "hard"), of("b", "hard"), of("c", "easy")])
    means = {group: scores["exact_match"].mean for group, scores in result.groups.items()}
    assert means == {"easy": 1.0, "hard": 0.5}
    assert result.predictions[0].meta == {"group": "hard"}, "long texts are not repeated in the result"


def test_the_first_rollouts_keep_their_calls() -> None:
    result = evaluate(["gold"], [task("a"), task("b")], repeats=2, log_rollouts=3)
    kept = [p.finished.trace for p in result.predictions]
    assert [trace is not None for trace in kept] == [True, True, True, False]
    assert kept[0] is not None and kept[0][0]["prompt"] == "Who?" and kept[0][0]["text"] == "gold"


def fields(task: Task) -> dict[str, Any]:
    return {"question": task.question, "evidence": "", "answers": task.answers, "meta": task.meta}


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
    reward = result.rewards["judge"]
    assert (reward.mean, reward.tasks, reward.unscored) == (0.5, 4, 1), "the column says the same"
    assert result.as_json()["predictions"][2]["verdicts"]["judge"]["value"] is None


def test_nothing_judged_is_a_warning_and_no_score() -> None:
    result = judged(judging(None, None), ["x", "y"], "ab")
    assert result.judges["judge"].score is None
    [line] = judge_lines({"s": result.judges})
    assert line.startswith(
        "warning: s: judge by gpt-x: nothing could be judged (2 replies), so there is no score"
    )
