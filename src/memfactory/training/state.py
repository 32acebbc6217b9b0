"""What a checkpoint remembers besides the learner, in its file `trainer.json`."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from memfactory.core.errors import BadInput
from memfactory.core.files import write_json

#: Since this format a checkpoint has a manifest; format 1 is the same without.
SEALED_FORMAT = 2
STATE_FORMAT = 2
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


def read_state(checkpoint: Path) -> tuple[TrainState, int]:
    """Read what `write_state` wrote, and its format. Raises `BadInput` when it cannot be read."""
    path = checkpoint / _FILE
    try:
        value = json.loads(path.read_bytes())
        form = value["format"]
        if form not in (1, STATE_FORMAT):
            raise BadInput(f"{path}: written by another version of MemFactory; use --fresh or that version")
        seconds = float(value["seconds"])
        if not math.isfinite(seconds) or seconds < 0:
            raise ValueError("seconds is no time")
        return TrainState(_count(value, "step"), _count(value, "position"), seconds), form
    except (OSError, ValueError, KeyError, TypeError, RecursionError, OverflowError) as error:
        why = (str(error).splitlines() or [type(error).__name__])[0][:120]
        raise BadInput(f"{path}: not readable ({why})") from error


def _count(value: Any, name: str) -> int:
    number = value[name]
    if isinstance(number, bool) or not isinstance(number, int) or not 0 <= number < 2**62:
        raise ValueError(f"{name} is no count")
    return number
