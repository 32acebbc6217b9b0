"""When an engine gives its memory back and takes it again, with a vLLM that only takes notes."""

from __future__ import annotations

from typing import Any

import pytest

from memfactory.core.errors import ServiceError
from memfactory.samplers.vllm_engine import VllmEngine

pytest.importorskip("torch")


class _Llm:
    """vLLM as far as sleeping goes: loads only into memory that is there, samples only when wholly awake."""

    def __init__(self, fails: bool = False) -> None:
        self.awake = {"weights", "kv_cache"}
        self.fails = fails
        self.notes: list[str] = []

    def sleep(self, level: int) -> None:
        if self.fails:
            raise RuntimeError("no memory on the host")
        self.awake.clear()
        self.notes.append(f"sleep {level}")

    def wake_up(self, tags: list[str]) -> bool:
        self.awake |= set(tags)
        self.notes.append(f"wake {tags[0]}")
        return self.awake == {"weights", "kv_cache"}

    def collective_rpc(self, name: str, kwargs: dict[str, Any]) -> None:
        assert "weights" in self.awake
        assert "kv_cache" not in self.awake or self.notes == [], (
            "the cache would stand in the way of two copies"
        )
        self.notes.append(name)

    def reset_prefix_cache(self) -> bool:
        assert len(self.awake) == 2
        return True


class _Slot:
    """Adapters need the engine's own weights."""

    def __init__(self, llm: _Llm) -> None:
        self.llm = llm

    def put(self, engine: Any, adapter: Any) -> None:
        assert len(self.llm.awake) == 2
        self.llm.notes.append("adapter")


def engine(llm: _Llm, *, sleeps: bool = True, adapters: bool = False) -> Any:
    made = VllmEngine.__new__(VllmEngine)
    made._llm = llm
    llm.llm_engine = llm  # type: ignore[attr-defined]
    made._sleeps, made._asleep, made._on_cpu = sleeps, False, False
    made._adapters = _Slot(llm) if adapters else None  # type: ignore[assignment]
    return made


def test_weights_come_before_the_cache_and_only_what_sleeps_is_woken() -> None:
    llm = _Llm()
    policy = engine(llm)
    policy.load_weights([])
    assert llm.notes == ["reload_weights"], "nobody slept"
    llm.notes.clear()
    for _ in range(2):
        policy.sleep()
        policy.sleep()
        policy.load_weights([])
    assert llm.notes == ["sleep 2", "wake weights", "reload_weights", "wake kv_cache"] * 2


def test_under_adapters_the_engines_own_weights_are_kept() -> None:
    llm = _Llm()
    policy = engine(llm, adapters=True)
    policy.sleep()
    policy.load_adapter(None)
    assert llm.notes == ["sleep 1", "wake weights", "wake kv_cache", "adapter"]


def test_without_the_setting_nothing_sleeps() -> None:
    llm = _Llm()
    engine(llm, sleeps=False).sleep()
    assert llm.notes == []


def test_an_engine_that_cannot_sleep_is_one_line() -> None:
    with pytest.raises(ServiceError, match="vLLM cannot give back its memory: no memory on the host"):
        engine(_Llm(fails=True)).sleep()
