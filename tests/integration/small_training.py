"""A shipped recipe trained for a dozen steps by the real program, with the real vLLM."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path


def train_in_small(recipe: str, steps: int, run: Path, *options: str) -> str:
    """Train into `run`, which must succeed; returns what was printed."""
    finished = subprocess.run(
        [
            sys.executable,
            "-m",
            "memfactory",
            "train",
            recipe,
            f"trainer.steps={steps}",
            *options,
            "--output-dir",
            str(run),
        ],
        capture_output=True,
        text=True,
        check=False,
        timeout=600,
    )
    assert finished.returncode == 0, finished.stderr[-2000:]
    return finished.stdout
