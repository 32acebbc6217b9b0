"""Ranks that wait for each other for ever end with a message; those that wait for one at work do not."""

from __future__ import annotations

import os
import signal
import threading
import time
from pathlib import Path
from typing import Any

import pytest
import torch

from memfactory.core import rank_watch
from tests.integration.rank_processes import on_ranks


def _work_then_stand_still(ranks: Any, folder: str, limit: float, ask: bool) -> None:
    def give_up(message: str) -> None:
        Path(folder, f"{ranks.rank}.txt").write_text(message)
        if ranks.rank == 1:
            while not Path(folder, "0.txt").exists():  # so that both have told before torch ends them
                time.sleep(0.05)
        os._exit(3)

    with ranks.watched(give_up, limit) as watched:
        if ranks.rank == 1:
            end = time.monotonic() + 2 * min(limit, 2)
            while time.monotonic() < end:
                pass
        assert watched.gather(ranks.rank) == [0, 1]  # rank 0 has waited longer than the limit
        Path(folder, f"{ranks.rank}.worked").touch()
        if ask:
            rank_watch.LIMIT_WHEN_ASKED = 1.0
            signal.signal(
                signal.SIGTERM, lambda number, frame: None
            )  # what training does: finish the step first
            os.kill(os.getpid(), signal.SIGTERM)
        if ranks.rank == 1:
            threading.Event().wait()
        watched.gather(ranks.rank)


@pytest.mark.parametrize(("limit", "ask"), [(2.0, False), (1800.0, True)])
def test_a_hang_ends_with_a_message(tmp_path: Path, limit: float, ask: bool) -> None:
    with pytest.raises(torch.multiprocessing.ProcessExitedException):
        on_ranks(2, _work_then_stand_still, str(tmp_path), limit, ask)
    assert (tmp_path / "0.worked").exists() and (tmp_path / "1.worked").exists()
    told = (tmp_path / "0.txt").read_text()
    assert "no rank has done anything for" in told and "run the same command again" in told
    assert ("asked to end by SIGTERM" in told) == ask
