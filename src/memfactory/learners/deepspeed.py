"""DeepSpeed ZeRO: the policy, its gradients and its optimizer sharded over ranks; full fine-tuning or LoRA."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from memfactory.core.errors import BadInput
from memfactory.core.ranks import ALONE, Ranks
from memfactory.core.registry import register
from memfactory.learners.local import Attention, LocalLearnerConfig, Precision, Quantization, Schedule
from memfactory.learners.policy import PolicyLearner

if TYPE_CHECKING:
    import torch


ZeroStage = Literal[0, 1, 2, 3]


@dataclass(frozen=True)
class DeepSpeedLearnerConfig(LocalLearnerConfig):
    """Fields of the `deepspeed` learner: those of `local`, and how the work is sharded.

    zero_stage: 0 copies everything to every rank, 1 shards the optimizer, 2 the gradients too, 3 the weights too.
    offload_optimizer, offload_param: keep the optimizer (stages 1 to 3) or the weights (stage 3) in the host's
    memory. config_file: a DeepSpeed JSON of your own in place of the generated one; its "auto" values are filled
    in. dtype bfloat16 trains bfloat16 weights with float32 master weights. device: auto is the GPU of the rank.
    """

    zero_stage: ZeroStage = 2
    offload_optimizer: bool = False
    offload_param: bool = False
    config_file: str | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.quantization and self.zero_stage == 3:
            raise BadInput(
                "learner.quantization cannot be sharded: use learner.zero_stage 0, 1 or 2 with it (the frozen "
                "weights are small, and every rank holds them)"
            )
        if self.config_file is None:
            _zero_config(self, ALONE)  # refuses what does not go together


@register("learner", "deepspeed", config=DeepSpeedLearnerConfig)
class DeepSpeedLearner(PolicyLearner):
    """DeepSpeed ZeRO stages 0 to 3 on one or several ranks, CPU or GPUs, full fine-tuning or LoRA.

    Takes what `LocalLearner` takes and `ranks`, and gives the same weights: rows are dealt to ranks by tokens, the
    loss is divided by what the whole minibatch counts, and all ranks run the same number of micro-batches. Its
    saved state is that of `LocalLearner`, whatever the number of ranks. ZeRO: Rajbhandari et al. 2020,
    arXiv 1910.02054; offloading: Ren et al. 2021, arXiv 2101.06840. Run on one GPU; several: not run on GPUs.

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
        ranks: Ranks = ALONE,
        lr: float = 1e-6,
        betas: Sequence[float] = (0.9, 0.999),
        weight_decay: float = 0.0,
        warmup_steps: int = 0,
        schedule: Schedule = "constant",
        min_lr_ratio: float = 0.0,
        clip_norm: float = 1.0,
        micro_batch_tokens: int = 8192,
        gradient_checkpointing: bool = False,
        dtype: Precision = "float32",
        device: str = "auto",
        lora_rank: int = 0,
        lora_alpha: int = 16,
        lora_dropout: float = 0.0,
        lora_targets: Sequence[str] = ("all-linear",),
        quantization: Quantization | None = None,
        attention: Attention = "sdpa",
        packing: bool = False,
        liger: bool = False,
        zero_stage: ZeroStage = 2,
        offload_optimizer: bool = False,
        offload_param: bool = False,
        config_file: str | None = None,
    ) -> None:
        import torch

        from memfactory.learners.deepspeed_engine import ScoringModule, start_engine
        from memfactory.learners.loading import load_for_training
        from memfactory.learners.optimizer import make_adamw
        from memfactory.learners.scoring import TokenScorer
        from memfactory.learners.settings import pick_device

        config = DeepSpeedLearnerConfig(
            lr=lr,
            betas=list(betas),
            weight_decay=weight_decay,
            warmup_steps=warmup_steps,
            schedule=schedule,
            min_lr_ratio=min_lr_ratio,
            clip_norm=clip_norm,
            micro_batch_tokens=micro_batch_tokens,
            gradient_checkpointing=gradient_checkpointing,
            dtype=dtype,
            device=device,
            lora_rank=lora_rank,
            lora_alpha=lora_alpha,
            lora_dropout=lora_dropout,
            lora_targets=list(lora_targets),
            quantization=quantization,
            attention=attention,
            packing=packing,
            liger=liger,
            zero_stage=zero_stage,
            offload_optimizer=offload_optimizer,
            offload_param=offload_param,
            config_file=config_file,
        )
        # Before the model is loaded: a wrong setting shows at once.
        zero = _zero_config(config, ranks)
        sharded = zero["zero_optimization"]["stage"] == 3
        # The whole model need never lie on the device. Kernels that are tried at the start do need it there.
        host = torch.device("cpu") if sharded and attention != "flash_attention_2" and not liger else None
        later = reference and sharded and lora_rank == 0 and isinstance(model, str | Path)
        super().__init__(
            model=model,
            tokenizer=tokenizer,
            total_steps=total_steps,
            seed=seed,
            reference=reference and not later,
            config=config,
            ranks=ranks,
            device=pick_device(device, ranks.local_rank),
            weights=dtype,
            autocast=False,
            place=host,
        )
        ranks.ensure_process_group()
        optimizer = make_adamw(self._trainable.values(), lr=lr, betas=betas, weight_decay=weight_decay)
        assert isinstance(self._scorer, TokenScorer)
        self._engine = start_engine(ScoringModule(self._model, self._scorer), optimizer, zero)
        self._scorer = self._engine
        if later:  # now that the host's memory has no whole policy any more
            initial, _ = load_for_training(
                model, self._tokenizer, config=config, weights=dtype, device=host or self._device
            )
            self._reference_model = self._as_reference(initial)
            self._reference_scorer = TokenScorer(self._reference_model, None)
        if self._reference_scorer is not None and sharded:
            assert self._reference_model is not None
            assert isinstance(self._reference_scorer, TokenScorer)
            module = ScoringModule(self._reference_model, self._reference_scorer)
            self._reference_scorer = start_engine(module, None, zero)

    def _begin_step(self) -> None:
        """The engine forgets its gradients itself, after each step."""

    def _backward(self, loss: torch.Tensor, last: bool) -> None:
        self._engine.set_gradient_accumulation_boundary(last)
        # The engine takes the mean over ranks; our weights already divide by the whole, so the sum is wanted.
        self._engine.backward(loss * self._ranks.world)

    def _take_step(self, loss: float, lr: float) -> float:
        from memfactory.learners.deepspeed_engine import step_engine

        if not math.isfinite(loss):
            raise self._not_finite(loss, math.nan, "lower learner.lr or resume from an earlier checkpoint")
        norm = step_engine(self._engine, lr)
        if not math.isfinite(norm):
            raise self._not_finite(loss, norm, "lower learner.lr or resume from an earlier checkpoint")
        return norm

    def _current_lr(self) -> float:
        return float(self._engine.optimizer.param_groups[0]["lr"])

    def _gathered(self, parameters: Sequence[torch.Tensor]) -> AbstractContextManager[Any]:
        from memfactory.learners.deepspeed_engine import gathered

        return gathered(parameters)

    def _own_weights(self) -> list[torch.Tensor]:
        from memfactory.learners.deepspeed_engine import own_part

        return [own_part(parameter, self._ranks.rank) for parameter in self._trainable.values()]

    def _exact_weights(self) -> Iterator[tuple[str, torch.Tensor]]:
        from memfactory.learners.deepspeed_engine import full_weights

        for name, parameter in self._trainable.items():
            yield from full_weights({name: parameter}, keep=self._ranks.first).items()

    def save_state(self, folder: Path) -> None:
        """Write float32 weights (or adapters), optimizer and step as full tensors, on rank 0. Raises `DiskError`."""
        from memfactory.learners.deepspeed_engine import full_moments, full_weights
        from memfactory.learners.files import write_state

        first = self._ranks.first
        weights = full_weights(self._trainable, keep=first)
        moments = full_moments(self._engine, self._trainable, self._step, keep=first)
        if first:
            write_state(Path(folder), weights, moments, {"step": self._step, "lora": self._lora})

    def load_state(self, folder: Path) -> None:
        """Go on from `save_state` of this learner or of `local`. Raises `BadInput` if it does not fit.

        Every rank reads the folder.
        """
        from memfactory.learners.deepspeed_engine import full_shape, put_state
        from memfactory.learners.files import read_state

        saved = read_state(Path(folder), {name: full_shape(p) for name, p in self._trainable.items()})
        put_state(self._engine, self._trainable, saved.weights, saved.moments)
        self._step = saved.step


def _zero_config(config: DeepSpeedLearnerConfig, ranks: Ranks) -> dict[str, Any]:
    from memfactory.learners.deepspeed_config import generate, read_file

    generated = generate(
        zero_stage=config.zero_stage,
        offload_optimizer=config.offload_optimizer,
        offload_param=config.offload_param,
        dtype=config.dtype,
        clip_norm=config.clip_norm,
        world=ranks.world,
    )
    return generated if config.config_file is None else read_file(Path(config.config_file), generated)
