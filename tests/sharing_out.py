"""How pytest-xdist's workers share the tests: whole files, the longest first, and one thread for each worker.

A worker that is given a whole file makes its fixtures once. What is left for the end is short, so that all workers end
together. Without `-n` nothing here does anything.
"""

from __future__ import annotations

import os
from typing import Any

import psutil
import pytest
from xdist.scheduler import LoadScopeScheduling

#: A worker may hold a vLLM engine while two runs of a test hold their models.
MEMORY_OF_A_WORKER = 5 * 2**30
MOST_WORKERS = 8
#: What takes longest begins first, the longest at the top; all else follows, `tests/unit` at the end.
LONGEST = (
    "integration/test_train_ranks.py",
    "integration/test_train_resume.py",
    "integration/test_vllm_server.py",
    "docs/test_readme.py",
    "integration/test_memory_r1_learns.py",
    "integration/test_deepspeed_learner.py",
    "integration/test_bad_input.py",
    "integration/test_quickstart.py",
    "integration/test_memory_estimate.py",
    "integration/test_train_stop_and_start.py",
    "integration/test_chat.py",
    "integration/test_train_faults.py",
    "docs/test_wheel.py",
    "integration/test_local_learner.py",
    "integration/test_keeper_kill.py",
    "integration/test_rmm.py",
)
#: Files that use the session's vLLM engine stay with one worker, one after the other.
WITH_THE_ENGINE = ("integration/test_samplers_engines.py", "integration/test_samplers_sync.py")


def one_thread() -> None:
    """Workers and what they start use one thread each: they are as many as there are cores."""
    if "PYTEST_XDIST_WORKER" in os.environ:
        os.environ.setdefault("OMP_NUM_THREADS", "1")


class WholeFiles(LoadScopeScheduling):
    """Whole files, in the order of `pytest_collection_modifyitems`."""

    def __init__(self, config: pytest.Config, log: Any) -> None:
        super().__init__(config, log)
        config.option.loadscopereorder = False  # by number of tests it would be

    def _split_scope(self, nodeid: str) -> str:
        file = nodeid.split("::")[0]
        return WITH_THE_ENGINE[0] if file.endswith(WITH_THE_ENGINE) else file


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> WholeFiles:
    return WholeFiles(config, log)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers() -> int:
    """`-n auto`: as many as cores and memory allow."""
    room = psutil.virtual_memory().available // MEMORY_OF_A_WORKER
    return max(1, min(len(os.sched_getaffinity(0)), room, MOST_WORKERS))


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The order in which whole files are given out; within a file it stays."""
    if "PYTEST_XDIST_WORKER" in os.environ:
        items.sort(key=_place)


def _place(item: pytest.Item) -> tuple[int, bool]:
    file = item.nodeid.split("::")[0].removeprefix("tests/")
    return LONGEST.index(file) if file in LONGEST else len(LONGEST), file.startswith("unit/")
