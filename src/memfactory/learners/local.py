"""The plain learner: torch alone, one process, a CPU or one GPU; full fine-tuning or LoRA."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from memfactory.core.bounds import AtLeastOne, Bounds, Count, Device, NotNegative, Share
from memfactory.core.errors import BadInput
from memfactory.core.ranks import ALONE
from memfactory.core.registry import register
from memfactory.learners.policy import PolicyLearner

if TYPE_CHECKING:
    import torch


#: Attention implementations of transformers that keep packed rows apart.
Attention = Literal["sdpa", "eager", "flash_attention_2"]
Schedule = Literal["constant", "linear", "cosine"]
Precision = Literal["float32", "bfloat16"]
Quantization = Literal["nf4"]


@dataclass(frozen=True)
class LocalLearnerConfig:
    """Fields of the `local` learner.

    lr: peak learning rate of AdamW. betas: its decay rates of moments. weight_decay: on matrices only.
    warmup_steps: optimizer steps of the plan over which lr rises from 0. schedule: constant, linear or cosine, after
    that. min_lr_ratio: what a falling schedule ends at, as a share of lr.
    clip_norm: largest norm of the gradient; 0 for no limit.
    micro_batch_tokens: most tokens (with padding) in one forward pass; memory grows with it, the result does not
    change. gradient_checkpointing: trade a second forward pass for memory. dtype: float32, or bfloat16 for
    autocast with float32 master weights. device: auto, cpu, cuda or cuda:N.
    lora_rank: 0 trains all weights; lora_alpha, lora_dropout, lora_targets (layer names; all-linear): as in peft.
    quantization: nf4 keeps the frozen weights under LoRA in 4 bits (QLoRA, the extra `qlora`).
    attention: sdpa, eager, or flash_attention_2 (GPU, bfloat16). packing: rows of a micro-batch one after the other
    in one sequence instead of padded; for flash_attention_2. liger: liger's kernels for norms, rotary embedding and
    gated layers (GPU, the extra `liger`). flash_attention_2: not run on a GPU.
    """

    lr: Annotated[float, Bounds(0, 1)] = 1e-6
    betas: list[Annotated[float, Bounds(0, below=1)]] = field(default_factory=lambda: [0.9, 0.999])
    weight_decay: NotNegative = 0.0
    warmup_steps: Count = 0
    schedule: Schedule = "constant"
    min_lr_ratio: Share = 0.0
    clip_norm: NotNegative = 1.0
    micro_batch_tokens: AtLeastOne = 8192
    gradient_checkpointing: bool = False
    dtype: Precision = "float32"
    device: Device = "auto"
    lora_rank: Annotated[int, Bounds(0, 65_536)] = 0
    lora_alpha: AtLeastOne = 16
    lora_dropout: Annotated[float, Bounds(0, below=1)] = 0.0
    lora_targets: list[str] = field(default_factory=lambda: ["all-linear"])
    quantization: Quantization | None = None
    attention: Attention = "sdpa"
    packing: bool = False
    liger: bool = False

    def __post_init__(self) -> None:
        if len(self.betas) != 2:
            raise ValueError(f"betas must be two numbers, not {len(self.betas)}")
        if self.quantization and not self.lora_rank:
            raise BadInput(
                "learner.quantization needs adapters to train: set learner.lora_rank (or learner=local_lora)"
            )


@register("learner", "local", config=LocalLearnerConfig)
class LocalLearner(PolicyLearner):
    """Plain torch in this process: CPU or one GPU, full fine-tuning or LoRA.

    Beside the fields of `LocalLearnerConfig` it takes what the recipe layer provides: `model` (a loaded Hugging
    Face causal LM or its folder), `tokenizer` (only saved beside the weights; read from the folder if there is
    one), `total_steps` (optimizer steps planned for the whole run, for falling schedules), `seed` (LoRA's initial
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
    ) -> None:
        from memfactory.learners.optimizer import make_adamw
        from memfactory.learners.settings import pick_device

        config = LocalLearnerConfig(
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
        )
        super().__init__(
            model=model,
            tokenizer=tokenizer,
            total_steps=total_steps,
            seed=seed,
            reference=reference,
            config=config,
            ranks=ALONE,
            device=pick_device(device),
            weights="float32",
            autocast=dtype != "float32",
        )
        self._optimizer = make_adamw(self._trainable.values(), lr=lr, betas=betas, weight_decay=weight_decay)

    def _begin_step(self) -> None:
        self._optimizer.zero_grad(set_to_none=True)

    def _backward(self, loss: torch.Tensor, last: bool) -> None:
        loss.backward()  # type: ignore[no-untyped-call]

    def _take_step(self, loss: float, lr: float) -> float:
        import torch

        norm = float(torch.nn.utils.clip_grad_norm_(self._trainable.values(), self._clip_norm))
        if not (math.isfinite(loss) and math.isfinite(norm)):
            self._optimizer.zero_grad(set_to_none=True)
            raise self._not_finite(
                loss, norm, "the weights are unchanged; lower learner.lr or resume from an earlier checkpoint"
            )
        for group in self._optimizer.param_groups:
            group["lr"] = lr
        self._optimizer.step()
        self._optimizer.zero_grad(set_to_none=True)
        return norm

    def _current_lr(self) -> float:
        return float(self._optimizer.param_groups[0]["lr"])

    def save_state(self, folder: Path) -> None:
        """Write float32 weights (or adapters), optimizer and step, bit for bit. Raises `DiskError`."""
        from memfactory.learners.files import write_state

        facts = {"step": self._step, "lora": self._lora}
        write_state(Path(folder), self._trainable, self._optimizer.state_dict()["state"], facts)

    def load_state(self, folder: Path) -> None:
        """Go on from `save_state`, in place. Raises `BadInput` (and changes nothing) if it does not fit."""
        import torch

        from memfactory.learners.files import read_state

        saved = read_state(Path(folder), {name: tuple(p.shape) for name, p in self._trainable.items()})
        with torch.no_grad():
            for name, parameter in self._trainable.items():
                parameter.copy_(saved.weights[name])
        groups = self._optimizer.state_dict()["param_groups"]
        self._optimizer.load_state_dict({"state": saved.moments, "param_groups": groups})
        self._step = saved.step
