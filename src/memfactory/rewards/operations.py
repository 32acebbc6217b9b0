"""Rewards for how an agent keeps its memory bank: layouts of the replies, and operations that make no sense."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from memfactory.core.bounds import AtLeastOne
from memfactory.core.errors import BadInput, did_you_mean
from memfactory.core.registry import register
from memfactory.core.types import Rollout


@dataclass(frozen=True)
class ModuleFormatConfig:
    """`module` is the module whose replies count; usually it is also the one that `modules` pays."""

    module: str


@register("reward", "format", config=ModuleFormatConfig, source="MemFactory, arXiv 2603.29493")
@dataclass(frozen=True)
class ModuleFormat:
    """Share of a module's replies that keep to its layout, in [0, 1]; None if it was never called."""

    module: str

    about_modules: ClassVar[bool] = True

    async def __call__(self, rollout: Rollout) -> float | None:
        """0.0 for a failed rollout. Raises `BadInput` for a module that the agent has no layout for."""
        if rollout.error is not None or rollout.outcome is None:
            return 0.0
        shares: Mapping[str, float | None] = _info(rollout, "format")
        if self.module not in shares:
            raise BadInput(
                f"reward 'format': the agent has no module '{self.module}'; modules: {', '.join(shares)}"
                f"{did_you_mean(self.module, shares)}"
            )
        return shares[self.module]


@dataclass(frozen=True)
class OpErrorsConfig:
    """`worst` errors, or more, are the full penalty."""

    worst: AtLeastOne = 4


@register("reward", "op_errors", config=OpErrorsConfig)
@dataclass(frozen=True)
class OpErrors:
    """From 0 (no wrong operation) down to -1 (`worst` or more of them); None without a manager's call."""

    worst: int = 4

    about_modules: ClassVar[bool] = True

    async def __call__(self, rollout: Rollout) -> float | None:
        """-1.0 for a failed rollout."""
        if rollout.error is not None or rollout.outcome is None:
            return -1.0
        if not _info(rollout, "manager_calls"):
            return None
        return -min(_info(rollout, "op_errors"), self.worst) / self.worst


def _info(rollout: Rollout, name: str) -> Any:
    assert rollout.outcome is not None
    if name not in rollout.outcome.info:
        raise BadInput(f"this reward needs an agent that reports '{name}', such as memory_r1")
    return rollout.outcome.info[name]
