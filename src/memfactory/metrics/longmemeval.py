"""LongMemEval's accuracies (arXiv 2410.10813): by question type, their mean, over all, and of abstentions.

The paper's scores are a judge's yes or no for each question; `summary` averages them as the public scripts do. For
runs without a judge there is `rule_accuracy`, which is stricter where answers are free text.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from memfactory.core.texts import nfc
from memfactory.metrics.qa import sub_exact_match

#: What a reply says that declines to answer, in lower case.
_DECLINED = (
    "not mention",
    "no mention",
    "never mention",
    "didn't mention",
    "not enough information",
    "insufficient information",
    "no information",
    "not specified",
    "not provided",
    "not said",
    "did not say",
    "didn't say",
    "don't know",
    "do not know",
    "not know",
    "unknown",
    "cannot be answered",
    "can't be answered",
    "cannot answer",
    "can't answer",
    "unanswerable",
    "cannot be determined",
    "cannot determine",
)


@dataclass(frozen=True)
class Summary:
    """Mean scores, 0..1: by question type, the mean of those, over all questions, and of the abstention questions.

    `abstention` is None when there are no such questions; they count among their types too.
    """

    by_type: dict[str, float]
    task_averaged: float
    overall: float
    abstention: float | None


def summary(scored: Iterable[tuple[str, bool, float]]) -> Summary:
    """The accuracies of (question type, whether to abstain, score) of every question.

    Raises `ValueError` when there are none.
    """
    rows = list(scored)
    if not rows:
        raise ValueError("no scores to average")
    groups: dict[str, list[float]] = {}
    for kind, _, score in rows:
        groups.setdefault(kind, []).append(score)
    by_type = {kind: sum(scores) / len(scores) for kind, scores in sorted(groups.items())}
    declined = [score for _, abstain, score in rows if abstain]
    return Summary(
        by_type=by_type,
        task_averaged=sum(by_type.values()) / len(by_type),
        overall=sum(score for _, _, score in rows) / len(rows),
        abstention=sum(declined) / len(declined) if declined else None,
    )


def rule_accuracy(prediction: str, golds: Sequence[str], *, abstention: bool = False) -> float:
    """Without a judge: 1.0 if the reply holds a gold answer (sub-EM), else 0.0.

    A question to abstain from is right when the reply says in some usual words that it cannot be answered. The gold
    answers of `single-session-preference` are rubrics that no reply holds: those questions need a judge.
    """
    if abstention:
        said = nfc(prediction).lower().replace("\u2019", "'")
        return float(any(phrase in said for phrase in _DECLINED))
    return sub_exact_match(prediction, golds)
