"""Rewards of final answers: what is scored, and what scores nothing."""

from __future__ import annotations

import asyncio
import dataclasses

import pytest

from memfactory.core.registry import get
from memfactory.core.types import Outcome, Rollout, Task
from memfactory.rewards import answer, format
from memfactory.rewards.base import Reward


def rollout(reply: str | None, answers: tuple[str, ...] = ("Paris",), error: str | None = None) -> Rollout:
    outcome = None if reply is None else Outcome(reply)
    return Rollout(Task("t", "where?", "text", answers), 0, outcome=outcome, error=error)


def value(reward: Reward, run: Rollout) -> float | None:
    async def score() -> float | None:
        return await reward(run)

    return asyncio.run(score())


@pytest.mark.parametrize(
    ("reward", "reply", "expected"),
    [
        (answer.ExactMatch(), "so \\boxed{paris}.", 1.0),
        (answer.ExactMatch(), "Paris", 0.0),
        (answer.ExactMatch(boxed=False), "the Paris!", 1.0),
        (answer.ExactMatch(), "\\boxed{Paris", 0.0),
        (answer.ExactMatch(), "\\boxed{}", 0.0),
        (answer.ExactMatch(), "\\boxed{Paris}" + "x" * 400, 0.0),
        (answer.ExactMatch(tail=1000), "\\boxed{Paris}" + "x" * 400, 1.0),
        (answer.SubExactMatch(), "\\boxed{Paris, France}", 1.0),
        (answer.F1(), "\\boxed{Paris France}", pytest.approx(2 / 3)),
        (format.Boxed(), "\\boxed{anything}", 1.0),
        (format.Boxed(), "\\boxed{}", 1.0),
        (format.Boxed(), "nothing", 0.0),
        (answer.F1(), "\\boxed{" * 100_000, 0.0),
        (answer.F1(), "\ud800 \0", 0.0),
    ],
)
def test_replies(reward: Reward, reply: str, expected: float) -> None:
    assert value(reward, rollout(reply)) == expected


@pytest.mark.parametrize("reward", [answer.ExactMatch(), answer.SubExactMatch(), answer.F1(), format.Boxed()])
def test_unfinished_rollouts_score_nothing(reward: Reward) -> None:
    assert value(reward, rollout(None)) == 0.0
    assert value(reward, rollout("\\boxed{Paris}", error="server failed")) == 0.0


def test_a_task_without_gold_cannot_be_judged() -> None:
    assert value(answer.ExactMatch(), rollout("\\boxed{Paris}", answers=())) is None


@pytest.mark.parametrize("name", ["exact_match", "sub_exact_match", "f1", "boxed"])
def test_registered_with_their_own_fields(name: str) -> None:
    component = get("reward", name)
    assert component.build is component.config
    assert component.summary
    assert component.build(tail=10).tail == 10


@pytest.mark.parametrize(
    ("category", "reply", "gold", "expected"),
    [
        (1, "\\boxed{swimming, pottery}", "pottery, painting", 0.5),  # the mean over the gold's parts
        (3, "\\boxed{yes}", "Yes; she likes it", 1.0),
        (4, "\\boxed{a painted lake}", "painting lakes", 1.0),  # stems
        (4, "painting lakes", "painting lakes", 0.0),  # not in a box
        (None, "\\boxed{x}", "x", None),
        ("4", "\\boxed{x}", "x", None),
    ],
)
def test_locomos_own_score(category: object, reply: str, gold: str, expected: float | None) -> None:
    run = rollout(reply, (gold,))
    run.task = dataclasses.replace(run.task, meta={"category": category})
    assert value(answer.Locomo(), run) == expected
    run.outcome = None
    assert value(answer.Locomo(), run) == (None if expected is None else 0.0)
