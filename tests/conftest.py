"""What all tests share: no network, no time limit for a single example on a busy machine."""

from __future__ import annotations

import os
import signal

from hypothesis import settings

from memfactory.core.compat import set_environment
from tests.sharing_out import (  # noqa: F401  (hooks of pytest)
    one_thread,
    pytest_collection_modifyitems,
    pytest_xdist_auto_num_workers,
    pytest_xdist_make_scheduler,
)

one_thread()
# A shell starts what runs in the background with SIGINT ignored; tests press Ctrl-C.
signal.signal(signal.SIGINT, signal.default_int_handler)
os.environ.setdefault("HF_HUB_OFFLINE", "1")
set_environment()

settings.register_profile("memfactory", deadline=None, derandomize=True)
settings.load_profile("memfactory")
