"""SwanLab: its cloud, or log files in the run folder."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from memfactory.core.registry import register
from memfactory.training.trackers.base import TrackedRun, require_package


@dataclass(frozen=True)
class SwanLabConfig:
    """As in `swanlab.init`. Keys come from `swanlab login` or SWANLAB_API_KEY; only `online` runs can be resumed."""

    project: str = "memfactory"
    workspace: str | None = None
    name: str | None = None
    group: str | None = None
    tags: tuple[str, ...] = ()
    mode: Literal["online", "local", "offline", "disabled"] = "online"


@register("tracker", "swanlab", config=SwanLabConfig)
class SwanLabTracker:
    """Logs to SwanLab, online or to files."""

    def __init__(
        self,
        project: str,
        workspace: str | None,
        name: str | None,
        group: str | None,
        tags: tuple[str, ...],
        mode: Literal["online", "local", "offline", "disabled"],
    ) -> None:
        require_package("swanlab", "swanlab")
        self.project = project
        self.workspace = workspace
        self.name = name
        self.group = group
        self.tags = tags
        self.mode = mode
        self._run: Any = None

    def start(self, run: TrackedRun) -> None:
        """Open the run; online it is resumed under its id."""
        import swanlab

        again = {"id": run.id, "resume": "allow"} if self.mode == "online" else {}
        self._run = swanlab.init(
            project=self.project,
            workspace=self.workspace,
            name=self.name or run.name,
            group=self.group,
            tags=list(self.tags),
            config=dict(run.recipe),
            log_dir=str(run.folder / "swanlog"),
            mode=self.mode,
            **again,
        )

    def log(self, record: Mapping[str, float]) -> None:
        """One point a key, at `record["step"]`."""
        self._run.log({k: v for k, v in record.items() if k != "step"}, step=int(record["step"]))

    def finish(self) -> None:
        """Hand over what is left."""
        self._run.finish()
