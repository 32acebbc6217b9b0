"""The plain learner: torch alone, one process, a CPU or one GPU; full fine-tuning or LoRA."""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from memfactory.core.errors import BadInput, UserError
from memfactory.core.registry import register
from memfactory.core.seeding import derive_seed
from memfactory.core.types import Row

if TYPE_CHECKING:
    import torch

    from memfactory.algorithms.objective import Objective
    from memfactory.learners.microbatches import Tally


@dataclass(frozen=True)
class LocalLearnerConfig:
    """Fields of the `local` learner.

    lr: peak learning rate of AdamW. betas: its decay rates of moments. weight_decay: on matrices only.
    warmup_steps: optimizer steps over which lr rises from 0. schedule: constant, linear or cosine, after that.
    min_lr_ratio: what a falling schedule ends at, as a share of lr.
    clip_norm: largest norm of the gradient; 0 for no limit.
    micro_batch_tokens: most tokens (with padding) in one forward pass; memory grows with it, the result does not
    change. gradient_checkpointing: trade a second forward pass for memory. dtype: float32, or bfloat16 for
    autocast with float32 master weights. device: auto, cpu, cuda or cuda:N.
    lora_rank: 0 trains all weights; lora_alpha, lora_dropout, lora_targets (layer names; all-linear): as in peft.
    """

    lr: float = 1e-6
    betas: list[float] = field(default_factory=lambda: [0.9, 0.999])
    weight_decay: float = 0.0
    warmup_steps: int = 0
    schedule: str = "constant"
    min_lr_ratio: float = 0.0
    clip_norm: float = 1.0
    micro_batch_tokens: int = 8192
    gradient_checkpointing: bool = False
    dtype: str = "float32"
    device: str = "auto"
    lora_rank: int = 0
    lora_alpha: int = 16
    lora_dropout: float = 0.0
    lora_targets: list[str] = field(default_factory=lambda: ["all-linear"])


@register("learner", "local", config=LocalLearnerConfig)
class LocalLearner:
    """Plain torch in this process: CPU or one GPU, full fine-tuning or LoRA.

    Beside the fields of `LocalLearnerConfig` it takes what the recipe layer provides: `model` (a loaded Hugging
    Face causal LM or its folder), `tokenizer` (only saved beside the weights; read from the folder if there is
    one), `total_steps` (optimizer steps of the whole run, for falling schedules), `seed` (LoRA's initial
    matrices, dropout), `reference` (keep the initial weights for a KL term: a frozen copy, or under LoRA
    simply the model without adapters).

    Raises `BadInput` for impossible settings or a model that it cannot train.
    """

    def __init__(
        self,
        *,
        model: Any,
        tokenizer: Any = None,
        total_steps: int | None = None,
        seed: int = 0,
        reference: bool = False,
        lr: float = 1e-6,
        betas: Sequence[float] = (0.9, 0.999),
        weight_decay: float = 0.0,
        warmup_steps: int = 0,
        schedule: str = "constant",
        min_lr_ratio: float = 0.0,
        clip_norm: float = 1.0,
        micro_batch_tokens: int = 8192,
        gradient_checkpointing: bool = False,
        dtype: str = "float32",
        device: str = "auto",
        lora_rank: int = 0,
        lora_alpha: int = 16,
        lora_dropout: float = 0.0,
        lora_targets: Sequence[str] = ("all-linear",),
    ) -> None:
        from memfactory.learners.adapters import add_lora
        from memfactory.learners.optimizer import make_adamw
        from memfactory.learners.scoring import TokenScorer
        from memfactory.learners.settings import (
            cast_parameters,
            check_settings,
            compute_dtype,
            load_for_training,
            pick_device,
        )

        check_settings(
            lr=lr,
            betas=betas,
            schedule=schedule,
            total_steps=total_steps,
            micro_batch_tokens=micro_batch_tokens,
        )
        self._device = pick_device(device)
        self._dtype = compute_dtype(dtype)
        self._tokenizer = tokenizer
        self._seed = seed
        self._budget = micro_batch_tokens
        self._clip_norm = clip_norm if clip_norm > 0 else math.inf
        self._schedule: dict[str, Any] = {
            "lr": lr,
            "warmup_steps": warmup_steps,
            "schedule": schedule,
            "min_lr_ratio": min_lr_ratio,
            "total_steps": total_steps,
        }
        self._step = 0

        base, self._tokenizer = load_for_training(
            model, tokenizer, weights="float32" if lora_rank == 0 else dtype, device=self._device
        )
        self._lora = lora_rank > 0
        self._reference_model = None
        if reference and not self._lora:
            self._reference_model = (
                cast_parameters(copy.deepcopy(base), self._dtype).requires_grad_(False).eval()
            )
        self._model = base
        if self._lora:
            targets = "all-linear" if list(lora_targets) == ["all-linear"] else lora_targets
            self._model = add_lora(
                base, rank=lora_rank, alpha=lora_alpha, dropout=lora_dropout, targets=targets, seed=seed
            )
        if gradient_checkpointing:
            base.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
        self._model.eval()
        amp = None if dtype == "float32" else self._dtype
        self._scorer = TokenScorer(self._model, amp)
        self._scorer.verify()
        self._reference_scorer = (
            TokenScorer(self._reference_model, amp) if self._reference_model is not None else None
        )
        self._trainable = {name: p for name, p in self._model.named_parameters() if p.requires_grad}
        self._optimizer = make_adamw(self._trainable.values(), lr=lr, betas=betas, weight_decay=weight_decay)

    @property
    def step(self) -> int:
        """Optimizer steps taken so far."""
        return self._step

    def update(self, rows: Sequence[Row], objective: Objective) -> dict[str, float]:
        """Train on the rows: `objective.epochs` passes, each cut by rollouts into `objective.minibatches` steps.

        Rows without completion are skipped; if none is left, no step is taken and only zeros come back.

        Returns:
            `loss`, `grad_norm` (before clipping), means over steps; `entropy`, `clip_fraction`, `ratio_mean`,
            `mismatch_kl`, `kl` (with a KL term), `tis_weight_mean`, `tis_capped` (with `tis_cap`), means over
            completion tokens in nats (see `losses.LossOutput`); `lr` of the last step; counts `steps`, `tokens`
            (through the model, without padding), `completion_tokens`; `padding_share`; `seconds`, `tokens_per_second`.

        Raises:
            UserError: loss or gradient is not finite, or memory ran out; the weights are as before that step.
            BadInput: rows lack what the objective needs, or a KL term without a reference.
        """
        import torch

        from memfactory.algorithms.rows import split_minibatches
        from memfactory.learners.microbatches import Tally, trainable_rows
        from memfactory.learners.settings import memory_advice

        started = time.perf_counter()
        rows = trainable_rows(rows, objective)
        tally = Tally()
        minibatches = split_minibatches([row.rollout_id for row in rows], objective.minibatches)
        several = objective.epochs * len(minibatches) > 1
        devices = [self._device] if self._device.type == "cuda" else []
        with memory_advice(), torch.random.fork_rng(devices):
            # Dropout depends on the step alone, not on who else draws from torch's generator.
            torch.manual_seed(derive_seed(self._seed, "update", self._step))
            old = self._score(rows) if objective.tis_cap is not None and several else None
            ref = self._score_reference(rows) if objective.kl_coef > 0 and rows else None
            self._model.train()
            try:
                for _ in range(objective.epochs if rows else 0):
                    for chosen in minibatches:
                        self._optimizer_step(
                            [rows[i] for i in chosen],
                            objective,
                            None if old is None else [old[i] for i in chosen],
                            None if ref is None else [ref[i] for i in chosen],
                            tally,
                        )
            finally:
                self._model.eval()

        metrics = tally.metrics()
        metrics["lr"] = self._optimizer.param_groups[0]["lr"]
        metrics["seconds"] = time.perf_counter() - started
        metrics["tokens_per_second"] = metrics["tokens"] / metrics["seconds"]
        return metrics

    def _optimizer_step(
        self,
        rows: Sequence[Row],
        objective: Objective,
        old: Sequence[torch.Tensor] | None,
        ref: Sequence[torch.Tensor] | None,
        tally: Tally,
    ) -> None:
        import torch

        from memfactory.learners.microbatches import micro_batches, micro_loss, minibatch_weights
        from memfactory.learners.optimizer import learning_rate

        loss = 0.0
        self._optimizer.zero_grad(set_to_none=True)
        weights = minibatch_weights(rows, objective)
        for micro in micro_batches(rows, weights, self._budget, self._device, old, ref):
            part = micro_loss(self._scorer, micro, objective)
            part.loss.backward()
            loss += float(part.loss.detach())
            tally.add(micro, part)
        norm = float(torch.nn.utils.clip_grad_norm_(self._trainable.values(), self._clip_norm))
        if not (math.isfinite(loss) and math.isfinite(norm)):
            self._optimizer.zero_grad(set_to_none=True)
            raise UserError(
                f"optimizer step {self._step + 1}: loss is {loss:.4g} and the gradient's norm {norm:.4g}, so the step "
                "was not taken and the weights are unchanged; lower learner.lr or resume from an earlier checkpoint"
            )
        for group in self._optimizer.param_groups:
            group["lr"] = learning_rate(self._step, **self._schedule)
        self._optimizer.step()
        self._optimizer.zero_grad(set_to_none=True)
        self._step += 1
        tally.losses.append(loss)
        tally.grad_norms.append(norm)

    def logprobs(self, rows: Sequence[Row]) -> list[list[float]]:
        """Log-probs (nats, temperature 1) of each row's completion tokens under the current weights, in order."""
        return [scores.tolist() for scores in self._score(rows)]

    def named_weights(self) -> Iterator[tuple[str, torch.Tensor]]:
        """Weights under Hugging Face names, adapters merged, in the type of computation (float32 or bfloat16).

        Tied weights come once, as `model.embed_tokens.weight`. Float32 tensors may share memory with the model:
        copy them before the next `update`.
        """
        from memfactory.learners.adapters import merged_weights

        for name, tensor in merged_weights(self._model):
            yield name, tensor.to(self._dtype) if tensor.is_floating_point() else tensor

    def save_policy(self, folder: Path) -> None:
        """Write the policy as a model folder that transformers and vLLM load. Raises `DiskError`."""
        from memfactory.learners.files import write_policy

        base = self._model.get_base_model() if self._lora else self._model
        write_policy(Path(folder), self.named_weights(), base, self._tokenizer, self._dtype)

    def save_state(self, folder: Path) -> None:
        """Write float32 weights (or adapters), optimizer and step, bit for bit. Raises `DiskError`."""
        from memfactory.learners.files import write_state

        facts = {"step": self._step, "lora": self._lora}
        write_state(Path(folder), self._trainable, self._optimizer, facts)

    def load_state(self, folder: Path) -> None:
        """Go on from `save_state`, in place. Raises `BadInput` (and changes nothing) if it does not fit."""
        from memfactory.learners.files import read_state

        self._step = int(read_state(Path(folder), self._trainable, self._optimizer)["step"])

    def _score(self, rows: Sequence[Row]) -> list[torch.Tensor]:
        from memfactory.learners.microbatches import score_rows

        return score_rows(self._scorer, rows, self._budget, self._device)

    def _score_reference(self, rows: Sequence[Row]) -> list[torch.Tensor]:
        from memfactory.learners.microbatches import score_rows

        if self._reference_scorer is not None:
            return score_rows(self._reference_scorer, rows, self._budget, self._device)
        if not self._lora:
            raise BadInput("kl_coef > 0 needs the reference model: build the learner with reference=True")
        with self._model.disable_adapter():
            return score_rows(self._scorer, rows, self._budget, self._device)
