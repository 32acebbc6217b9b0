"""Rollouts that failed: some of them are a warning that names the first task, all of them are an error."""

from __future__ import annotations

from io import StringIO

import pytest
from rich.console import Console

from memfactory.commands.evaluate import _require_some_success, _tell_failures
from memfactory.core.errors import BadInput
from memfactory.core.types import Call, Outcome, Rollout, Task, Usage
from memfactory.evaluation.cost import Cost
from memfactory.evaluation.predictions import Finished, finish, predict
from memfactory.evaluation.report import Entry, cost_table
from memfactory.evaluation.scores import summarise_set

REFUSED = "module 'update', call 0: the server answered 400: filtered"


def entry(*errors: str | None, cost: Cost | None = None) -> Entry:
    rollouts = [
        Rollout(Task(f"q{n}", "?", "e", ("a",)), 0, outcome=None if error else Outcome("a"), error=error)
        for n, error in enumerate(errors)
    ]
    cost = cost or Cost(1, 2, 3, 0.0, 0, None)
    found = [predict(rollout) for rollout in rollouts]
    result = summarise_set("mine", found, repeats=1, metrics=["exact_match"], cost=cost)
    return Entry("r", "name", "tiny", "memagent", None, result)


def test_one_refused_task_is_a_warning_that_names_it() -> None:
    out = StringIO()
    entries = [entry(None, REFUSED, None)]
    _require_some_success(entries)
    _tell_failures(entries, Console(file=out))
    assert out.getvalue() == (
        f"warning: tiny memagent mine: 1 rollouts failed and score 0; first: q1: {REFUSED}\n"
    )


def test_all_refused_is_an_error_with_the_servers_words() -> None:
    with pytest.raises(BadInput, match=f"all 2 rollouts failed; first: q0: {REFUSED}"):
        _require_some_success([entry(REFUSED, REFUSED)])


def call(usage: Usage | None, *changes: str) -> Call:
    return Call("m", "policy", (1, 2), (3,), (), "a", "stop", 0, False, usage=usage, changes=changes)


def test_tokens_are_the_servers_or_unknown_never_zero() -> None:
    rollout = Rollout(Task("t", "?", "e"), 0, [call(None), call(Usage(120, 17), "x", "y")], Outcome("a"))
    found = finish(rollout)
    assert (found.prompt_tokens, found.completion_tokens, found.changes) == (122, 18, ("x", "y"))
    assert Finished.from_json(found.as_json()) == found
    rollout.calls.append(call(Usage(120, None), "x"))
    assert (finish(rollout).prompt_tokens, finish(rollout).completion_tokens) == (242, None)
    row = cost_table([entry(None, cost=Cost(3, 242, None, 0.0, 0, None))]).splitlines()[-1]
    assert [cell.strip() for cell in row.split("|")][4:7] == ["3", "242", "–"]
    judged = cost_table([entry(None, cost=Cost(3, 2, 1, 0.0, 0, None, 4, 50, None))])
    assert "judge prompt tokens" in judged and "|           4 |                  50 |" in judged
