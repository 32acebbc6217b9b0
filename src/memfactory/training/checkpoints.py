"""The checkpoints of a run: written whole, checked before anything goes on from them, and deleted only if ours."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from memfactory.core.errors import BadInput
from memfactory.core.files import disk_errors, new_folder
from memfactory.core.manifest import MANIFEST, damage, foreign_files, read_manifest, remove_ours, seal
from memfactory.training.state import SEALED_FORMAT, read_state

KIND = "checkpoint"
_STEP = re.compile(r"step-(0|[1-9]\d{0,17})")


class Checkpoints:
    """The folder `checkpoints/` of a run. Step numbers count finished training steps."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._chosen: list[tuple[int, Path]] | None = None

    def all(self) -> list[tuple[int, Path]]:
        """What has a checkpoint's name, as (step, folder), oldest first; not checked."""
        found = []
        if self.path.is_dir():
            for path in self.path.iterdir():
                match = _STEP.fullmatch(path.name)
                if match and path.is_dir():
                    found.append((int(match[1]), path))
        return sorted(found)

    @contextmanager
    def new(self, step: int) -> Iterator[Path]:
        """Yield the folder to fill for the checkpoint after `step` steps. Raises `DiskError`."""
        with new_folder(self.path / f"step-{step}") as folder:
            yield folder
            seal(folder, KIND, step=step)

    def newest_whole(self, say: Callable[[str], None]) -> tuple[int, Path] | None:
        """The newest checkpoint that is as it was written; None where there is none at all.

        Newer ones that are damaged are moved aside and told. All files are read once; a second call knows the answer.
        Raises `BadInput` when there are checkpoints, and not one is whole.
        """
        if self._chosen is None:
            self._chosen = self._choose(say)
        return self._chosen[0] if self._chosen else None

    def keep_last(self, count: int, say: Callable[[str], None]) -> None:
        """Delete all but the newest `count` checkpoints; what is not ours, or was changed, neither counts nor goes."""
        ours = [(step, path) for step, path in self.all() if _is_ours(step, path)]
        for _, path in ours[:-count]:
            with disk_errors(path):
                if not remove_ours(path):
                    say(f"warning: {path} stays: something in it is not ours")

    def removable(self) -> tuple[list[Path], list[str]]:
        """For a new beginning: checkpoints that may be deleted, and what has their name but may not."""
        ours, strange = [], []
        for step, path in self.all():
            if _is_ours(step, path):
                ours.append(path)
            else:
                first = next(iter(foreign_files(path)), "")
                strange.append(f"{self.path.name}/{path.name}/{first}".rstrip("/"))
        return ours, strange

    def _choose(self, say: Callable[[str], None]) -> list[tuple[int, Path]]:
        damaged: list[tuple[Path, str]] = []
        for step, path in reversed(self.all()):
            problem = problem_of(step, path)
            if problem is None:
                for other, wrong in damaged:
                    aside = _set_aside(other)
                    say(f"warning: {other}: {wrong}; kept as {aside.name}, going on from step {step}")
                return [(step, path)]
            damaged.append((path, problem))
        if damaged:
            path, wrong = damaged[0]
            raise BadInput(
                f"{path}: {wrong}, and there is no other whole checkpoint; put it back from a copy, or move "
                f"{self.path} away to begin anew"
            )
        return []


def problem_of(step: int, path: Path) -> str | None:
    """Why nothing can go on from a checkpoint; None if it is as it was written. Reads all of it.

    One of an earlier version has no checksums: of that its parts are looked for.
    """
    try:
        manifest = read_manifest(path)
        if manifest is not None:
            if manifest.kind != KIND or manifest.facts.get("step") != step:
                return f"is by its {MANIFEST} a {manifest.kind} of step {manifest.facts.get('step')}"
            wrong = damage(path, manifest)
            if wrong is not None:
                return wrong
        state, form = read_state(path)
    except BadInput as error:
        return str(error).removeprefix(f"{path}/")
    if manifest is None and form >= SEALED_FORMAT:
        return f"{MANIFEST} is missing"
    if state.step != step:
        return f"trainer.json is of step {state.step}"
    for part in ("learner", "policy"):
        if not (path / part).is_dir():
            return f"{part}/ is missing"
    return None


def _is_ours(step: int, path: Path) -> bool:
    """Whether a folder is a checkpoint of this step, with nothing else in it and nothing changed."""
    try:
        manifest = read_manifest(path)
    except BadInput:
        return False
    if manifest is None or manifest.kind != KIND or manifest.facts.get("step") != step:
        return False
    return not foreign_files(path)


def _set_aside(path: Path) -> Path:
    """Rename a damaged checkpoint, so that its step can be saved again."""
    number, aside = 1, path.with_name(f"{path.name}.damaged")
    while os.path.lexists(aside):
        number += 1
        aside = path.with_name(f"{path.name}.damaged-{number}")
    with disk_errors(path):
        os.rename(path, aside)
    return aside
