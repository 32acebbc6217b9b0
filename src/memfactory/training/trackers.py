"""Where metrics go besides metrics.jsonl (which is always written)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from memfactory.core.registry import register


class Tracker(Protocol):
    """Receives the metrics record of every step."""

    def log(self, record: Mapping[str, Any]) -> None:
        """Take one step's record; `record["step"]` counts finished steps."""
        ...


@dataclass(frozen=True)
class NoTrackerConfig:
    """No settings."""


@register("tracker", "none", config=NoTrackerConfig)
class NoTracker:
    """No tracker: metrics.jsonl only."""

    def log(self, record: Mapping[str, Any]) -> None:
        """Nothing to do."""
