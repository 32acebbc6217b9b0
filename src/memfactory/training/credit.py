"""From scored rollouts to rows: credit is given to rollouts, then every trainable call inherits it.

Group statistics are taken over rollouts before rollouts become calls; otherwise a task with more
blocks would weigh more (MemAgent, arXiv 2507.02259). With rewards routed to modules, statistics are
taken for each module over the rollouts that called it.

A rollout that a judge failed on has no total, so it takes no part for the modules which that judge pays.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from memfactory.algorithms.objective import AdvantageMethod
from memfactory.core.types import Rollout, Row
from memfactory.rewards.rubric import Rubric


@dataclass(frozen=True)
class Credit:
    """Rows of one step, the rollouts' totals, and what was left out.

    `advantages[i]` maps module → advantage for rollout i (flattened group by group); `flat[g]` tells
    that the rewards of group g do not differ.
    """

    rows: list[Row]
    rollouts: list[Rollout]
    advantages: list[dict[str, float]]
    flat: list[bool]
    failed_rollouts: int
    unjudged_rollouts: int
    untrainable_calls: int


def assign_credit(
    groups: Sequence[Sequence[Rollout]],
    rubric: Rubric,
    method: AdvantageMethod,
    *,
    drop_zero_variance: bool = True,
) -> Credit:
    """Give every trainable call its rollout's advantage, and make rows of them.

    Rollouts with an error, and those a judge failed on, take no part in the statistics. With
    `drop_zero_variance`, calls whose group shows no difference in reward make no row (their advantage is zero).
    """
    rollouts = [rollout for group in groups for rollout in group]
    group_of = [number for number, group in enumerate(groups) for _ in group]
    scored = [i for i, rollout in enumerate(rollouts) if rollout.error is None]
    modules = sorted({call.module for i in scored for call in rollouts[i].calls if call.trainable})
    advantages: list[dict[str, float]] = [{} for _ in rollouts]
    varied_groups: set[int] = set()
    shared: dict[tuple[object, ...], tuple[list[float], list[bool]]] = {}
    for module in modules:
        paid_by = rubric.routed(module)
        members = [
            i
            for i in scored
            if any(c.module == module and c.trainable for c in rollouts[i].calls)
            and not rubric.unjudged(rollouts[i], paid_by)
        ]
        key = (paid_by, tuple(members))
        if key not in shared:
            totals = [rubric.total(rollouts[i].rewards, paid_by) for i in members]
            shared[key] = _advantages(totals, [group_of[i] for i in members], method)
        for i, advantage, flat in zip(members, *shared[key], strict=True):
            if not flat:
                varied_groups.add(group_of[i])
            if not (flat and drop_zero_variance):
                advantages[i][module] = advantage
    rows, untrainable = [], 0
    for i in scored:
        for call in rollouts[i].calls:
            if not call.trainable or call.module not in advantages[i]:
                continue
            if not call.completion_ids or len(call.logprobs) != len(call.completion_ids):
                untrainable += 1
                continue
            rows.append(
                Row(
                    prompt_ids=call.prompt_ids,
                    completion_ids=call.completion_ids,
                    behaviour_logprobs=call.logprobs,
                    advantage=advantages[i][call.module],
                    rollout_id=i,
                    module=call.module,
                )
            )
    return Credit(
        rows=rows,
        rollouts=rollouts,
        advantages=advantages,
        flat=[number not in varied_groups for number in range(len(groups))],
        failed_rollouts=len(rollouts) - len(scored),
        unjudged_rollouts=sum(bool(rubric.unjudged(rollouts[i])) for i in scored),
        untrainable_calls=untrainable,
    )


def _advantages(
    totals: list[float], groups: list[int], method: AdvantageMethod
) -> tuple[list[float], list[bool]]:
    import torch

    from memfactory.algorithms.advantages import group_advantages, variance_free_groups

    rewards = torch.tensor(totals, dtype=torch.float64)
    ids = torch.tensor(groups, dtype=torch.long)
    advantages = group_advantages(rewards, ids, method)
    return advantages.tolist(), variance_free_groups(rewards, ids).tolist()
