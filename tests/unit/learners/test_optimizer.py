"""Learning-rate schedules by hand, and who decays."""

import pytest
import torch

from memfactory.learners.optimizer import learning_rate, make_adamw


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


def test_only_matrices_decay():
    layer = torch.nn.Linear(2, 2)
    groups = make_adamw(layer.parameters(), lr=1.0, betas=(0.9, 0.99), weight_decay=0.1).param_groups
    assert [(group["weight_decay"], group["params"][0].dim()) for group in groups] == [(0.1, 2), (0.0, 1)]
