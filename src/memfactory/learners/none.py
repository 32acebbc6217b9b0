"""No learner for the policy: for recipes that train a part of the agent only, such as a reranker."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from memfactory.core.errors import BadInput
from memfactory.core.files import write_json
from memfactory.core.registry import register
from memfactory.core.types import Row

if TYPE_CHECKING:
    import torch

    from memfactory.algorithms.objective import Objective


@dataclass(frozen=True)
class NoLearnerConfig:
    """No settings."""


@register("learner", "none", config=NoLearnerConfig)
class NoLearner:
    """Leaves the policy as it is: rows are not used, and no weights are copied into checkpoints."""

    def __init__(self, model: Path) -> None:
        self._model = model

    def update(
        self, rows: Sequence[Row], objective: Objective, planned: int | None = None
    ) -> dict[str, float]:
        """Nothing: what learns has a learner of its own."""
        return {}

    def logprobs(self, rows: Sequence[Row], temperature: float = 1.0) -> list[list[float]]:
        """Raises `BadInput`: there are no weights here to compare with."""
        raise BadInput("learner 'none' holds no weights; use learner=local to train the policy")

    def named_weights(self) -> Iterator[tuple[str, torch.Tensor]]:
        """None."""
        return iter(())

    def save_policy(self, folder: Path) -> None:
        """Note which model folder the unchanged policy is."""
        folder.mkdir(parents=True, exist_ok=True)
        write_json(folder / "policy.json", {"unchanged": str(self._model)})

    def save_state(self, folder: Path) -> None:
        """Nothing to go on from."""
        folder.mkdir(parents=True, exist_ok=True)

    def load_state(self, folder: Path) -> None:
        """Nothing to go on from."""
