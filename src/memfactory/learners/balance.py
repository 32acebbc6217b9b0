"""Who works on which rows of a minibatch, when several ranks share it."""

from __future__ import annotations

import heapq
from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from memfactory.algorithms.objective import Objective
from memfactory.algorithms.rows import forward_length, micro_groups
from memfactory.core.types import Row
from memfactory.learners.microbatches import minibatch_weights


@dataclass(frozen=True)
class Share:
    """What one rank does of a minibatch.

    `rows`: indices into the rows of the update. `weights`: `[rows]` their factors in the loss of the whole minibatch.
    `steps`: micro-batches that every rank runs, empty ones included.
    """

    rows: list[int]
    weights: Tensor
    steps: int


def deal(lengths: Sequence[int], ranks: int) -> list[list[int]]:
    """Spread rows over ranks so that each gets about the same number of tokens.

    The longest row goes first, always to the rank that has least (ties: the lowest rank). Graham's
    longest-processing-time rule: no rank gets more than 4/3 of what the best spreading would give it.

    Returns:
        Indices into `lengths` for each rank, ascending; each index occurs exactly once.
    """
    loads = [(0, rank) for rank in range(ranks)]
    dealt: list[list[int]] = [[] for _ in range(ranks)]
    for index in sorted(range(len(lengths)), key=lambda i: (-lengths[i], i)):
        load, rank = loads[0]
        dealt[rank].append(index)
        heapq.heapreplace(loads, (load + lengths[index], rank))
    return [sorted(indices) for indices in dealt]


def share_minibatch(
    rows: Sequence[Row],
    chosen: Sequence[int],
    objective: Objective,
    budget: int,
    rank: int,
    ranks: int,
    packed: bool = False,
) -> Share:
    """The part of minibatch `rows[i] for i in chosen` that falls to `rank`.

    Every rank computes the parts of all from the same rows, so nothing needs to be sent.
    """
    lengths = [forward_length(rows[i]) for i in chosen]
    weights = minibatch_weights([rows[i] for i in chosen], objective)
    dealt = deal(lengths, ranks)
    steps = max(len(micro_groups([lengths[i] for i in part], budget, packed)) for part in dealt)
    return Share([chosen[i] for i in dealt[rank]], weights[dealt[rank]], steps)
