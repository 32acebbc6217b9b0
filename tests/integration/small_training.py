"""A shipped recipe trained for a dozen steps by the real program, with the real vLLM."""

from __future__ import annotations

from pathlib import Path

from tests.integration.launching import Launch


def train_in_small(recipe: str, steps: int, run: Path, *options: str) -> str:
    """Train into `run`, which must succeed; returns what was printed."""
    command = ["train", recipe, f"trainer.steps={steps}", *options, "--output-dir", str(run)]
    ended = Launch(command, run.parent / "log").end(600)
    assert ended.code == 0, ended.err[-2000:]
    return ended.out
