"""The folder a run writes: recipe, metrics, rollouts, checkpoints, and the lock that guards it."""

from __future__ import annotations

import fcntl
import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, suppress
from pathlib import Path
from typing import IO, Any

from memfactory.core.errors import BadInput
from memfactory.core.files import disk_errors, new_folder
from memfactory.core.manifest import damage, foreign_files, named, read_manifest, remove_ours, seal
from memfactory.core.partials import is_partial, remove_partials
from memfactory.core.signed import is_signed
from memfactory.training.checkpoints import Checkpoints
from memfactory.training.written import JOURNAL, WrittenFiles

_STEP = re.compile(r"step-(\d{1,18})")
#: Files of a run beside those of its folders. The recipe last: as long as it is there, a folder is known as a run.
_FILES = (
    "metrics.jsonl",
    "summary.json",
    "report.md",
    "reward.png",
    "loss.png",
    "log.txt",
    "tracker.json",
    "inputs.json",
    "recipe.yaml",
)
#: What trackers put into a folder that they made for the run.
_OF_TRACKERS = re.compile(
    r"(offline-)?run-.*|latest-run|debug.*\.log|events\.out\.tfevents\..*|\.gitignore|settings|wandb-resume\.json"
)
FINAL_KIND = "policy"


class RunFolder:
    """Paths and durable writes of one run. Step numbers count finished training steps."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.recipe_path = path / "recipe.yaml"
        self.metrics_path = path / "metrics.jsonl"
        self.rollouts_path = path / "rollouts"
        self.evaluation_path = path / "evaluation"
        self.final_path = path / "final"
        self.written = WrittenFiles(path)
        self.checkpoints = Checkpoints(path / "checkpoints")
        self._lock: IO[str] | None = None

    @property
    def is_run(self) -> bool:
        """Whether a run began here; one of an earlier version has its recipe and no journal."""
        return self.written.exists or self.recipe_path.is_file()

    def foreign_files(self) -> list[str]:
        """What is there but a lock, a run's journal, half-written files, and results of `eval`."""
        if not self.path.is_dir():
            return []
        names = sorted(path.name for path in self.path.iterdir())
        return [name for name in names if name not in (".lock", "eval", JOURNAL) and not is_partial(name)]

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
        for folder in (self.path, self.checkpoints.path, self.rollouts_path, self.evaluation_path):
            remove_partials(folder)

    def release(self) -> None:
        """Give the lock back."""
        if self._lock is not None:
            self._lock.close()
        self._lock = None

    def require_clearable(self) -> None:
        """Raise `BadInput`, naming the first files, unless all that a new run would write over is ours (`--fresh`)."""
        if not self.is_run:
            if strange := self.foreign_files():
                raise BadInput(
                    f"{self.path}: is no run folder and holds {named(strange)}; nothing was deleted, choose another "
                    "--output-dir"
                )
            return
        _, strange = self._removable()
        if strange:
            raise BadInput(
                f"{self.path}: --fresh deletes only what a run wrote, and here {named(strange)} was not written by "
                "one, or was changed since; nothing was deleted, move it away or choose another --output-dir"
            )

    def clear(self) -> None:
        """Delete all results in the folder (for `--fresh`), and nothing else. Raises as `require_clearable`."""
        self.require_clearable()
        actions, _ = self._removable()
        with disk_errors(self.path):
            for act in actions:
                act()

    def _removable(self) -> tuple[list[Callable[[], object]], list[str]]:
        """How to delete what this run wrote, and the names of what stands where a run writes, but is not ours."""
        actions: list[Callable[[], object]] = []
        checkpoints, strange = self.checkpoints.removable()
        actions += [lambda path=path: remove_ours(path) for path in checkpoints]  # type: ignore[misc]
        for folder, written in ((self.rollouts_path, _STEP_FILE), (self.evaluation_path, _JSON_FILE)):
            for path in _entries(folder):
                if self.written.is_ours(path):
                    actions.append(lambda path=path: self.written.remove(path))  # type: ignore[misc]
                elif written.fullmatch(path.name):
                    strange.append(f"{folder.name}/{path.name}")
        for name in ("checkpoints", "rollouts", "evaluation"):
            actions.append(lambda path=self.path / name: _remove_empty(path))  # type: ignore[misc]
        if self.final_path.is_symlink() or self.final_path.exists():
            if foreign := foreign_files(self.final_path):
                strange.append(f"final/{foreign[0]}")
            actions.append(lambda: remove_ours(self.final_path))
        if is_signed(page := self.path / "report.html"):  # of the run that goes; another is the user's
            actions += [lambda: page.unlink(missing_ok=True), lambda: remove_ours(self.path / "report_png")]
        for tree in _entries(self.path):
            if tree.is_dir() and not tree.is_symlink() and self.written.made_by_tracker(tree.name):
                actions.append(lambda tree=tree: _remove_tracked(tree))  # type: ignore[misc]
        for name in ("tensorboard", "wandb", "swanlog"):
            if (self.path / name).exists() and not self.written.made_by_tracker(name):
                strange.append(f"{name}/")
        for name in _FILES:
            path = self.path / name
            if self.written.is_ours(path):
                actions.append(lambda path=path: self.written.remove(path))  # type: ignore[misc]
            elif path.is_symlink() or path.exists():
                strange.append(name)
        return actions, strange

    @contextmanager
    def new_final(self) -> Iterator[Path]:
        """Yield the folder to fill with the trained policy. What is damaged there is kept under another name."""
        self.written.keep_foreign(self.final_path)
        with new_folder(self.final_path) as folder:
            yield folder
            seal(folder, FINAL_KIND)

    def final_is_whole(self) -> bool:
        """Whether `final/` is there and as it was written; one of an earlier version has no checksums."""
        if not self.final_path.is_dir():
            return False
        try:
            manifest = read_manifest(self.final_path)
        except BadInput:
            return False
        return manifest is None or damage(self.final_path, manifest) is None

    def new_checkpoint(self, step: int) -> AbstractContextManager[Path]:
        """Context manager that yields the folder to fill for the checkpoint after `step` steps."""
        return self.checkpoints.new(step)

    def log_metrics(self, record: Mapping[str, Any]) -> None:
        """Append one line to metrics.jsonl and hand it to the operating system."""
        self.written.append(self.metrics_path, json.dumps(record) + "\n")

    def rewind(self, step: int) -> None:
        """Forget metrics, rollouts and evaluations of steps after `step` (they will be made again)."""
        if self.metrics_path.is_file():
            lines = _records(self.metrics_path.read_bytes())
            kept = [line for line in lines if _number(line.get("step")) <= step]
            text = "".join(json.dumps(line) + "\n" for line in kept)
            self.written.replace_text(self.metrics_path, text)
        for folder in (self.rollouts_path, self.evaluation_path):
            for path in _entries(folder):
                match = _STEP.fullmatch(path.stem)
                if match and path.suffix in (".json", ".jsonl") and int(match[1]) > step:
                    self.written.remove(path)

    def metrics(self) -> list[dict[str, Any]]:
        """All complete lines of metrics.jsonl; a line cut off by a kill, or that is no record of a step, is left out.

        Raises `BadInput` for what is no text at all.
        """
        data = self.metrics_path.read_bytes() if self.metrics_path.is_file() else b""
        try:
            data.decode()
        except UnicodeDecodeError:
            raise BadInput(f"{self.metrics_path}: not a text file; it was not written by a run") from None
        return [record for record in _records(data) if type(record.get("step")) is int]

    def write_rollouts(self, step: int, records: Iterable[Mapping[str, Any]]) -> None:
        """Write the sampled rollouts of a step, one JSON object a line."""
        lines = "".join(json.dumps(record, ensure_ascii=False) + "\n" for record in records)
        self.written.replace_text(self.rollouts_path / f"step-{step}.jsonl", lines)


_STEP_FILE = re.compile(r"step-\d+\.jsonl")
_JSON_FILE = re.compile(r"(before|after|step-\d+)\.json")


def _entries(folder: Path) -> list[Path]:
    return sorted(folder.iterdir()) if folder.is_dir() and not folder.is_symlink() else []


def _records(data: bytes) -> list[dict[str, Any]]:
    """The JSON objects of a file's lines."""
    records = []
    for line in data.splitlines():
        try:
            record = json.loads(line)
        except (ValueError, RecursionError):
            continue
        if isinstance(record, dict):
            records.append(record)
    return records


def _number(value: Any) -> float:
    """A step as a number; what is none comes before all steps."""
    return value if isinstance(value, int | float) and not isinstance(value, bool) else 0


def _remove_empty(folder: Path) -> None:
    with suppress(OSError):
        folder.rmdir()


def _remove_tracked(folder: Path) -> None:
    """Delete what a tracker put into its folder; links are taken away, never followed."""
    import shutil

    for path in _entries(folder):
        if not _OF_TRACKERS.fullmatch(path.name):
            continue
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)
    _remove_empty(folder)
