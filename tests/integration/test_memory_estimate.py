"""The memory estimate against a process that really holds what it speaks of."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tests.docs.pages import ROOT


@pytest.mark.skipif(sys.platform != "linux", reason="peaks are read from /proc")
def test_estimate_is_within_20_percent_of_the_measured_peak() -> None:
    script = ROOT / "scripts" / "check_memory_estimate.py"
    command = [sys.executable, str(script), "--tokens", "4096", "--cases", "full", "checkpointing"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert len(done.stdout.splitlines()) == 4  # head, columns, two cases
