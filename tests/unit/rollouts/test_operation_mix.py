"""Shares of operations over many outcomes."""

from __future__ import annotations

from memfactory.core.types import Outcome
from memfactory.rollouts.operation_mix import operation_mix


def test_shares_are_over_all_operations_together() -> None:
    outcomes = [
        Outcome("", info={"operations": {"add": 3, "update": 0, "noop": 0}}),
        Outcome("", info={"operations": {"add": 0, "update": 1, "noop": 0}}),
        Outcome("no bank"),
        None,
    ]
    assert operation_mix(outcomes) == {"add": 0.75, "update": 0.25, "noop": 0.0}


def test_nothing_reported_is_an_empty_mix() -> None:
    assert operation_mix([None, Outcome(""), Outcome("", info={"operations": {"add": 0}})]) == {}
