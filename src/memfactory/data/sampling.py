"""Which tasks a step trains on: a function of seed and step alone, so that a resumed run goes on the same."""

from __future__ import annotations

import random
from functools import lru_cache

from memfactory.core.seeding import derive_seed


class TaskOrder:
    """An endless order of the indices 0 .. n - 1: every epoch is its own seeded permutation.

    Step s (from 0) with B tasks a step takes places s * B .. s * B + B - 1 of that order. Every task comes
    once an epoch; a step that reaches into the next epoch, or a B larger than n, may hold an index twice.
    """

    def __init__(self, n: int, seed: int) -> None:
        """`n` tasks, at least one (`ValueError` otherwise)."""
        if n < 1:
            raise ValueError("there are no tasks to order")
        self.n = n
        self.seed = seed
        self._permutation = lru_cache(maxsize=2)(self._make_permutation)

    def step(self, step: int, tasks_per_step: int) -> list[int]:
        """The task indices of a step, in order. Depends on nothing but the arguments, n and the seed."""
        first = step * tasks_per_step
        return [self.at(place) for place in range(first, first + tasks_per_step)]

    def at(self, place: int) -> int:
        """The task index at a place (from 0) of the endless order."""
        epoch, position = divmod(place, self.n)
        return self._permutation(epoch)[position]

    def _make_permutation(self, epoch: int) -> list[int]:
        order = list(range(self.n))
        random.Random(derive_seed("task-order", self.seed, epoch)).shuffle(order)
        return order
