"""TensorBoard: event files in the run folder; `tensorboard --logdir runs` shows them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any

from memfactory.core.bounds import Bounds
from memfactory.core.registry import register
from memfactory.training.trackers.base import TrackedRun, require_package


@dataclass(frozen=True)
class TensorBoardConfig:
    """Events go to `<run folder>/<folder>`; they are written out at least every `flush_seconds`."""

    folder: str = "tensorboard"
    flush_seconds: Annotated[int, Bounds(1, 86_400)] = 30


@register("tracker", "tensorboard", config=TensorBoardConfig)
class TensorBoardTracker:
    """Writes event files for TensorBoard into the run folder."""

    def __init__(self, folder: str, flush_seconds: int) -> None:
        require_package("tensorboard", "tensorboard")
        self.folder = folder
        self.flush_seconds = flush_seconds
        self._writer: Any = None

    def start(self, run: TrackedRun) -> None:
        """Open an event file. Steps after `run.step` of an earlier start are dropped: they are made again."""
        from torch.utils.tensorboard import SummaryWriter

        self._writer = SummaryWriter(
            str(run.folder / self.folder), purge_step=run.step + 1, flush_secs=self.flush_seconds
        )

    def log(self, record: Mapping[str, float]) -> None:
        """One scalar a key."""
        step = int(record["step"])
        for key, value in record.items():
            if key != "step":
                self._writer.add_scalar(key, value, step)

    def finish(self) -> None:
        """Close the event file."""
        self._writer.close()
