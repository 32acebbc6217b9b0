"""Stand-ins that unit tests of the loop share: no model, no device, no disk."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from memfactory.core.types import Call, Outcome, Rollout, Row, SamplingParams, Task
from memfactory.models.text import ByteCodec
from memfactory.rollouts.collect import ProgressFn
from memfactory.samplers.base import Sampler
from memfactory.samplers.roles import RolloutModels, SampledModel


def models_of(sampler: Sampler, seed: int = 0) -> Callable[..., RolloutModels]:
    """A models factory with one role, `policy`, played by the sampler; texts are bytes."""

    def make(
        *, phase: str, task: Task, index: int, calls: list[Call], progress: ProgressFn | None = None
    ) -> RolloutModels:
        policy = SampledModel(
            role="policy",
            sampler=sampler,
            codec=ByteCodec(),
            params=SamplingParams(),
            calls=calls,
            seed_parts=(seed, phase, task.id, index),
            trainable=True,
        )
        return RolloutModels({"policy": policy}, progress)

    return make


def task(name: str = "t", answers: tuple[str, ...] = ("gold",), evidence: str = "text") -> Task:
    return Task(id=name, question="Who?", evidence=evidence, answers=answers)


def rollout(reply: str | None, error: str | None = None, calls: Sequence[Call] = ()) -> Rollout:
    outcome = None if reply is None else Outcome(reply=reply, memories=(reply,))
    return Rollout(task(), 0, list(calls), outcome, {}, error)


class FakeLearner:
    """Counts what it is asked; its weights are the number of updates."""

    def __init__(self, events: list[str]) -> None:
        self.events = events
        self.updates = 0

    def update(self, rows: Sequence[Row], objective: Any, planned: int | None = None) -> dict[str, float]:
        self.events.append(f"update {len(rows)}")
        self.updates += 1
        return {"loss": float("nan") if len(rows) == 13 else 0.5, "tokens": 10.0}

    def logprobs(self, rows: Sequence[Row], temperature: float = 1.0) -> list[list[float]]:
        return [[0.0] * len(row.completion_ids) for row in rows]

    def named_weights(self) -> Iterator[tuple[str, Any]]:
        yield "updates", self.updates

    def save_policy(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "weights").write_text(str(self.updates))

    def save_state(self, folder: Path) -> None:
        self.events.append("save")
        self.save_policy(folder)

    def load_state(self, folder: Path) -> None:
        self.updates = int((folder / "weights").read_text())
        self.events.append(f"load {self.updates}")


Score = Callable[[Rollout], Awaitable[dict[str, float]]]
