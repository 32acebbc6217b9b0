"""The policy loss: one term per sampled token, and one weight per call that says what a mean is.

The loss of a batch is Σ_calls weight(call) · Σ_tokens term(token). The weights (`call_weights`) need only
lengths and are computed over the whole batch; the terms need only their own call. So a batch may be cut
into micro-batches, or spread over ranks, and the parts add up to exactly the loss of the whole.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import get_args

import torch
from torch import Tensor

from memfactory.algorithms.objective import Denominator, LossKind

MAX_LOG_RATIO = 20.0
"""Log-ratios are cut to ±20 before `exp`, so that one absurd token cannot make the loss infinite."""


@dataclass(frozen=True)
class LossOutput:
    """A scalar loss with its graph, and figures about it (plain floats).

    Means are over the batch's unmasked tokens:

    - `ratio_mean`: the importance ratio, before clipping (sequence-level for `gspo`).
    - `clip_fraction`: share of tokens whose term is cut off from the gradient by clipping (for `cispo`: whose
      weight is clipped; 0 for `reinforce`).
    - `mismatch_kl`: KL(behaviour ‖ learner), k3 estimate, in nats; the learner side is `old_logp` where
      given, else `logp`.
    - `kl`: KL(policy ‖ reference), k3 estimate, in nats; only with `ref_logp`.
    - `tis_weight_mean`, `tis_capped`: mean truncated importance weight, and the share of weights at the cap;
      only where the weight is in use.
    """

    loss: Tensor
    metrics: dict[str, float]


@dataclass(frozen=True)
class LossPart:
    """A micro-batch's share of the loss, and its metrics as sums over its `tokens`, to be added up."""

    loss: Tensor
    sums: dict[str, Tensor]


def policy_loss(
    logp: Tensor,
    behaviour_logp: Tensor,
    advantages: Tensor,
    mask: Tensor,
    *,
    kind: LossKind = "ppo_clip",
    clip_low: float = 0.2,
    clip_high: float = 0.2,
    ref_logp: Tensor | None = None,
    kl_coef: float = 0.0,
    denominator: Denominator = "token",
    rollout_ids: Tensor | None = None,
    constant_length: int | None = None,
    tis_cap: float | None = None,
    old_logp: Tensor | None = None,
) -> LossOutput:
    """Policy-gradient loss of a batch of calls, to be minimised.

    With A the call's advantage and ρ = exp(logp − old), old being `old_logp` where given, else
    `behaviour_logp`, the term of a token is

    - `ppo_clip`: −min(ρA, clip(ρ, 1−clip_low, 1+clip_high)·A). Schulman et al. 2017, arXiv 1707.06347, eq. 7;
      with clip_high > clip_low it is DAPO's, arXiv 2503.14476.
    - `gspo`: the same with the call's length-normalised ratio exp(mean over its tokens of logp − old).
      Zheng et al. 2025, arXiv 2507.18071, eq. 5 to 7.
    - `cispo`: −sg(clip(ρ, 1−clip_low, 1+clip_high))·A·logp. MiniMax-M1 2025, arXiv 2506.13585, eq. 4 and 5.
    - `reinforce`: −A·logp; no ratio. With A = 1 it is the negative log-likelihood.

    If `old_logp` is given and `tis_cap` is set, each term is multiplied by the truncated importance weight
    sg(min(exp(old − behaviour), tis_cap)), which corrects for a sampler that computes other log-probabilities
    than the learner. Without `old_logp` the ratio is already taken against the behaviour and corrects for
    both, so `tis_cap` has no effect. If `ref_logp` is given, kl_coef·k3 is added to each term, where
    k3 = exp(ref − logp) − (ref − logp) − 1 (Schulman, "Approximating KL divergence"; DeepSeekMath eq. 4); it
    is not weighted. Log-ratios are cut to ±20 before exp.

    Denominators, over calls with at least one token (others contribute nothing): `token` Σ over all tokens /
    their number; `call` mean over calls of the mean over tokens; `rollout` mean over rollouts of the mean over
    the rollout's tokens; `constant` Σ over all tokens / (calls × constant_length), Dr. GRPO, arXiv 2503.20783.

    Args:
        logp: `[calls, tokens]` log-probabilities (nats) under the policy in training; carries the graph.
        behaviour_logp: `[calls, tokens]` as sampled; constant.
        advantages: `[calls]`; constant.
        mask: `[calls, tokens]`, true (or 1) at sampled tokens. Masked positions of every input may hold
            anything, −inf and NaN included.
        kind, clip_low, clip_high, kl_coef, tis_cap: as above.
        ref_logp: `[calls, tokens]` of the reference model, or None for no KL term.
        denominator: as above.
        rollout_ids: `[calls]` integers, required by `rollout`.
        constant_length: tokens, required by `constant`.
        old_logp: `[calls, tokens]` of the policy before this update, or None.

    Returns:
        The loss, 0 with a graph if nothing is unmasked, and metrics (see `LossOutput`).

    Raises:
        ValueError: unknown kind or denominator, missing or ill-shaped arguments.
    """
    _check_shapes(logp, behaviour_logp, advantages, mask, ref_logp, old_logp)
    mask = mask.bool()
    weights = call_weights(mask.sum(-1), rollout_ids, denominator, constant_length)
    part = loss_part(
        logp,
        behaviour_logp,
        advantages,
        mask,
        weights,
        kind=kind,
        clip_low=clip_low,
        clip_high=clip_high,
        ref_logp=ref_logp,
        kl_coef=kl_coef,
        tis_cap=tis_cap,
        old_logp=old_logp,
    )
    return LossOutput(part.loss, mean_metrics(part.sums))


def call_weights(
    lengths: Tensor,
    rollout_ids: Tensor | None = None,
    denominator: Denominator = "token",
    constant_length: int | None = None,
) -> Tensor:
    """The factor with which each token of each call enters the loss.

    Args:
        lengths: `[calls]` number of unmasked tokens of every call of the whole (global) batch.
        rollout_ids: `[calls]` integers, required by `rollout`.
        denominator: see `policy_loss`.
        constant_length: tokens, required by `constant`.

    Returns:
        `[calls]` float64; 0 for calls of length 0, which count nowhere.

    Raises:
        ValueError: unknown denominator, or what it needs is missing.
    """
    real = lengths > 0
    tokens = lengths.double()
    calls = real.sum().clamp(min=1)
    if denominator == "token":
        each = torch.ones_like(tokens) / tokens.sum().clamp(min=1)
    elif denominator == "call":
        each = 1 / (calls * tokens.clamp(min=1))
    elif denominator == "rollout":
        if rollout_ids is None or rollout_ids.shape != lengths.shape:
            raise ValueError("denominator 'rollout' needs rollout_ids, one for each call")
        if not len(lengths):
            return tokens
        index = torch.unique(rollout_ids, return_inverse=True)[1].to(lengths.device)
        totals = torch.zeros(int(index.max()) + 1, dtype=tokens.dtype, device=lengths.device)
        totals.index_add_(0, index, tokens)
        each = 1 / ((totals > 0).sum().clamp(min=1) * totals.clamp(min=1))[index]
    elif denominator == "constant":
        if not constant_length or constant_length < 1:
            raise ValueError("denominator 'constant' needs a constant_length of at least 1")
        each = torch.ones_like(tokens) / (calls * constant_length)
    else:
        raise ValueError(f"unknown denominator '{denominator}'; known: {', '.join(get_args(Denominator))}")
    return torch.where(real, each, 0.0)


def loss_part(
    logp: Tensor,
    behaviour_logp: Tensor,
    advantages: Tensor,
    mask: Tensor,
    weights: Tensor,
    *,
    kind: LossKind = "ppo_clip",
    clip_low: float = 0.2,
    clip_high: float = 0.2,
    ref_logp: Tensor | None = None,
    kl_coef: float = 0.0,
    tis_cap: float | None = None,
    old_logp: Tensor | None = None,
) -> LossPart:
    """The share of `policy_loss` that some of the batch's calls have.

    Arguments are those of `policy_loss` for these calls only, and `weights`: `[calls]`, their entries of
    `call_weights` over the whole batch. Losses and sums of all parts add up to those of the whole.

    Raises:
        ValueError: unknown kind.
    """
    mask = mask.bool()
    logp, behaviour = _masked(logp, mask), _masked(behaviour_logp, mask).detach()
    old = behaviour if old_logp is None else _masked(old_logp, mask).detach()
    advantage = advantages.detach().to(logp.dtype).unsqueeze(-1)
    term, ratio, clipped = _terms(logp, old, advantage, mask, kind, clip_low, clip_high)

    tokens = mask.sum()
    sums = {"tokens": tokens, "ratio_mean": _total(ratio, mask), "clip_fraction": _total(clipped, mask)}
    learner = (logp if old_logp is None else old).detach()
    sums["mismatch_kl"] = _total(k3(behaviour, learner), mask)
    if old_logp is not None and tis_cap is not None:
        importance = _ratio(old - behaviour)
        sums["tis_capped"] = _total(importance > tis_cap, mask)
        importance = importance.clamp(max=tis_cap)
        sums["tis_weight_mean"] = _total(importance, mask)
        term = term * importance
    if ref_logp is not None:
        kl = k3(logp, _masked(ref_logp, mask).detach())
        sums["kl"] = _total(kl.detach(), mask)
        term = term + kl_coef * kl
    per_call = torch.where(mask, term, 0.0).sum(-1)
    return LossPart((per_call * weights.to(per_call)).sum(), sums)


def mean_metrics(sums: Mapping[str, Tensor | float]) -> dict[str, float]:
    """Metrics from sums over tokens (added up over parts): each divided by `tokens`, which is left out."""
    tokens = max(float(sums["tokens"]), 1.0)
    return {name: float(value) / tokens for name, value in sums.items() if name != "tokens"}


def k3(logp: Tensor, other: Tensor) -> Tensor:
    """Unbiased, non-negative estimate of KL(p ‖ other) from samples of p, token by token, in nats.

    k3 = exp(other − logp) − (other − logp) − 1; DeepSeekMath, arXiv 2402.03300, eq. 4.
    """
    difference = (other - logp).clamp(-MAX_LOG_RATIO, MAX_LOG_RATIO)
    return difference.exp() - difference - 1


def _terms(
    logp: Tensor,
    old: Tensor,
    advantage: Tensor,
    mask: Tensor,
    kind: LossKind,
    clip_low: float,
    clip_high: float,
) -> tuple[Tensor, Tensor, Tensor]:
    """Per-token loss terms `[calls, tokens]`, ratios and clip indicators (both without graph)."""
    if kind not in get_args(LossKind):
        raise ValueError(f"unknown loss kind '{kind}'; known: {', '.join(get_args(LossKind))}")
    log_ratio = logp - old
    if kind == "gspo":
        length = mask.sum(-1, keepdim=True).clamp(min=1)
        log_ratio = (log_ratio.sum(-1, keepdim=True) / length).expand_as(logp)
    ratio = _ratio(log_ratio)
    cut = ratio.clamp(1 - clip_low, 1 + clip_high)
    if kind == "reinforce":
        return -advantage * logp, ratio.detach(), torch.zeros_like(mask)
    if kind == "cispo":
        return -cut.detach() * advantage * logp, ratio.detach(), cut != ratio
    term = -torch.minimum(ratio * advantage, cut * advantage)
    clipped = ((ratio > 1 + clip_high) & (advantage > 0)) | ((ratio < 1 - clip_low) & (advantage < 0))
    return term, ratio.detach(), clipped


def _ratio(log_ratio: Tensor) -> Tensor:
    return log_ratio.clamp(-MAX_LOG_RATIO, MAX_LOG_RATIO).exp()


def _masked(values: Tensor, mask: Tensor) -> Tensor:
    """Values with 0 at masked positions: whatever stands there reaches neither loss nor gradient."""
    values = values if values.dtype == torch.float64 else values.float()
    return torch.where(mask, values, 0.0)


def _total(values: Tensor, mask: Tensor) -> Tensor:
    return torch.where(mask, values.detach().float(), 0.0).sum()


def _check_shapes(
    logp: Tensor, behaviour: Tensor, advantages: Tensor, mask: Tensor, *others: Tensor | None
) -> None:
    if logp.dim() != 2:
        raise ValueError(f"logp must be [calls, tokens], not {list(logp.shape)}")
    for other in (behaviour, mask, *others):
        if other is not None and other.shape != logp.shape:
            raise ValueError(f"shape {list(other.shape)} does not match logp {list(logp.shape)}")
    if advantages.shape != logp.shape[:1]:
        raise ValueError(f"advantages must be [{logp.shape[0]}], not {list(advantages.shape)}")
