"""Imported once by the fork server of `launching`: what every run would import again."""

from __future__ import annotations

import importlib

from memfactory.core.compat import prepare_imports
from tests.integration.launching import PRELOAD

prepare_imports()
for _name in PRELOAD:
    importlib.import_module(_name)
