"""Trackio: experiment tracking kept on this machine, or in a Space of Hugging Face."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from memfactory.core.registry import register
from memfactory.training.trackers.base import TrackedRun, require_package


@dataclass(frozen=True)
class TrackioConfig:
    """As in `trackio.init`. Runs stay on this machine unless `space_id` names a Space."""

    project: str = "memfactory"
    name: str | None = None
    group: str | None = None
    space_id: str | None = None


@register("tracker", "trackio", config=TrackioConfig)
class TrackioTracker:
    """Logs to Trackio, on this machine or in a Space."""

    def __init__(self, project: str, name: str | None, group: str | None, space_id: str | None) -> None:
        require_package("trackio", "trackio")
        self.project = project
        self.name = name
        self.group = group
        self.space_id = space_id
        self._run: Any = None

    def start(self, run: TrackedRun) -> None:
        """Open or resume the run. Trackio knows runs by name, so the id is part of it."""
        import trackio

        self._run = trackio.init(
            project=self.project,
            name=f"{self.name or run.name}-{run.id}",
            group=self.group,
            space_id=self.space_id,
            config=dict(run.recipe),
            resume="allow",
            embed=False,
        )

    def log(self, record: Mapping[str, float]) -> None:
        """One point a key, at `record["step"]`."""
        self._run.log({k: v for k, v in record.items() if k != "step"}, step=int(record["step"]))

    def finish(self) -> None:
        """Hand over what is left."""
        self._run.finish()
