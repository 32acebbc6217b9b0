"""Rows of the next step, made while the learner works on this one.

With `max_staleness` 1 the rollouts of step k+1 (k = 1, 2, ...) always come from the weights after step k-1, those of
the first two steps from the first weights: the sampler gets them before they begin, and keeps them until they are
done. Nothing depends on which of the two works is faster. A checkpoint keeps the rows that are ahead of it: the
weights that made them are gone by then.
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from memfactory.core.errors import BadInput
from memfactory.core.files import write_text
from memfactory.core.types import Row

_FORMAT = 1


@dataclass(frozen=True)
class Batch:
    """The rows of one step, the next data position, figures, and readable rollouts to keep."""

    rows: Sequence[Row]
    position: int
    metrics: Mapping[str, float]
    records: Sequence[Mapping[str, Any]] = ()


@dataclass(frozen=True)
class Collected:
    """A batch, and the seconds that it took to make."""

    batch: Batch
    seconds: float


class Background:
    """One call of `make` in a thread of its own."""

    def __init__(self, make: Callable[[], Batch]) -> None:
        self._make = make
        self._made: Collected | None = None
        self._error: BaseException | None = None
        # A daemon: a second Ctrl-C must not wait for it.
        self._thread = threading.Thread(target=self._run, name="rollouts", daemon=True)
        self._thread.start()

    def result(self) -> Collected:
        """Wait for the batch. Raises what `make` raised."""
        self._thread.join()
        if self._error is not None:
            raise self._error
        assert self._made is not None
        return self._made

    def _run(self) -> None:
        try:
            self._made = timed(self._make)
        except BaseException as error:
            self._error = error


def timed(make: Callable[[], Batch]) -> Collected:
    """A batch made here and now."""
    start = time.perf_counter()
    batch = make()
    return Collected(batch, time.perf_counter() - start)


def save_batch(path: Path, batch: Batch) -> None:
    """Write a batch as JSON; numbers come back exactly as they were."""
    value = {
        "format": _FORMAT,
        "position": batch.position,
        "metrics": dict(batch.metrics),
        "records": list(batch.records),
        "rows": [asdict(row) for row in batch.rows],
    }
    write_text(path, json.dumps(value) + "\n")


def load_batch(path: Path) -> Batch:
    """Read what `save_batch` wrote. Raises `BadInput` when it cannot be read."""
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
        if value["format"] != _FORMAT:
            raise BadInput(f"{path}: written by another version of MemFactory; use --fresh or that version")
        return Batch(
            rows=[_row(row) for row in value["rows"]],
            position=int(value["position"]),
            metrics=value["metrics"],
            records=value["records"],
        )
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError, OverflowError) as error:
        raise BadInput(
            f"{path}: not a readable batch of rows ({error}); delete the checkpoint to use an older one"
        ) from error


def _row(value: dict[str, Any]) -> Row:
    """JSON has lists where a row has tuples."""
    fields: dict[str, Any] = {name: tuple(v) if isinstance(v, list) else v for name, v in value.items()}
    return Row(**fields)
