"""What became of what was learned: how much of it rounding leaves in `final/`, and whether anything is there at all."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from memfactory.core.ranks import ALONE, Ranks
from memfactory.models.weight_files import same_weights

if TYPE_CHECKING:
    from memfactory.learners.rounding import Rounding

#: Share of the learned change's norm from which on rounding is a warning.
_MUCH = 0.1
FINAL = "final"


def look_at_final(
    final: Path, first: Path, learner: Any, places: Mapping[str, str], ranks: Ranks = ALONE
) -> dict[str, Any]:
    """What the summary must say of the policy in `final`, of a run that began with the weights in `first`.

    `places`: where weights go (`final` and the like) -> their type; float32 loses nothing. All ranks call it; the
    first has the answer: `rounding` by type, if one is narrower (`Rounding`, and the places that have it),
    `unchanged` if `final` holds the weights of `first`, and `warnings`.
    """
    found: dict[str, Any] = {}
    said: list[str] = []
    for dtype in sorted({kind for kind in places.values() if kind != "float32"}):
        measured = learner.rounding(dtype)
        if measured is None:
            continue
        where = [place for place, kind in places.items() if kind == dtype]
        found[dtype] = {"in": where, **asdict(measured)}
        if measured.lost > _MUCH:
            said.append(
                f"rounding to {dtype} ({', '.join(where)}) spoils what was learned (correlation of the change of the "
                f"weights {measured.correlation:.2f}); {_remedy(where)}"
            )
    same = ranks.broadcast(ranks.first and same_weights(final, first))
    if same:
        said.insert(0, _why_same(learner.rounding("float32"), places[FINAL]))
    return {
        **({"rounding": found} if found else {}),
        **({"unchanged": True} if same else {}),
        **({"warnings": said} if said else {}),
    }


def rounding_line(figures: Mapping[str, Any]) -> str:
    """One entry of `rounding` in words."""
    return (
        f"in {figures['dtype']} ({', '.join(figures['in'])}) rounding errs by {figures['lost']:.1%} of the change that "
        f"was learned; what is left of it correlates with it by {figures['correlation']:.3f}"
    )


def _remedy(where: list[str]) -> str:
    if FINAL in where:
        return "learner.dtype=float32 keeps it, and so does an adapter alone (`memfactory export`)"
    return "sampler.adapter_sync=true hands over adapters without it, model.dtype=float32 weights"


def _why_same(learned: Rounding | None, dtype: str) -> str:
    same = "the weights in final/ are those that the run began with, bit for bit"
    if learned is None:
        return f"{same}: no step changed one that is trained; raise learner.lr"
    if dtype != "float32":
        return f"{same}: all that was learned is below what {dtype} can tell apart"
    return f"{same}: what was trained is not part of the model that is written; look at learner.lora_targets"
