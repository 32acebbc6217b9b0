"""What all tests share: no network, no time limit for a single example on a busy machine."""

from __future__ import annotations

import os

from hypothesis import settings

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

settings.register_profile("memfactory", deadline=None, derandomize=True)
settings.load_profile("memfactory")
