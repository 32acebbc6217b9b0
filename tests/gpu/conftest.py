"""Tests of what only a GPU can run: `make test RUN=tests/gpu`. Without a GPU all of them are skipped, and say so."""

from __future__ import annotations

import pytest

from tests.integration.conftest import codec, policy_folder, prompts

__all__ = ["codec", "policy_folder", "prompts"]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    import torch

    if not torch.cuda.is_available():
        for item in items:
            if "tests/gpu/" in item.nodeid:
                item.add_marker(pytest.mark.skip(reason="there is no GPU"))
