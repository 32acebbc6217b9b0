"""Weights & Biases. Offline runs are written to the run folder; `wandb sync` uploads them later."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from memfactory.core.registry import register
from memfactory.training.trackers.base import TrackedRun, require_package


@dataclass(frozen=True)
class WandbConfig:
    """As in `wandb.init`. `name` is the run folder's unless given. Keys come from `wandb login` or WANDB_API_KEY."""

    project: str = "memfactory"
    entity: str | None = None
    name: str | None = None
    group: str | None = None
    tags: tuple[str, ...] = ()
    mode: Literal["online", "offline", "disabled"] = "online"


@register("tracker", "wandb", config=WandbConfig)
class WandbTracker:
    """Logs to Weights & Biases, online or offline."""

    def __init__(
        self,
        project: str,
        entity: str | None,
        name: str | None,
        group: str | None,
        tags: tuple[str, ...],
        mode: Literal["online", "offline", "disabled"],
    ) -> None:
        require_package("wandb", "wandb")
        self.project = project
        self.entity = entity
        self.name = name
        self.group = group
        self.tags = tags
        self.mode = mode
        self._run: Any = None

    def start(self, run: TrackedRun) -> None:
        """Open or resume the run under its id. Figures have our step as their axis: wandb's own may not go back."""
        import wandb

        self._run = wandb.init(
            project=self.project,
            entity=self.entity,
            id=run.id,
            name=self.name or run.name,
            group=self.group,
            tags=list(self.tags),
            config=dict(run.recipe),
            dir=str(run.folder),
            mode=self.mode,
            resume="allow",
        )
        self._run.define_metric("step")
        self._run.define_metric("*", step_metric="step")

    def log(self, record: Mapping[str, float]) -> None:
        """One point a key, at `record["step"]`."""
        self._run.log(dict(record))

    def finish(self) -> None:
        """Upload what is left."""
        self._run.finish()
