"""Which tasks a step trains on."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from memfactory.data.sampling import TaskOrder


@given(st.integers(1, 30), st.integers(0, 5), st.integers(1, 50), st.integers(0, 20))
def test_a_step_is_a_function_of_its_arguments(n: int, seed: int, batch: int, step: int) -> None:
    order = TaskOrder(n, seed)
    for earlier in range(step):
        order.step(earlier, batch)
    assert order.step(step, batch) == TaskOrder(n, seed).step(step, batch)
    assert len(order.step(step, batch)) == batch


@given(st.integers(1, 30), st.integers(0, 5), st.integers(1, 50))
def test_every_task_comes_once_an_epoch(n: int, seed: int, batch: int) -> None:
    order = TaskOrder(n, seed)
    steps = -(-3 * n // batch)
    seen = [index for step in range(steps) for index in order.step(step, batch)]
    for epoch in range(3):
        assert sorted(seen[epoch * n : (epoch + 1) * n]) == list(range(n))


def test_epochs_and_seeds_differ() -> None:
    first, second = TaskOrder(50, 0).step(0, 50), TaskOrder(50, 0).step(1, 50)
    assert first != second
    assert first != TaskOrder(50, 1).step(0, 50)
    assert TaskOrder(3, 0).step(0, 7)[:3] != [0, 0, 0]


def test_no_tasks() -> None:
    with pytest.raises(ValueError, match="no tasks"):
        TaskOrder(0, 0)
