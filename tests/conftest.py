"""What all tests share: no network, no time limit for a single example on a busy machine."""

from __future__ import annotations

import os

from hypothesis import settings

from memfactory.core.compat import set_environment

os.environ.setdefault("HF_HUB_OFFLINE", "1")
set_environment()

settings.register_profile("memfactory", deadline=None, derandomize=True)
settings.load_profile("memfactory")
