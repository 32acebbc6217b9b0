"""What judges made of an evaluation set, and how far they agree with exact match."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from memfactory.core.types import Verdict


class Judged(Protocol):
    """What this page needs of a prediction (`evaluation.runner.Prediction`)."""

    @property
    def scores(self) -> Mapping[str, float]: ...
    @property
    def verdicts(self) -> Mapping[str, Verdict]: ...
    @property
    def error(self) -> str | None: ...


@dataclass(frozen=True)
class JudgeResult:
    """One judge on one set. `score` is the mean of its values, None if it judged nothing.

    Failed rollouts are in the mean with 0, as in every other metric; unjudged ones are not. `agreement` is, by rule
    metric, the share of judged replies on which both say the same (right is a half or more). `problem` is why the
    first unjudged one is unjudged.
    """

    judge: str
    score: float | None
    judged: int
    unjudged: int
    agreement: Mapping[str, float | None]
    problem: str | None


def judge_results(
    predictions: Sequence[Judged], rules: Sequence[str] = ("exact_match",)
) -> dict[str, JudgeResult]:
    """The result of each judge, by the name of its reward component; empty without judges."""
    names = dict.fromkeys(name for prediction in predictions for name in prediction.verdicts)
    return {name: _result(name, predictions, rules) for name in names}


def _result(name: str, predictions: Sequence[Judged], rules: Sequence[str]) -> JudgeResult:
    finished = [p for p in predictions if p.error is None and name in p.verdicts]
    judged = [(p, value) for p in finished if (value := p.verdicts[name].value) is not None]
    missing = [p.verdicts[name] for p in finished if p.verdicts[name].value is None]
    failed = sum(p.error is not None for p in predictions)
    total = sum(value for _, value in judged)
    return JudgeResult(
        judge=next(p.verdicts[name].judge for p in predictions if name in p.verdicts),
        score=total / (len(judged) + failed) if judged else None,
        judged=len(judged),
        unjudged=len(missing),
        agreement={
            rule: sum((value >= 0.5) == (p.scores[rule] >= 0.5) for p, value in judged) / len(judged)
            if judged
            else None
            for rule in rules
        },
        problem=missing[0].said if missing else None,
    )


def judge_lines(judges: Mapping[str, Mapping[str, JudgeResult]]) -> list[str]:
    """A line for each set and judge, to print below the table: who judged, agreement, and what was left out."""
    lines = []
    for set_name, results in judges.items():
        for name, result in results.items():
            where = f"{set_name}: {name} by {result.judge}"
            if result.score is None:
                lines.append(
                    f"warning: {where}: nothing could be judged ({result.unjudged} replies), so there is no score; "
                    f"first: {result.problem}"
                )
                continue
            agreement = ", ".join(
                f"agrees with {rule} on {100 * share:.1f} % of {result.judged} replies"
                for rule, share in result.agreement.items()
                if share is not None
            )
            left_out = (
                f"; {result.unjudged} unjudged, left out; first: {result.problem}" if result.unjudged else ""
            )
            lines.append(f"{where}: {agreement}{left_out}")
    return lines
