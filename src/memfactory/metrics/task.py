"""The metric that a benchmark has of its own, as its tasks name it in `meta["metric"]`."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from memfactory.metrics import babilong, locomo, longmemeval, qa, ruler

#: By name: (prediction, golds, question, meta of the task) -> score in [0, 1].
OWN: Mapping[str, Callable[[str, Sequence[str], str, Mapping[str, Any]], float]] = {
    "string_match_all": lambda said, golds, question, meta: ruler.string_match_all(said, golds),
    "string_match_part": lambda said, golds, question, meta: ruler.string_match_part(said, golds),
    "babilong": lambda said, golds, question, meta: babilong.score(said, golds, question, meta["labels"]),
    "locomo": lambda said, golds, question, meta: max(
        (locomo.score(said, gold, meta["category"]) for gold in golds), default=0.0
    ),
    "longmemeval": lambda said, golds, question, meta: longmemeval.rule_accuracy(
        said, golds, abstention=bool(meta.get("abstention"))
    ),
    "meteor": lambda said, golds, question, meta: qa.meteor(said, golds),
}


def own_metric(
    prediction: str, golds: Sequence[str], *, question: str, meta: Mapping[str, Any]
) -> tuple[str, float] | None:
    """The name and the score of the metric that a task names; None where it names none that is known here.

    Raises `KeyError` when the task lacks what its metric needs (`labels` of babilong, `category` of locomo).
    """
    name = meta.get("metric")
    if not isinstance(name, str) or name not in OWN:
        return None
    return name, OWN[name](prediction, golds, question, meta)
