"""Rollouts spread over ranks are those of one process, in the same order."""

from __future__ import annotations

from typing import Any

from memfactory.core.types import Outcome, Rollout, Task
from memfactory.rollouts.collect import Collector
from memfactory.rollouts.spread import SpreadCollector
from tests.unit.core.test_ranks import Meeting


async def agent(task: Task, models: Any) -> Outcome:
    return Outcome(reply=f"{task.id}:{models}")


async def score(rollout: Rollout) -> dict[str, float]:
    return {"length": float(len(rollout.outcome.reply))} if rollout.outcome else {}


def models(*, phase: str, task: Task, index: int, calls: Any, progress: Any = None) -> Any:
    return f"{phase}/{task.id}/{index}"


def seen(rollout: Rollout) -> Any:
    """All of a rollout but the time it took."""
    return rollout.task, rollout.index, rollout.outcome, rollout.rewards, rollout.error, rollout.calls


def test_groups_come_back_whole_and_in_order_on_every_rank() -> None:
    tasks = [Task(id=f"t{number}", question="q", evidence="e" * number) for number in range(5)]
    alone = Collector(agent, models, score)
    expected = alone.collect(tasks, 3, "train-4")
    for world in (2, 3, 7):
        heard: list[list[str]] = [[] for _ in range(world)]

        def work(ranks: Any, heard: list[list[str]] = heard) -> Any:
            told = heard[ranks.rank]
            collector = SpreadCollector(Collector(agent, models, score), ranks)
            return collector.collect(
                tasks, 3, "train-4", on_done=lambda done: told.append(f"{done.task.id}/{done.index}")
            )

        for groups in Meeting(world).run(work):
            assert [[seen(r) for r in g] for g in groups] == [[seen(r) for r in g] for g in expected]
            assert all(
                rollout.task is task for task, group in zip(tasks, groups, strict=True) for rollout in group
            )
        for told in heard:
            assert sorted(told) == sorted(f"t{n}/{i}" for n in range(5) for i in range(3))
    assert Meeting(2).run(lambda ranks: SpreadCollector(alone, ranks).collect([], 3, "p")) == [[], []]
