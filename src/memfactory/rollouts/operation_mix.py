"""What memory agents do to their banks, as shares: which operation how often."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping

from memfactory.core.types import Outcome


def operation_mix(outcomes: Iterable[Outcome | None]) -> dict[str, float]:
    """Share of each operation among all that the outcomes report in `info["operations"]` (kind → count).

    Kinds keep the order in which agents list them. Empty when no agent reports operations, or none were done.
    """
    counts: Counter[str] = Counter()
    for outcome in outcomes:
        done = outcome.info.get("operations") if outcome is not None else None
        if isinstance(done, Mapping):
            for kind, count in done.items():
                counts[kind] += count
    total = sum(counts.values())
    return {kind: count / total for kind, count in counts.items()} if total else {}
