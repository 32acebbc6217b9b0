"""What a checkpoint remembers besides the learner, in its file `trainer.json`."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from memfactory.core.errors import BadInput
from memfactory.core.files import write_json

STATE_FORMAT = 1
_FILE = "trainer.json"


@dataclass
class TrainState:
    """How far a run has come. `step` counts finished steps."""

    step: int = 0
    position: int = 0
    """How many tasks (or traces) were taken from the data so far."""
    seconds: float = 0.0
    """Wall-clock seconds spent on this run, over all its starts."""


def write_state(checkpoint: Path, state: TrainState) -> None:
    """Write the state into a checkpoint's folder."""
    write_json(checkpoint / _FILE, {"format": STATE_FORMAT, **vars(state)})


def read_state(checkpoint: Path) -> TrainState:
    """Read what `write_state` wrote. Raises `BadInput` when it cannot be read."""
    path = checkpoint / _FILE
    try:
        value = json.loads(path.read_text())
        if value.pop("format") != STATE_FORMAT:
            raise BadInput(f"{path}: written by another version of MemFactory; use --fresh or that version")
        return TrainState(**value)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise BadInput(
            f"{path}: not a readable checkpoint ({error}); delete its folder to use an older one"
        ) from error
