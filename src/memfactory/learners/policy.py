"""What learners of a policy share: model, adapters and reference, the update loop, scoring, and the saved folder.

A learner built on this adds how a loss goes backward, how an optimizer step is taken, and how its state is saved.
Under several ranks every method is called on all of them, in the same order. `update` gets the same rows on each
rank and deals them out; the rows of `logprobs` may differ.
"""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

from memfactory.core.errors import BadInput, UserError
from memfactory.core.ranks import Ranks
from memfactory.core.seeding import derive_seed
from memfactory.core.types import Row

if TYPE_CHECKING:
    import torch

    from memfactory.algorithms.objective import Objective
    from memfactory.learners.adapters import Adapter
    from memfactory.learners.local import LocalLearnerConfig
    from memfactory.learners.microbatches import Scorer, Tally
    from memfactory.learners.rounding import Rounding


class PolicyLearner:
    """The part of a learner that does not depend on what takes the optimizer step.

    After construction `_model` (with adapters), `_scorer`, `_reference_scorer` (None without a reference model)
    and `_trainable` (name → parameter) are there to build on.

    Args:
        model, tokenizer, total_steps, seed, reference: see `LocalLearner`.
        config: the fields of the recipe.
        ranks: the processes that share the work.
        device: where the model computes.
        place: where it is loaded, if that is another device: whoever shards it moves it piece by piece.
        weights: type of the weights of full fine-tuning; adapters stand on weights of `config.dtype`.
        autocast: compute in `config.dtype` on weights of another type.

    Raises `BadInput` for impossible settings or a model that it cannot train.
    """

    def __init__(
        self,
        *,
        model: Any,
        tokenizer: Any,
        total_steps: int | None,
        seed: int,
        reference: bool,
        config: LocalLearnerConfig,
        ranks: Ranks,
        device: torch.device,
        weights: str,
        autocast: bool,
        place: torch.device | None = None,
    ) -> None:
        from memfactory.learners.adapters import add_lora
        from memfactory.learners.loading import load_for_training
        from memfactory.learners.scoring import TokenScorer
        from memfactory.learners.settings import check_settings, compute_dtype

        check_settings(
            lr=config.lr,
            betas=config.betas,
            schedule=config.schedule,
            total_steps=total_steps,
            micro_batch_tokens=config.micro_batch_tokens,
        )
        self._ranks = ranks
        self._loaded = compute_dtype(config.dtype if config.lora_rank > 0 else weights)
        self._folder = Path(model) if isinstance(model, str | Path) else None
        self._device = device
        self._dtype = compute_dtype(config.dtype)
        self._seed = seed
        self._config = config
        self._budget = config.micro_batch_tokens
        self._packed = config.packing
        self._clip_norm = config.clip_norm if config.clip_norm > 0 else math.inf
        self._schedule: dict[str, Any] = {
            "lr": config.lr,
            "warmup_steps": config.warmup_steps,
            "schedule": config.schedule,
            "min_lr_ratio": config.min_lr_ratio,
            "total_steps": total_steps,
        }
        self._step = 0

        self._lora = config.lora_rank > 0
        base, self._tokenizer = load_for_training(
            model,
            tokenizer,
            config=config,
            weights=config.dtype if self._lora else weights,
            device=place or device,
        )
        self._reference_model = None
        if reference and not self._lora:
            self._reference_model = self._as_reference(copy.deepcopy(base))
        self._model = base
        if self._lora:
            all_linear = list(config.lora_targets) == ["all-linear"]
            self._model = add_lora(
                base,
                rank=config.lora_rank,
                alpha=config.lora_alpha,
                dropout=config.lora_dropout,
                targets="all-linear" if all_linear else config.lora_targets,
                seed=seed,
            )
        if config.gradient_checkpointing:
            base.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
        self._model.eval()
        amp = self._dtype if autocast else None
        verified = TokenScorer(self._model, amp)
        verified.verify(packed=self._packed)
        self._scorer: Scorer = verified
        self._reference_scorer: Scorer | None = (
            TokenScorer(self._reference_model, amp) if self._reference_model is not None else None
        )
        self._trainable = {name: p for name, p in self._model.named_parameters() if p.requires_grad}

    def _as_reference(self, model: Any) -> Any:
        """The initial policy as a KL term needs it: in the type of computation, and never trained."""
        from memfactory.learners.loading import cast_parameters

        return cast_parameters(model, self._dtype).requires_grad_(False).eval()

    @property
    def step(self) -> int:
        """Optimizer steps taken so far."""
        return self._step

    def update(
        self, rows: Sequence[Row], objective: Objective, planned: int | None = None
    ) -> dict[str, float]:
        """Train on the rows: `objective.epochs` passes, each cut by rollouts into `objective.minibatches` steps.

        Rows without completion are skipped; if none is left, no step is taken and only zeros come back. Under
        several ranks, all of them pass the same rows, and figures are of the whole. The learning rate is that of the
        optimizer steps from number `planned` of the run's plan on (None: from the number of those taken).

        Returns:
            `loss`, `grad_norm` (before clipping), means over steps; `entropy`, `clip_fraction`, `ratio_mean`,
            `mismatch_kl`, `kl` (with a KL term), `tis_weight_mean`, `tis_capped` (with `tis_cap`), means over
            completion tokens in nats (see `losses.LossOutput`); `lr` of the last step; counts `steps`, `tokens`
            (through the model, without padding), `completion_tokens`; `padding_share`; `seconds`, `tokens_per_second`.

        Raises:
            UserError: loss, gradient or a new weight is not finite, or memory ran out.
            BadInput: rows lack what the objective needs, or a KL term without a reference.
        """
        import torch

        from memfactory.algorithms.rows import split_minibatches
        from memfactory.learners.balance import share_minibatch
        from memfactory.learners.microbatches import Tally, micro_batches, trainable_rows
        from memfactory.learners.optimizer import learning_rate
        from memfactory.learners.settings import memory_advice

        started = time.perf_counter()
        ranks = self._ranks
        planned = self._step if planned is None else planned
        rows = trainable_rows(rows, objective)
        tally = Tally()
        shares = [
            share_minibatch(rows, chosen, objective, self._budget, ranks.rank, ranks.world, self._packed)
            for chosen in split_minibatches([row.rollout_id for row in rows], objective.minibatches)
        ]
        several = objective.epochs * len(shares) > 1
        devices = [self._device] if self._device.type == "cuda" else []
        with memory_advice(), torch.random.fork_rng(devices):
            # Dropout depends on step and rank alone, not on who else draws from torch's generator.
            own = () if ranks.first else (ranks.rank,)
            torch.manual_seed(derive_seed(self._seed, "update", self._step, *own))
            mine = sorted(i for share in shares for i in share.rows)
            old, ref = None, None
            if objective.tis_cap is not None and several:
                old = dict(
                    zip(mine, self._score([rows[i] for i in mine], objective.temperature), strict=True)
                )
            if objective.kl_coef > 0 and rows:
                theirs = self._score_reference([rows[i] for i in mine], objective.temperature)
                ref = dict(zip(mine, theirs, strict=True))
            self._model.train()
            try:
                for _ in range(objective.epochs if rows else 0):
                    for share in shares:
                        micros = micro_batches(
                            [rows[i] for i in share.rows],
                            share.weights,
                            self._budget,
                            self._device,
                            None if old is None else [old[i] for i in share.rows],
                            None if ref is None else [ref[i] for i in share.rows],
                            share.steps,
                            self._packed,
                        )
                        rate = learning_rate(planned + len(tally.losses), **self._schedule)
                        self._optimizer_step(micros, share.steps, objective, rate, tally)
            finally:
                self._model.eval()

        if tally.losses and not all(ranks.gather(self._all_finite())):
            raise UserError(
                f"optimizer step {self._step}: weights are no longer finite after it (lr {self._current_lr():.3g}, "
                "gradient's norm "
                f"{tally.grad_norms[-1]:.3g}), so nothing is saved of it; lower learner.lr or learner.clip_norm and go "
                "on from the last checkpoint"
            )
        metrics = Tally.of_all(ranks.gather(tally)).metrics()
        metrics["lr"] = self._current_lr()
        metrics["seconds"] = time.perf_counter() - started
        metrics["tokens_per_second"] = metrics["tokens"] / metrics["seconds"]
        return metrics

    def _all_finite(self) -> bool:
        """Whether all trainable weights of this rank are finite."""
        import torch

        return bool(torch.stack([torch.isfinite(part).all().cpu() for part in self._own_weights()]).all())

    def _own_weights(self) -> list[torch.Tensor]:
        """The trainable weights, or what this rank holds of them."""
        return [parameter.detach() for parameter in self._trainable.values()]

    def _optimizer_step(
        self, micros: Iterator[Any], count: int, objective: Objective, lr: float, tally: Tally
    ) -> None:
        from memfactory.learners.microbatches import micro_loss

        loss = 0.0
        self._begin_step()
        for number, micro in enumerate(micros, start=1):
            part = micro_loss(self._scorer, micro, objective)
            self._backward(part.loss, last=number == count)
            loss += float(part.loss.detach())
            tally.add(micro, part)
        loss = sum(self._ranks.gather(loss))
        norm = self._take_step(loss, lr)
        self._step += 1
        tally.losses.append(loss)
        tally.grad_norms.append(norm)

    def _not_finite(self, loss: float, norm: float, remedy: str) -> UserError:
        return UserError(
            f"optimizer step {self._step + 1}: loss is {loss:.4g} and the gradient's norm {norm:.4g}, so the step "
            f"was not taken and {remedy}"
        )

    def _begin_step(self) -> None:
        """Forget gradients that may be left."""
        raise NotImplementedError

    def _backward(self, loss: torch.Tensor, last: bool) -> None:
        """Add this micro-batch's gradient; `last` of the step."""
        raise NotImplementedError

    def _take_step(self, loss: float, lr: float) -> float:
        """Clip, step, forget the gradient; returns its norm before clipping. Raises `UserError` if not finite."""
        raise NotImplementedError

    def _current_lr(self) -> float:
        """Learning rate of the last step."""
        raise NotImplementedError

    def _gathered(self, parameters: Sequence[torch.Tensor]) -> AbstractContextManager[Any]:
        """While active, these parameters are whole on this rank."""
        return nullcontext()

    def logprobs(self, rows: Sequence[Row], temperature: float = 1.0) -> list[list[float]]:
        """Log-probs (nats) of each row's completion tokens under the current weights, in order."""
        return [scores.tolist() for scores in self._score(rows, temperature)]

    def named_weights(self) -> Iterator[tuple[str, torch.Tensor]]:
        """Weights under Hugging Face names, adapters merged, in the type of computation (float32 or bfloat16).

        Tied weights come once, as `model.embed_tokens.weight`. Float32 tensors may share memory with the model:
        copy them before the next `update`.
        """
        from memfactory.learners.adapters import merged_weights

        for name, tensor in merged_weights(self._model, self._gathered):
            yield name, tensor.to(self._dtype) if tensor.is_floating_point() else tensor

    def base_weights(self) -> Iterator[tuple[str, torch.Tensor]]:
        """As `named_weights`, without the adapters: what a sampler that takes adapters must have of its own."""
        from memfactory.learners.adapters import merged_weights

        for name, tensor in merged_weights(self._model, self._gathered, merge=False):
            yield name, tensor.to(self._dtype) if tensor.is_floating_point() else tensor

    def adapter(self) -> Adapter:
        """The adapters alone, as full tensors in the type of computation.

        Raises `BadInput` if there are none, or if the base they stand on is not the model's own (quantized).
        """
        from memfactory.learners.adapters import Adapter

        config = self._config
        if not self._lora or config.quantization is not None:
            raise BadInput(
                "sampler.adapter_sync needs adapters on the model's own weights: set learner.lora_rank and leave "
                "learner.quantization out"
            )
        tensors = {}
        for name, parameter in self._trainable.items():
            with self._gathered([parameter]):
                tensors[name] = parameter.detach().to(self._dtype, copy=True)
        return Adapter(config.lora_rank, config.lora_alpha, config.lora_dropout, config.lora_targets, tensors)

    def save_policy(self, folder: Path) -> None:
        """Write the policy as a model folder that transformers and vLLM load. Raises `DiskError`."""
        from memfactory.learners.files import write_policy

        if not self._ranks.first:
            for _ in self.named_weights():  # takes part in gathering them
                pass
            return
        base = self._model.get_base_model() if self._lora else self._model
        write_policy(Path(folder), self.named_weights(), base, self._tokenizer, self._dtype)

    def rounding(self, dtype: str) -> Rounding | None:
        """What of the change since the run began is lost in weights of this type, such as those of `save_policy`.

        The weights it began with are those below the adapters, or in the model's folder. None without either, or if
        nothing has changed. All ranks call it; the first one has the figures, the others None.
        """
        import torch

        from memfactory.learners.adapters import adapted_weights
        from memfactory.learners.rounding import rounding

        adapted, whole = adapted_weights, self._changed_since
        changes = adapted(self._model, self._gathered) if self._lora else whole(self._folder)
        if self._ranks.first:
            return rounding(changes, getattr(torch, dtype))
        for _ in changes:  # takes part in gathering them
            pass
        return None

    def _changed_since(self, folder: Path | None) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        """(weight in the folder, weight now) of all trained weights whose names are the folder's, in float32."""
        from memfactory.models.weight_files import WeightFiles

        known = None if folder is None else WeightFiles(folder, "model.path")
        for name, now in self._exact_weights():
            before = None if known is None else known.get(name)
            if before is not None and before.shape == now.shape:
                yield before.to(self._loaded).float(), now.cpu()

    def _exact_weights(self) -> Iterator[tuple[str, torch.Tensor]]:
        """The trained weights in float32, as the optimizer has them."""
        yield from self._trainable.items()

    def _agree(self, steps: int) -> int:
        """The largest of all ranks' numbers of forward passes: a sharded model needs all ranks in each."""
        return max(self._ranks.gather(steps))

    def _score(
        self, rows: Sequence[Row], temperature: float, scorer: Scorer | None = None
    ) -> list[torch.Tensor]:
        from memfactory.learners.microbatches import score_rows

        return score_rows(
            scorer or self._scorer, rows, self._budget, self._device, self._agree, self._packed, temperature
        )

    def _score_reference(self, rows: Sequence[Row], temperature: float) -> list[torch.Tensor]:
        if self._reference_scorer is not None:
            return self._score(rows, temperature, self._reference_scorer)
        if not self._lora:
            raise BadInput("kl_coef > 0 needs the reference model: build the learner with reference=True")
        with self._model.disable_adapter():
            return self._score(rows, temperature)
