"""What `memfactory infer` is asked to read, to answer and to print."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class InferOptions:
    """Options of `memfactory infer`.

    Either `input` (a text file, `-` is standard input) with one or more `questions`, or `tasks` (JSON
    Lines of tasks). `output` writes JSON Lines of results. `show_memory` prints the memory after every
    block, `json` prints results as JSON instead of text.
    """

    input: str | None = None
    questions: tuple[str, ...] = ()
    tasks: Path | None = None
    output: Path | None = None
    show_memory: bool = False
    json: bool = False
