"""avg@k, pass@k, bootstrap intervals and paired differences."""

from __future__ import annotations

import pytest

from memfactory.core.errors import BadInput
from memfactory.metrics.statistics import avg_at_k, bootstrap_interval, paired_difference, pass_at_k


def test_avg_at_k_weighs_tasks_alike() -> None:
    assert avg_at_k([[1, 0], [1, 1, 1, 1]]) == 0.75


def test_pass_at_k_by_hand() -> None:
    assert pass_at_k([[1, 0, 0, 0]], 2) == pytest.approx(0.5)  # 1 - C(3,2)/C(4,2)
    assert pass_at_k([[1, 0, 0, 0], [0, 0, 0, 0]], 4) == 0.5
    assert pass_at_k([[0.4, 0.6]], 1, threshold=0.5) == 0.5


def test_pass_at_k_needs_k_tries() -> None:
    with pytest.raises(ValueError, match="pass@3"):
        pass_at_k([[1, 0]], 3)
    with pytest.raises(ValueError, match="no scores"):
        pass_at_k([], 1)


def test_bootstrap_is_repeatable_and_about_right() -> None:
    values = [0.0, 1.0] * 50
    found = bootstrap_interval(values, seed=1)
    assert found == bootstrap_interval(values, seed=1)
    assert found.mean == 0.5
    assert found.low == pytest.approx(0.5 - 1.96 * 0.05, abs=0.02)  # normal approximation
    assert found.high == pytest.approx(0.5 + 1.96 * 0.05, abs=0.02)
    assert bootstrap_interval([0.3]).low == bootstrap_interval([0.3]).high == pytest.approx(0.3)


def test_paired_difference_uses_shared_tasks() -> None:
    before = {f"t{i}": i % 2 for i in range(40)} | {"only-before": 1.0}
    after = {f"t{i}": 1.0 for i in range(40)}
    found = paired_difference(before, after)
    assert (found.difference, found.tasks, found.shown) == (0.5, 40, True)


def test_no_difference_is_not_shown() -> None:
    before = {str(i): float(i % 2) for i in range(20)}
    after = {str(i): float((i + 1) % 2) for i in range(20)}
    assert not paired_difference(before, after).shown
    assert not paired_difference(before, before).shown


def test_runs_without_a_task_in_common() -> None:
    with pytest.raises(BadInput, match="in common"):
        paired_difference({"a": 1}, {"b": 1})
