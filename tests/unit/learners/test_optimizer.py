"""Learning-rate schedules by hand, and who decays."""

import pytest
import torch

from memfactory.algorithms.objective import Objective
from memfactory.core.errors import UserError
from memfactory.learners.local import LocalLearner
from memfactory.learners.optimizer import learning_rate, make_adamw

from .models import random_model, random_rows


def rates(schedule, steps, **changes):
    settings = {"lr": 1.0, "warmup_steps": 2, "min_lr_ratio": 0.1, "total_steps": 6, **changes}
    return [learning_rate(step, schedule=schedule, **settings) for step in range(steps)]


def test_schedules_by_hand():
    assert rates("constant", 4) == [0.5, 1.0, 1.0, 1.0]
    assert rates("linear", 8) == pytest.approx([0.5, 1.0, 1.0, 0.775, 0.55, 0.325, 0.1, 0.1])
    assert rates("cosine", 7) == pytest.approx([0.5, 1.0, 1.0, 0.868198, 0.55, 0.231802, 0.1])
    assert rates("linear", 2, warmup_steps=0, min_lr_ratio=0.0) == pytest.approx([1.0, 5 / 6])
    with pytest.raises(ValueError):
        rates("cosine", 4, total_steps=None)


@pytest.mark.parametrize(
    ("plan", "expected"),
    [
        # Two steps an update, eight in the plan, two to warm up: 1/2, 1, then a line that would reach 0 with step 8.
        ([0, 2, 4, 6], [[0.5, 1.0], [1.0, 5 / 6], [4 / 6, 3 / 6], [2 / 6, 1 / 6]]),
        # The second update had no rows: the third learns at the rate that it would have had, and the end is the same.
        ([0, 4, 6], [[0.5, 1.0], [4 / 6, 3 / 6], [2 / 6, 1 / 6]]),
        # By itself a learner counts its own steps.
        ([None, None], [[0.5, 1.0], [1.0, 5 / 6]]),
    ],
)
def test_the_rate_follows_the_plan_whatever_steps_had_rows(plan, expected):
    learner = LocalLearner(
        model=random_model(), device="cpu", lr=1.0, warmup_steps=2, schedule="linear", total_steps=8
    )
    seen = []
    learner._take_step = lambda loss, lr: seen.append(lr) or 0.0
    for planned in plan:
        learner.update(random_rows(4), Objective(kind="cispo", minibatches=2), planned)
    assert seen == pytest.approx([rate for rates in expected for rate in rates])


@pytest.mark.parametrize("lr", [1e38, 1e30])
def test_weights_that_overflow_stop_the_update(lr):
    learner = LocalLearner(model=random_model(), device="cpu", lr=lr)
    with pytest.raises(UserError, match=r"optimizer step [12]: .*learner\.lr"):
        for _ in range(2):
            learner.update(random_rows(4), Objective(kind="cispo"))


def test_only_matrices_decay():
    layer = torch.nn.Linear(2, 2)
    groups = make_adamw(layer.parameters(), lr=1.0, betas=(0.9, 0.99), weight_decay=0.1).param_groups
    assert [(group["weight_decay"], group["params"][0].dim()) for group in groups] == [(0.1, 2), (0.0, 1)]
