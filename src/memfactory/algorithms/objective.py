"""What the learner is asked to minimise: the settings of advantage and loss, as plain values."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

AdvantageMethod = Literal["grpo", "dr_grpo", "rloo", "reinforce_pp"]
LossKind = Literal["ppo_clip", "gspo", "cispo", "reinforce"]
Denominator = Literal["token", "call", "rollout", "constant"]


@dataclass(frozen=True)
class Objective:
    """Loss settings of one update (see `losses.policy_loss` for the equations).

    `epochs` passes over the rows, each cut into `minibatches` optimizer steps. `tis_cap` caps the
    truncated importance weight between sampler and learner; None switches it off.

    `temperature` is that of the rollouts. The policy that acted, and so the one that is trained, is softmax(logits /
    temperature): the learner scores under it, and so does the reference of a KL term.
    """

    kind: LossKind = "ppo_clip"
    clip_low: float = 0.2
    clip_high: float = 0.2
    kl_coef: float = 0.0
    denominator: Denominator = "token"
    constant_length: int | None = None
    tis_cap: float | None = None
    epochs: int = 1
    minibatches: int = 1
    temperature: float = 1.0

    @property
    def steps(self) -> int:
        """Optimizer steps that are planned for one update."""
        return self.epochs * self.minibatches
