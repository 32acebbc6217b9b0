"""Rollouts spread over ranks are those of one process, in the same order."""

from __future__ import annotations

from typing import Any

from memfactory.core.types import Outcome, Rollout, Task
from memfactory.data.dialogue import Dialogue
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


def test_jobs_are_done_once_and_heard_of_on_every_rank() -> None:
    """An evaluation's rollouts: each is made on one rank, and a dialogue is read on one rank only."""
    dialogues = [Dialogue(f"d{number}", ("Ann", "Ben"), ()) for number in range(3)]
    tasks = [Task(id=f"t{number}", question="q", evidence=dialogues[number % 3]) for number in range(7)]
    jobs = [(task, index) for task in tasks for index in range(2)]
    expected: list[Rollout] = []
    Collector(agent, models, score).work_off(jobs, "eval-1x", expected.append)
    for world in (2, 3, 7):
        made: list[list[tuple[str, int]]] = [[] for _ in range(world)]

        def work(ranks: Any, made: list[list[tuple[str, int]]] = made) -> Any:
            async def counting(task: Task, models: Any) -> Outcome:
                made[ranks.rank].append((task.evidence.id, int(models[-1])))
                return await agent(task, models)

            heard: list[Rollout] = []
            collector = SpreadCollector(Collector(counting, models, score, share_readings=True), ranks)
            collector.work_off(iter(jobs), "eval-1x", heard.append)
            return heard

        for heard in Meeting(world).run(work):
            assert sorted(map(seen, heard), key=str) == sorted(map(seen, expected), key=str)
        assert sum(map(len, made)) == len(jobs)
        readings = [set(one) for one in made]
        assert sum(map(len, readings)) == len(set().union(*readings)) == 6


def test_nothing_to_work_off_is_nothing_on_every_rank() -> None:
    heard: list[Rollout] = []
    Meeting(2).run(
        lambda ranks: SpreadCollector(Collector(agent, models), ranks).work_off([], "p", heard.append)
    )
    assert heard == []
