"""Rewards for finding the right memories: those that rest on the turns on which the answer rests."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

from memfactory.core.bounds import AtLeastOne
from memfactory.core.errors import BadInput
from memfactory.core.registry import register
from memfactory.core.texts import nfc
from memfactory.core.types import Rollout

_LISTS = {"retrieved": "retrieved", "reranked": "reranked", "cited": "used"}


@dataclass(frozen=True)
class EvidenceConfig:
    """`of` says which memories count: `retrieved`, `reranked` (those shown to the answerer) or `cited`.

    `top` takes only the first so many of them: with 5, the reward is Recall@5.
    """

    of: Literal["retrieved", "reranked", "cited"] = "reranked"
    top: AtLeastOne | None = None


@register("reward", "evidence", config=EvidenceConfig, source="LongMemEval, arXiv 2410.10813")
@dataclass(frozen=True)
class Evidence:
    """Share of the task's evidence turns that the memories rest on (Recall); None for a task that names none."""

    of: Literal["retrieved", "reranked", "cited"] = "reranked"
    top: int | None = None

    about_modules: ClassVar[bool] = True

    async def __call__(self, rollout: Rollout) -> float | None:
        """In [0, 1]; 0.0 for a failed rollout. Raises `BadInput` for an agent that does not tell turns."""
        wanted = {nfc(turn) for turn in rollout.task.meta.get("evidence_turns") or ()}
        if not wanted:
            return None
        if rollout.error is not None or rollout.outcome is None:
            return 0.0
        info = rollout.outcome.info
        if "sources" not in info or _LISTS[self.of] not in info:
            raise BadInput(
                "reward 'evidence' needs an agent that reports the turns of its memories, such as rmm"
            )
        sources: Mapping[str, Sequence[str]] = info["sources"]
        ids: Sequence[str] = info[_LISTS[self.of]][: self.top]
        found = {nfc(turn) for item_id in ids for turn in sources.get(item_id, ())}
        return len(wanted & found) / len(wanted)
