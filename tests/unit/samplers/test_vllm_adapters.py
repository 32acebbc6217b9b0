"""The slot that holds one adapter of an engine, with an engine that only takes notes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from memfactory.core.errors import BadInput
from memfactory.samplers.vllm_adapters import AdapterSlot, slot_rank, wants_adapters

pytest.importorskip("vllm")


class _Engine:
    def __init__(self, accepts: bool = True) -> None:
        self.held: dict[int, Path] = {}
        self.accepts = accepts

    def add_lora(self, request: Any) -> bool:
        assert len(self.held) == 0 and (Path(request.lora_path) / "adapter").is_file()
        if self.accepts:
            self.held[request.lora_int_id] = Path(request.lora_path)
        return self.accepts

    def remove_lora(self, number: int) -> bool:
        return self.held.pop(number, None) is not None


class _Adapter:
    rank = 4

    def write(self, folder: Path) -> None:
        (folder / "adapter").write_text("matrices")


def test_each_sync_has_a_new_number_and_takes_the_place_of_the_last() -> None:
    slot, engine = AdapterSlot(), _Engine()
    assert slot.request is None
    folders = []
    for number in (1, 2, 3):
        slot.put(engine, _Adapter())
        assert list(engine.held) == [slot.request.lora_int_id] == [number]
        folders.append(engine.held[number])
    assert [folder.exists() for folder in folders] == [False, False, True]
    slot.close()
    slot.close()
    assert not folders[-1].parent.exists()


def test_an_adapter_that_is_declined_is_not_sampled_with() -> None:
    slot, engine = AdapterSlot(), _Engine()
    slot.put(engine, _Adapter())
    engine.accepts = False
    with pytest.raises(RuntimeError, match="not loaded"):
        slot.put(engine, _Adapter())
    assert slot.request is None
    slot.close()


def test_ranks_are_those_that_vllm_has_slots_for() -> None:
    assert [slot_rank(rank) for rank in (1, 2, 8, 9, 64, 300)] == [1, 8, 8, 16, 64, 320]
    with pytest.raises(BadInput, match=r"rank 512 at most, and learner\.lora_rank is 600"):
        slot_rank(600)


@pytest.mark.parametrize(
    ("setting", "dtype", "rank", "wanted"),
    [
        (None, "bfloat16", 8, True),
        (None, "float32", 8, False),
        (None, "bfloat16", 0, False),
        (False, "bfloat16", 8, False),
        (True, "float32", 8, True),
        (True, "float32", 0, False),
    ],
)
def test_adapters_are_handed_over_where_merging_would_round(
    setting: bool | None, dtype: str, rank: int, wanted: bool
) -> None:
    assert wants_adapters(setting, dtype, rank) is wanted
