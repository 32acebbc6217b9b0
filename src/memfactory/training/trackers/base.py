"""What a tracker is, the tracker that is none, and the guard that keeps a failing one from stopping a run."""

from __future__ import annotations

import importlib.util
import json
import math
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from memfactory.core.errors import BadInput, ServiceError
from memfactory.core.files import write_json
from memfactory.core.registry import register

_FAILURES_IN_A_ROW = 3


@dataclass(frozen=True)
class TrackedRun:
    """What a tracker learns of a run. `id` is the same at every start of the run; `step` steps are finished."""

    id: str
    name: str
    folder: Path
    step: int
    recipe: Mapping[str, Any]


class Tracker(Protocol):
    """Receives the figures of every step. Making one is cheap and talks to nobody; `start` does."""

    def start(self, run: TrackedRun) -> None:
        """Open the run at the service, or go on with it when it was started before."""
        ...

    def log(self, record: Mapping[str, float]) -> None:
        """Take figures; `record["step"]` counts finished steps and may come twice, for scores on held-out sets."""
        ...

    def finish(self) -> None:
        """Hand over what is left, and close."""
        ...


@dataclass(frozen=True)
class NoTrackerConfig:
    """No settings."""


@register("tracker", "none", config=NoTrackerConfig)
class NoTracker:
    """No tracker: metrics.jsonl only."""

    def start(self, run: TrackedRun) -> None:
        """Nothing to do."""

    def log(self, record: Mapping[str, float]) -> None:
        """Nothing to do."""

    def finish(self) -> None:
        """Nothing to do."""


class GuardedTracker:
    """Passes figures on; a tracker that fails is warned of once, and left alone when it fails again and again."""

    def __init__(self, tracker: Tracker, name: str, warn: Callable[[str], None]) -> None:
        self._tracker = tracker
        self._name = name
        self._warn = warn
        self._warned = False
        self._failures = 0
        self._started = False

    def start(self, run: TrackedRun) -> None:
        """Open the run. Raises `ServiceError` when that fails: nothing is trained yet that could be lost."""
        try:
            self._tracker.start(run)
        except Exception as error:
            raise ServiceError(
                f"tracker '{self._name}' cannot be started ({_line(error)}); set it right, or train with tracker=none"
            ) from error
        self._started = True

    def log(self, record: Mapping[str, Any]) -> None:
        """Pass on what is a number; never raises."""
        if self._started and self._failures < _FAILURES_IN_A_ROW:
            self._try(lambda: self._tracker.log(numbers(record)), f"at step {record.get('step')}")

    def finish(self) -> None:
        """Close the tracker, if it was started; never raises."""
        if self._started:
            self._started = False
            self._try(self._tracker.finish, "at the end")

    def _try(self, act: Callable[[], None], when: str) -> None:
        try:
            act()
            self._failures = 0
        except Exception as error:  # whatever a service's client raises must not cost a run
            self._failures += 1
            if not self._warned:
                self._warned = True
                self._warn(
                    f"warning: tracker '{self._name}' failed {when} ({_line(error)}); "
                    "training goes on, and metrics.jsonl has every step"
                )


def require_package(package: str, extra: str) -> None:
    """Raise `BadInput` that says how to install a tracker's package, if it is not there."""
    if importlib.util.find_spec(package) is None:
        raise BadInput(
            f"tracker '{extra}' needs the package {package}, which is not installed; "
            f"pip install 'memfactory[{extra}]', or choose tracker=none"
        )


def tracked_run(
    folder: Path, step: int, recipe: Mapping[str, Any], write: Callable[[Path, Any], None] = write_json
) -> TrackedRun:
    """The run of a folder, with the id that its first start wrote to tracker.json, by `write`."""
    path = folder / "tracker.json"
    found: Any = None
    if path.exists():
        try:
            found = json.loads(path.read_bytes()).get("id")
        except (OSError, ValueError, AttributeError, RecursionError):
            found = None
        if not isinstance(found, str):
            raise BadInput(f"{path}: not readable; delete it to go on in a new run of the tracker")
    else:
        found = uuid.uuid4().hex[:12]
        write(path, {"id": found})
    return TrackedRun(found, folder.resolve().name, folder, step, recipe)


def held_out_scores(step: int, evaluation: Mapping[str, Any]) -> dict[str, float]:
    """Scores of an evaluation as one record: `held_out/<set>/<metric>`."""
    record: dict[str, float] = {"step": step}
    for name, result in (evaluation.get("sets") or {}).items():
        scores = result.get("scores") if isinstance(result, Mapping) else None
        for metric, value in (scores or {}).items():
            record[f"held_out/{name}/{metric}"] = value
    return record


def numbers(record: Mapping[str, Any]) -> dict[str, float]:
    """The entries that are finite numbers."""
    return {
        key: value
        for key, value in record.items()
        if isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
    }


def _line(error: Exception) -> str:
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text[:200]}" if text else type(error).__name__
