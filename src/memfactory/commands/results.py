"""What the faces of `memfactory infer` share about their results: which are there already, and JSON for a terminal."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import Console

from memfactory.core.files import disk_errors
from memfactory.core.types import Task
from memfactory.inference.reading import done_ids


def unanswered(tasks: Sequence[Task], output: Path | None, errors: Console) -> list[Task]:
    """The tasks whose answers the output file does not hold yet; its folder is made. Says so when some are there."""
    if output is None:
        return list(tasks)
    with disk_errors(output, option="--output"):
        output.parent.mkdir(parents=True, exist_ok=True)
    done = done_ids(output)
    if done:
        errors.print(f"{output}: {len(done)} answers are there already, going on", highlight=False)
    return [task for task in tasks if task.id not in done]


def json_for(value: Any, encoding: str) -> str:
    """JSON in readable characters, or in escapes where the output cannot hold them (broken surrogates, ASCII)."""
    text = json.dumps(value, ensure_ascii=False, indent=2)
    try:
        text.encode(encoding)
    except UnicodeEncodeError:
        return json.dumps(value, indent=2)
    return text
