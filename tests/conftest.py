"""What all tests share: no network, no time limit for a single example on a busy machine."""

from __future__ import annotations

import os

from hypothesis import settings

from memfactory.core.compat import set_environment
from tests.sharing_out import (  # noqa: F401  (hooks of pytest)
    one_thread,
    pytest_collection_modifyitems,
    pytest_xdist_auto_num_workers,
    pytest_xdist_make_scheduler,
)

one_thread()
os.environ.setdefault("HF_HUB_OFFLINE", "1")
set_environment()

settings.register_profile("memfactory", deadline=None, derandomize=True)
settings.load_profile("memfactory")
