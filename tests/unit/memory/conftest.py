"""Both stores, for tests that must hold in each."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from memfactory.memory.bank import InMemoryBank
from memfactory.memory.lance import LanceBank
from memfactory.memory.layered import LayeredBank

DIM = 4


@pytest.fixture(params=["memory", "disk"])
def bank(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[LayeredBank]:
    """An empty bank of one store, then of the other."""
    if request.param == "memory":
        yield InMemoryBank("e", DIM)
        return
    with LanceBank(tmp_path / "bank", embedder="e", dim=DIM) as disk:
        yield disk


@pytest.fixture
def again(tmp_path: Path) -> Callable[[LayeredBank], LayeredBank]:
    """The same bank as another process would find it: opened anew from disk, or itself in memory."""

    def open_again(bank: LayeredBank) -> LayeredBank:
        return LanceBank(bank.path, mode="read") if isinstance(bank, LanceBank) else bank

    return open_again
