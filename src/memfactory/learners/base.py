"""What a learner is: it owns the trainable weights and turns rows into optimizer steps."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from memfactory.core.types import Row

if TYPE_CHECKING:
    import torch

    from memfactory.algorithms.objective import Objective
    from memfactory.learners.adapters import Adapter


class Learner(Protocol):
    """Owns policy weights, optimizer and schedule."""

    def update(
        self, rows: Sequence[Row], objective: Objective, planned: int | None = None
    ) -> dict[str, float]:
        """Run epochs x minibatches of optimizer steps on the rows; return metrics.

        `planned` is how many optimizer steps the plan of the run has before these: the clock of the learning rate.
        Steps that had no rows have their place in it (None: the clock is the number of steps taken).
        The loss denominator is taken over the whole minibatch, however it is cut into micro-batches.
        """
        ...

    def logprobs(self, rows: Sequence[Row], temperature: float = 1.0) -> list[list[float]]:
        """Log-probabilities of each row's completion tokens under softmax(logits / temperature), in order."""
        ...

    def named_weights(self) -> Iterator[tuple[str, torch.Tensor]]:
        """Full tensors under Hugging Face names (adapters merged), as a sampler loads them."""
        ...

    def adapter(self) -> Adapter:
        """The LoRA adapters alone, as full tensors. Raises `BadInput` if it trains none, or rounds the base."""
        ...

    def save_policy(self, folder: Path) -> None:
        """Write the policy as an ordinary model folder (weights, config, tokenizer)."""
        ...

    def save_state(self, folder: Path) -> None:
        """Write everything `load_state` needs to go on bit for bit (weights, optimizer, schedule)."""
        ...

    def load_state(self, folder: Path) -> None:
        """Go on from what `save_state` wrote. Raises `BadInput` if it does not fit this model."""
        ...
