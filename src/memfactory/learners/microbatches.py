"""One minibatch as micro-batches that fit in memory, and the loss of each: shared by all learners.

The weight of every call is computed over the whole minibatch before it is cut, so the gradient does not depend
on the cut.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from memfactory.algorithms.losses import LossPart, call_weights, loss_part, mean_metrics
from memfactory.algorithms.objective import Objective
from memfactory.algorithms.rows import Batch, collate, forward_length, micro_groups, pad_values
from memfactory.core.errors import BadInput
from memfactory.core.types import Row

Scorer = Callable[[Batch, float], tuple[Tensor, Tensor]]
"""Log-probs and entropies of a batch at a temperature; see `scoring.TokenScorer`."""

FILLER = Row((0,), (0,), (0.0,), 0.0, 0)
"""The row of an empty micro-batch: it costs one token and has no weight."""


@dataclass(frozen=True)
class MicroBatch:
    """Some calls of a minibatch: `[calls, tokens]` tensors, and `weights`: `[calls]` of the whole minibatch.

    An empty one (`real_tokens` 0) is run only because other ranks run one; its loss is 0.
    """

    batch: Batch
    weights: Tensor
    old_logp: Tensor | None = None
    ref_logp: Tensor | None = None
    real_tokens: int = 0


def trainable_rows(rows: Sequence[Row], objective: Objective) -> list[Row]:
    """The rows that have a completion.

    Raises:
        BadInput: a row has no prompt, or no behaviour log-probs although the objective needs them.
    """
    kept = [row for row in rows if row.completion_ids]
    needs_behaviour = objective.kind != "reinforce" or objective.tis_cap is not None
    for row in kept:
        if not row.prompt_ids:
            raise BadInput("a row without prompt tokens cannot be trained on")
        if row.behaviour_logprobs and len(row.behaviour_logprobs) != len(row.completion_ids):
            raise BadInput(
                f"a row has {len(row.completion_ids)} completion tokens but {len(row.behaviour_logprobs)} log-probs"
            )
        if needs_behaviour and not row.behaviour_logprobs:
            raise BadInput(
                f"loss '{objective.kind}' needs the log-probabilities of sampling, and rows of module "
                f"'{row.module}' have none: use a sampler that reports them, or algorithm kind 'reinforce'"
            )
    return kept


def minibatch_weights(rows: Sequence[Row], objective: Objective) -> Tensor:
    """`[rows]` factor of each row's tokens in the loss of this (global) minibatch."""
    return call_weights(
        torch.tensor([len(row.completion_ids) for row in rows], dtype=torch.long),
        torch.tensor([row.rollout_id for row in rows], dtype=torch.long),
        objective.denominator,
        objective.constant_length,
    )


def micro_batches(
    rows: Sequence[Row],
    weights: Tensor,
    budget: int,
    device: torch.device,
    old: Sequence[Tensor] | None = None,
    ref: Sequence[Tensor] | None = None,
    steps: int = 0,
    packed: bool = False,
) -> Iterator[MicroBatch]:
    """Cut rows into micro-batches of at most `budget` tokens, padded or `packed`, longest first.

    `weights`: `[rows]`; `old`, `ref`: log-probs of each row's completion (`[length]` each), on the CPU.
    Empty micro-batches follow until there are `steps`.
    """
    groups = micro_groups([forward_length(row) for row in rows], budget, packed)
    for chosen in groups:
        batch = collate([rows[i] for i in chosen], device, packed=packed)
        tokens = batch.mask.shape[1]
        yield MicroBatch(
            batch=batch,
            weights=weights[chosen].to(device),
            old_logp=None if old is None else pad_values([old[i] for i in chosen], tokens).to(device),
            ref_logp=None if ref is None else pad_values([ref[i] for i in chosen], tokens).to(device),
            real_tokens=sum(forward_length(rows[i]) for i in chosen),
        )
    for _ in range(steps - len(groups)):
        batch, nothing = collate([FILLER], device, packed=packed), torch.zeros(1, 1, device=device)
        yield MicroBatch(
            batch=batch,
            weights=torch.zeros(1, dtype=weights.dtype, device=device),
            old_logp=None if old is None else nothing,
            ref_logp=None if ref is None else nothing,
        )


def micro_loss(scorer: Scorer, micro: MicroBatch, objective: Objective) -> LossPart:
    """Forward one micro-batch and return its share of the minibatch's loss.

    With `tis_cap` and no `old_logp`, this is the first step since sampling: the weights are those at the
    start of the update, and the old log-probs are the ones just computed. Rows without behaviour log-probs
    (supervised traces) have no ratio and no mismatch.
    """
    logp, entropy = scorer(micro.batch, objective.temperature)
    old = micro.old_logp
    if old is None and objective.tis_cap is not None:
        old = logp.detach()
    behaviour = micro.batch.behaviour_logp
    part = loss_part(
        logp,
        logp.detach() if behaviour is None else behaviour,
        micro.batch.advantages,
        micro.batch.mask,
        micro.weights,
        kind=objective.kind,
        clip_low=objective.clip_low,
        clip_high=objective.clip_high,
        ref_logp=micro.ref_logp,
        kl_coef=objective.kl_coef,
        tis_cap=objective.tis_cap,
        old_logp=old,
    )
    part.sums["entropy"] = entropy.sum()
    if behaviour is None:
        for name in ("ratio_mean", "clip_fraction", "mismatch_kl"):
            del part.sums[name]
    return part


@torch.no_grad()
def score_rows(
    scorer: Scorer,
    rows: Sequence[Row],
    budget: int,
    device: torch.device,
    agree: Callable[[int], int] = lambda steps: steps,
    packed: bool = False,
    temperature: float = 1.0,
) -> list[Tensor]:
    """Log-probs (nats) of each row's completion tokens, `[length]` each, on the CPU, in the order of the rows.

    `agree` turns the number of forward passes that these rows need into the number that all ranks run.
    """
    scores: list[Tensor] = [torch.zeros(0)] * len(rows)
    filled = [i for i, row in enumerate(rows) if row.completion_ids]
    groups = micro_groups([forward_length(rows[i]) for i in filled], budget, packed)
    passes = agree(len(groups))  # before the first: ranks of a sharded model run each pass together
    for chosen in groups:
        batch = collate([rows[filled[i]] for i in chosen], device, packed=packed)
        logp, _ = scorer(batch, temperature)
        for place, i in enumerate(chosen):
            scores[filled[i]] = logp[place][batch.mask[place]].cpu()
    for _ in range(passes - len(groups)):
        scorer(collate([FILLER], device, packed=packed), temperature)
    return scores


@dataclass
class Tally:
    """Adds up what the micro-batches and steps of one update report."""

    sums: dict[str, float] = field(default_factory=dict)
    losses: list[float] = field(default_factory=list)
    grad_norms: list[float] = field(default_factory=list)
    real_tokens: int = 0
    padded_tokens: int = 0

    def add(self, micro: MicroBatch, part: LossPart) -> None:
        """Count one micro-batch."""
        self.padded_tokens += micro.batch.input_ids.numel()
        if not micro.real_tokens:
            return
        for name, value in part.sums.items():
            self.sums[name] = self.sums.get(name, 0.0) + float(value)
        self.real_tokens += micro.real_tokens

    @staticmethod
    def of_all(tallies: Sequence[Tally]) -> Tally:
        """The tally of one update that several ranks shared. Losses and norms are of the whole on each of them."""
        whole = Tally(losses=tallies[0].losses, grad_norms=tallies[0].grad_norms)
        for tally in tallies:
            for name, value in tally.sums.items():
                whole.sums[name] = whole.sums.get(name, 0.0) + value
            whole.real_tokens += tally.real_tokens
            whole.padded_tokens += tally.padded_tokens
        return whole

    def metrics(self) -> dict[str, float]:
        """Means over tokens, means over steps, and counts."""
        values = mean_metrics({"tokens": 0.0, **self.sums})
        steps = max(1, len(self.losses))
        values["loss"] = sum(self.losses) / steps
        values["grad_norm"] = sum(self.grad_norms) / steps
        values["steps"] = float(len(self.losses))
        values["tokens"] = float(self.real_tokens)
        values["completion_tokens"] = self.sums.get("tokens", 0.0)
        values["padding_share"] = 1 - self.real_tokens / self.padded_tokens if self.padded_tokens else 0.0
        return values
