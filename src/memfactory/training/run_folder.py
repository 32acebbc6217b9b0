"""The folder a run writes: recipe, metrics, rollouts, checkpoints, and the lock that guards it."""

from __future__ import annotations

import fcntl
import json
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import IO, Any

from memfactory.core.errors import BadInput
from memfactory.core.files import disk_errors, new_folder, write_text
from memfactory.core.partials import is_partial, remove_folder, remove_partials

_STEP = re.compile(r"step-(\d+)$")


class RunFolder:
    """Paths and durable writes of one run. Step numbers count finished training steps."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.recipe_path = path / "recipe.yaml"
        self.metrics_path = path / "metrics.jsonl"
        self.rollouts_path = path / "rollouts"
        self.checkpoints_path = path / "checkpoints"
        self.final_path = path / "final"
        self._lock: IO[str] | None = None
        self._metrics: IO[str] | None = None

    def holds_foreign_files(self) -> bool:
        """Whether there is anything but a lock, half-written files of a killed start, and results of `eval`."""
        if not self.path.is_dir():
            return False
        return any(
            path.name not in (".lock", "eval") and not is_partial(path.name) for path in self.path.iterdir()
        )

    def acquire(self) -> None:
        """Create the folder, lock it for this process, and clear what a killed process left half-written.

        Does nothing when the lock is held already. Raises `BadInput` when another process is using the folder.
        """
        if self._lock is not None:
            return
        with disk_errors(self.path):
            self.path.mkdir(parents=True, exist_ok=True)
            self._lock = open(self.path / ".lock", "a+")  # noqa: SIM115 (held for the process's life)
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            self._lock.close()
            self._lock = None
            raise BadInput(
                f"{self.path}: another process is using this run folder; wait for it or choose --output-dir"
            ) from None
        for folder in (self.path, self.checkpoints_path, self.rollouts_path, self.path / "evaluation"):
            remove_partials(folder)

    def release(self) -> None:
        """Close files and give the lock back."""
        for file in (self._metrics, self._lock):
            if file is not None:
                file.close()
        self._metrics = self._lock = None

    def clear(self) -> None:
        """Delete all results in the folder (for `--fresh`); only what a run writes is touched."""
        for name in (
            *("checkpoints", "rollouts", "evaluation", "final", "report_png"),
            *("tensorboard", "wandb", "swanlog"),
        ):
            if (self.path / name).exists():
                remove_folder(self.path / name)
        # The recipe last: as long as it is there, a killed `clear` leaves a folder that is known as a run.
        for name in (
            "metrics.jsonl",
            "summary.json",
            "report.md",
            "reward.png",
            "loss.png",
            "log.txt",
            "report.html",
            "tracker.json",
            "recipe.yaml",
        ):
            (self.path / name).unlink(missing_ok=True)

    def checkpoints(self) -> list[tuple[int, Path]]:
        """Complete checkpoints as (step, folder), oldest first."""
        found = []
        if self.checkpoints_path.is_dir():
            for path in self.checkpoints_path.iterdir():
                match = _STEP.fullmatch(path.name)
                if match and path.is_dir():
                    found.append((int(match[1]), path))
        return sorted(found)

    def new_checkpoint(self, step: int) -> Any:
        """Context manager that yields the folder to fill for the checkpoint after `step` steps."""
        return new_folder(self.checkpoints_path / f"step-{step}")

    def keep_last(self, count: int) -> None:
        """Delete all but the newest `count` checkpoints (renamed first, so a kill leaves no half one)."""
        for _, path in self.checkpoints()[:-count]:
            remove_folder(path)

    def log_metrics(self, record: Mapping[str, Any]) -> None:
        """Append one line to metrics.jsonl and hand it to the operating system."""
        with disk_errors(self.metrics_path):
            if self._metrics is None:
                self._metrics = open(self.metrics_path, "a", encoding="utf-8")  # noqa: SIM115
            self._metrics.write(json.dumps(record) + "\n")
            self._metrics.flush()

    def rewind(self, step: int) -> None:
        """Forget metrics and rollouts of steps after `step` (they will be made again)."""
        if self.metrics_path.exists():
            kept = [line for line in self.metrics() if line.get("step", 0) <= step]
            write_text(self.metrics_path, "".join(json.dumps(line) + "\n" for line in kept))
        if self.rollouts_path.is_dir():
            for path in self.rollouts_path.glob("step-*.jsonl"):
                match = _STEP.fullmatch(path.stem)
                if match and int(match[1]) > step:
                    path.unlink()

    def metrics(self) -> list[dict[str, Any]]:
        """All complete lines of metrics.jsonl; a line cut off by a kill is left out."""
        records = []
        if self.metrics_path.exists():
            for line in self.metrics_path.read_text(encoding="utf-8").splitlines():
                try:
                    record = json.loads(line)
                except json.JSONDecodeError:
                    continue
                if isinstance(record, dict):
                    records.append(record)
        return records

    def write_rollouts(self, step: int, records: Iterable[Mapping[str, Any]]) -> None:
        """Write the sampled rollouts of a step, one JSON object a line."""
        lines = "".join(json.dumps(record, ensure_ascii=False) + "\n" for record in records)
        write_text(self.rollouts_path / f"step-{step}.jsonl", lines)
