"""Rollouts of one batch of tasks spread over ranks: each rank runs whole groups, and all ranks get all of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from memfactory.core.ranks import Ranks
from memfactory.core.types import Rollout, Task
from memfactory.rollouts.collect import Collector


class SpreadCollector(Collector):
    """A collector whose `collect` does every `world`-th task itself and exchanges the groups with the other ranks.

    A draw's seed comes from phase, task and index, never from the rank, so the rollouts are those that one process
    would have made, up to rounding in batches of another size. Groups stay whole: their rollouts share prefixes in
    the rank's cache, and no advantage needs a second exchange.
    """

    def __init__(self, collector: Collector, ranks: Ranks) -> None:
        super().__init__(
            collector.agent, collector.make_models, score=collector.score, concurrency=collector.concurrency
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
        # Tasks stay at home: every rank has them, and their texts are long.
        nothing: Any = None
        light = [[replace(rollout, task=nothing) for rollout in group] for group in mine]
        groups = self.ranks.join_shares(light)
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
