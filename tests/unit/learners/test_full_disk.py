"""A disk that is full while a learner's state is written is one line, whatever the library raises."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from memfactory.core.errors import DiskError
from memfactory.learners.files import FACTS, OPTIMIZER, write_state


@pytest.mark.parametrize("name", [OPTIMIZER, FACTS])
def test_a_full_disk_is_one_line(name: str, tmp_path: Path) -> None:
    (tmp_path / name).symlink_to("/dev/full")
    moments = {0: {"exp_avg": torch.ones(100_000)}}
    with pytest.raises(DiskError, match="free some space and run the same command again") as caught:
        write_state(tmp_path, {"w": torch.ones(3)}, moments, {"step": 1})
    assert str(tmp_path) in str(caught.value) and "\n" not in str(caught.value)


def test_what_the_library_says_of_it_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*arguments: object, **named: object) -> None:
        raise RuntimeError("[enforce fail at inline_container.cc:659] . unexpected pos 64 vs 0\nframe 1")

    monkeypatch.setattr(torch, "save", fail)
    with pytest.raises(DiskError, match="unexpected pos 64") as caught:
        write_state(tmp_path, {"w": torch.ones(3)}, {}, {"step": 1})
    assert "\n" not in str(caught.value)
