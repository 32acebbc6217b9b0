"""Rollouts spread over ranks: each rank runs a share (in training whole groups), and all ranks get all of them."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import replace
from typing import Any

from memfactory.core.ranks import Ranks
from memfactory.core.types import Rollout, Task
from memfactory.data.dialogue import Dialogue
from memfactory.rollouts.collect import Collector


class SpreadCollector(Collector):
    """A collector that does its share of the work itself and exchanges what came of it with the other ranks.

    A draw's seed comes from phase, task and index, never from the rank, so the rollouts are those that one process
    would have made, up to rounding in batches of another size. Groups stay whole: their rollouts share prefixes in
    the rank's cache, and no advantage needs a second exchange.
    """

    def __init__(self, collector: Collector, ranks: Ranks) -> None:
        super().__init__(
            collector.agent,
            collector.make_models,
            score=collector.score,
            concurrency=collector.concurrency,
            share_readings=collector.share_readings,
        )
        self.ranks = ranks

    def collect(
        self,
        tasks: Sequence[Task],
        copies: int,
        phase: str,
        on_done: Callable[[Rollout], None] | None = None,
    ) -> list[list[Rollout]]:
        """Run `copies` rollouts of each task, somewhere; return one group per task, in order, on every rank.

        `on_done` hears of this rank's rollouts as they end, and of the others' when they have come.
        """
        mine = super().collect(self.ranks.share(tasks), copies, phase, on_done)
        groups = self.ranks.join_shares([[_light(rollout) for rollout in group] for group in mine])
        whole = [
            [replace(rollout, task=task) for rollout in group]
            for task, group in zip(tasks, groups, strict=True)
        ]
        if on_done is not None:
            for number, group in enumerate(whole):
                if number % self.ranks.world != self.ranks.rank:
                    for rollout in group:
                        on_done(rollout)
        return whole

    def work_off(
        self, jobs: Iterable[tuple[Task, int]], phase: str, on_done: Callable[[Rollout], None]
    ) -> None:
        """Run this rank's jobs; `on_done` hears of them as they end, and of the others' when all have come.

        Jobs that share a reading stay together: no dialogue is read on two ranks. All jobs are made at once.
        """
        listed = list(jobs)
        owners: dict[Hashable, int] = {}
        places: dict[tuple[str, int], int] = {}
        for place, (task, index) in enumerate(listed):
            owner = owners.setdefault(self._reading_of(task, index), len(owners) % self.ranks.world)
            if owner == self.ranks.rank:
                places[task.id, index] = place
        made: dict[int, Rollout] = {}

        def done(rollout: Rollout) -> None:
            made[places[rollout.task.id, rollout.index]] = _light(rollout)
            on_done(rollout)

        super().work_off([listed[place] for place in places.values()], phase, done)
        for rank, theirs in enumerate(self.ranks.gather(made)):
            if rank != self.ranks.rank:
                for place, rollout in theirs.items():
                    on_done(replace(rollout, task=listed[place][0]))

    def _reading_of(self, task: Task, index: int) -> Hashable:
        """What tells jobs apart that may run on different ranks."""
        if self.share_readings and isinstance(task.evidence, Dialogue):
            return task.evidence.id, index
        return task.id, index


def _light(rollout: Rollout) -> Rollout:
    """The rollout without its task: every rank has the tasks, and their texts are long."""
    nothing: Any = None
    return replace(rollout, task=nothing)
