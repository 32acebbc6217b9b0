"""Credit: statistics over rollouts, then calls; rewards routed to modules; nothing leaks between groups."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest

from memfactory.core.types import Call, Rollout, Task, Verdict
from memfactory.rewards.rubric import RewardComponent, Rubric
from memfactory.training.credit import assign_credit
from memfactory.training.rollout_metrics import rollout_metrics


def call(module: str, *, trainable: bool = True, logprobs: int = 1) -> Call:
    return Call(
        module=module,
        role="policy",
        prompt_ids=(1, 2),
        completion_ids=(3,),
        logprobs=(-0.5,) * logprobs,
        text="x",
        finish_reason="stop",
        policy_version=0,
        trainable=trainable,
    )


def rollout(index: int, rewards: dict[str, float], modules: list[str], error: str | None = None) -> Rollout:
    task = Task(id="t", question="q", evidence="e")
    return Rollout(task, index, [call(m) for m in modules], None, rewards, error)


def rubric(**modules: tuple[str, ...] | None) -> Rubric:
    async def reward(rollout: Rollout) -> float:
        raise AssertionError("rollouts here are scored already")

    return Rubric({name: RewardComponent(reward, 1.0, routed) for name, routed in modules.items()})


def test_every_call_gets_its_rollouts_advantage_and_long_rollouts_do_not_weigh_more() -> None:
    groups = [
        [
            rollout(0, {"answer": 1.0}, ["update"] * 5 + ["answer"]),
            rollout(1, {"answer": 0.0}, ["update", "answer"]),
            rollout(2, {"answer": 0.0}, ["update", "answer"]),
            rollout(3, {"answer": 1.0}, ["update", "answer"]),
        ]
    ]
    credit = assign_credit(groups, rubric(answer=None), "dr_grpo")
    # Mean over the four rollouts is 1/2; over the twelve calls it would be 2/3.
    assert [row.advantage for row in credit.rows] == [0.5] * 6 + [-0.5] * 4 + [0.5] * 2
    assert [row.rollout_id for row in credit.rows] == [0] * 6 + [1] * 2 + [2] * 2 + [3] * 2


def test_groups_are_compared_within_themselves() -> None:
    groups = [
        [rollout(0, {"answer": 1.0}, ["a"]), rollout(1, {"answer": 3.0}, ["a"])],
        [rollout(0, {"answer": 10.0}, ["a"]), rollout(1, {"answer": 20.0}, ["a"])],
    ]
    credit = assign_credit(groups, rubric(answer=None), "dr_grpo")
    assert [row.advantage for row in credit.rows] == [-1.0, 1.0, -5.0, 5.0]
    assert [row.rollout_id for row in credit.rows] == [0, 1, 2, 3]


def test_a_component_pays_only_the_modules_it_is_routed_to() -> None:
    groups = [
        [
            rollout(0, {"answer": 1.0, "format": 0.0}, ["extract", "answer"]),
            rollout(1, {"answer": 0.0, "format": 1.0}, ["extract", "answer"]),
        ]
    ]
    credit = assign_credit(
        groups, rubric(answer=None, format=("extract",)), "dr_grpo", drop_zero_variance=False
    )
    by_module = {(row.rollout_id, row.module): row.advantage for row in credit.rows}
    # extract is paid answer + format, which is 1 for both rollouts; answer is paid answer alone.
    assert by_module == {(0, "extract"): 0, (1, "extract"): 0, (0, "answer"): 0.5, (1, "answer"): -0.5}


def test_the_answers_reward_reaches_an_extractors_call() -> None:
    def advantage(right: float) -> float:
        groups = [
            [
                rollout(0, {"answer": right}, ["extract", "answer"]),
                rollout(1, {"answer": 0.5}, ["extract", "answer"]),
            ]
        ]
        credit = assign_credit(groups, rubric(answer=None), "dr_grpo")
        return next(row.advantage for row in credit.rows if row.module == "extract")

    assert advantage(1.0) > 0 > advantage(0.0)


def test_flat_groups_make_no_rows_and_are_counted() -> None:
    groups = [
        [rollout(0, {"answer": 1.0}, ["a"]), rollout(1, {"answer": 1.0}, ["a"])],
        [rollout(0, {"answer": 0.0}, ["a"]), rollout(1, {"answer": 1.0}, ["a"])],
    ]
    credit = assign_credit(groups, rubric(answer=None), "grpo")
    assert credit.flat == [True, False]
    assert {row.rollout_id for row in credit.rows} == {2, 3}
    kept = assign_credit(groups, rubric(answer=None), "grpo", drop_zero_variance=False)
    assert [row.advantage for row in kept.rows][:2] == [0.0, 0.0]


def test_failed_rollouts_take_no_part() -> None:
    groups = [
        [
            rollout(0, {"answer": 1.0}, ["a"]),
            rollout(1, {"answer": 0.0}, ["a"]),
            rollout(2, {}, ["a"], error="server gone"),
        ]
    ]
    credit = assign_credit(groups, rubric(answer=None), "dr_grpo")
    assert credit.failed_rollouts == 1
    assert [row.advantage for row in credit.rows] == [0.5, -0.5]


def test_calls_that_cannot_be_trained_on_are_left_out() -> None:
    first = rollout(0, {"answer": 1.0}, ["a"])
    first.calls += [call("judge", trainable=False), call("a", logprobs=0)]
    credit = assign_credit([[first, rollout(1, {"answer": 0.0}, ["a"])]], rubric(answer=None), "dr_grpo")
    assert len(credit.rows) == 2
    assert credit.untrainable_calls == 1


@pytest.mark.parametrize("method", ["grpo", "dr_grpo", "rloo", "reinforce_pp"])
def test_nothing_to_learn_from_nothing(method: str) -> None:
    credit = assign_credit([], rubric(answer=None), method)  # type: ignore[arg-type]
    assert credit.rows == []


def judged(index: int, value: float | None, modules: list[str], **rewards: float) -> Rollout:
    run = rollout(index, rewards if value is None else {**rewards, "judge": value}, modules)
    run.verdicts["judge"] = Verdict("gpt-x", value, "timed out" if value is None else "")
    return run


def test_unjudged_rollouts_take_no_part_and_make_no_rows() -> None:
    group = [judged(0, 1.0, ["a"]), judged(1, 0.0, ["a"]), judged(2, None, ["a"])]
    credit = assign_credit([group], rubric(judge=None), "dr_grpo")
    # The mean is that of the two judged ones, 1/2; as a wrong one the third would make it 1/3.
    assert [(row.rollout_id, row.advantage) for row in credit.rows] == [(0, 0.5), (1, -0.5)]
    assert (credit.unjudged_rollouts, credit.failed_rollouts) == (1, 0)


def test_modules_that_the_judge_does_not_pay_are_trained_all_the_same() -> None:
    group = [
        judged(0, 1.0, ["extract", "answer"], layout=1.0),
        judged(1, 0.0, ["extract", "answer"], layout=0.0),
        judged(2, None, ["extract", "answer"], layout=0.5),
    ]
    credit = assign_credit([group], rubric(judge=("answer",), layout=("extract",)), "dr_grpo")
    rows = {(row.module, row.rollout_id): row.advantage for row in credit.rows}
    assert rows == {
        ("extract", 0): 0.5,
        ("extract", 1): -0.5,
        ("extract", 2): 0.0,
        ("answer", 0): 0.5,
        ("answer", 1): -0.5,
    }


def test_a_judge_without_weight_cannot_leave_a_rollout_out() -> None:
    group = [judged(0, None, ["a"], answer=1.0), judged(1, 1.0, ["a"], answer=0.0)]
    parts = {**rubric(answer=None).components, "judge": replace(rubric(j=None).components["j"], weight=0.0)}
    credit = assign_credit([group], Rubric(parts), "dr_grpo")
    assert [row.advantage for row in credit.rows] == [0.5, -0.5] and credit.unjudged_rollouts == 0


def test_figures_of_a_step_without_a_verdict_are_no_zeros() -> None:
    parts = rubric(judge=None)
    metrics = rollout_metrics(assign_credit([[judged(0, None, ["a"])]], parts, "grpo"), parts)
    assert math.isnan(metrics["reward"]) and math.isnan(metrics["reward/judge"])
    assert metrics["rollouts/unjudged"] == metrics["reward/judge/unjudged"] == 1
    some = [judged(0, 1.0, ["a"]), judged(1, None, ["a"]), judged(2, 0.0, ["a"])]
    metrics = rollout_metrics(assign_credit([some], parts, "grpo"), parts)
    assert (metrics["reward"], metrics["reward/judge"], metrics["rollouts/unjudged"]) == (0.5, 0.5, 1)
