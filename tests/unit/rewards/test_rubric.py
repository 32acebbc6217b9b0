"""What rewards of one's own may return, and how what they may not is named."""

from __future__ import annotations

import asyncio
from decimal import Decimal
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
import torch

from memfactory.core.errors import ServiceError, UserError
from memfactory.core.types import Outcome, Rollout, Task, Verdict
from memfactory.rewards.rubric import RewardComponent, Rubric
from memfactory.rollouts.collect import Collector
from tests.unit.fakes import models_of


def score(value: Any) -> dict[str, float]:
    async def reward(rollout: Rollout) -> Any:
        if isinstance(value, Exception):
            raise value
        return value

    rollout = Rollout(Task("task-7", "who?", "text"), 0, outcome=Outcome("x"))
    return asyncio.run(Rubric({"odd": RewardComponent(reward)}).score(rollout))


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (0.25, 0.25),
        (1, 1.0),
        (True, 1.0),
        (np.float32(0.5), 0.5),
        (np.int64(3), 3.0),
        (np.bool_(True), 1.0),
        (np.array(0.5), 0.5),
        (np.array([0.5]), 0.5),
        (torch.tensor(0.5), 0.5),
        (torch.tensor([2.0], requires_grad=True), 2.0),
        (Fraction(1, 4), 0.25),
        (Decimal("0.25"), 0.25),
        (Verdict("judge", 0.5), 0.5),
    ],
)
def test_numbers_of_all_kinds_count(value: Any, expected: float) -> None:
    assert score(value) == {"odd": expected}


def test_none_does_not_apply() -> None:
    assert score(None) == score(Verdict("judge", None, "no answer")) == {}


@pytest.mark.parametrize(
    "value",
    [
        float("nan"),
        float("inf"),
        -np.inf,
        10**400,
        1e13,
        "1.0",
        b"1",
        [1.0],
        (1.0,),
        {"odd": 1.0},
        1j,
        np.array([0.5, 0.5]),
        np.array("1.0"),
        torch.zeros(0),
        torch.tensor(float("nan")),
        Decimal("NaN"),
        Verdict("judge", float("nan")),
        object,
        KeyError("boom"),
        ZeroDivisionError("two\nlines"),
        AssertionError(),
    ],
    ids=repr,
)
def test_what_is_no_number_is_named_with_reward_and_task(value: Any) -> None:
    with pytest.raises(UserError, match=r"reward 'odd' .*'task-7'") as caught:
        score(value)
    assert "\n" not in str(caught.value)
    assert caught.value.exit_code != 0


def test_a_reward_that_is_not_awaited_is_named() -> None:
    rubric = Rubric({"odd": RewardComponent(lambda rollout: 1.0)})  # type: ignore[arg-type, return-value]
    with pytest.raises(UserError, match="reward 'odd' failed on task 'task-7': TypeError"):
        asyncio.run(rubric.score(Rollout(Task("task-7", "who?", "text"), 0)))


def test_an_error_of_a_service_stays_what_it_is() -> None:
    with pytest.raises(ServiceError, match="the judge is down"):
        score(ServiceError("the judge is down"))


def test_an_environment_that_scores_by_itself_is_held_to_the_same() -> None:
    async def agent(task: Task, models: Any) -> Outcome:
        return Outcome("x")

    async def scored(rollout: Rollout) -> dict[str, float]:
        return {"own": float("nan")}

    collector = Collector(agent, models_of(None), scored)  # type: ignore[arg-type]
    with pytest.raises(UserError, match=r"reward 'own' gave nan .*'task-7'"):
        collector.collect([Task("task-7", "who?", "text")], 2, "eval")
