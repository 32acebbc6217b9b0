"""What is kept of an evaluated rollout, and the scores of its answer."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from typing import Any

from memfactory.core.replies import answer_in
from memfactory.core.types import Rollout, Task, Usage, Verdict, summed
from memfactory.evaluation.metrics import METRICS, BatchMetric, metrics_for
from memfactory.metrics.boxed import last_boxed

#: Texts of a task's meta that are longer are not repeated in every result (gold evidence, for instance).
_LONGEST_META = 200


@dataclass(frozen=True)
class Finished:
    """What is kept of a rollout, whatever it will be scored by.

    `operations` counts the operations on a memory bank by kind, for agents that have one. `verdicts` are those of
    judges, by reward component. `trace` are the calls as text, if they are kept. Tokens are None where a server does
    not tell them; `changes` is what servers were asked otherwise than the recipe says, one line each.
    """

    reply: str
    memories: tuple[str, ...]
    rewards: Mapping[str, float]
    calls: int
    prompt_tokens: int | None
    completion_tokens: int | None
    truncated_calls: int
    seconds: float
    error: str | None
    operations: Mapping[str, int]
    verdicts: Mapping[str, Verdict]
    trace: tuple[Mapping[str, str], ...] | None = None
    changes: tuple[str, ...] = ()
    unanswered_calls: int = 0

    @property
    def judged(self) -> bool:
        """Whether every judge that was asked gave a value."""
        return all(verdict.value is not None for verdict in self.verdicts.values())

    def as_json(self) -> dict[str, Any]:
        """A JSON-ready dictionary."""
        return asdict(self)

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Finished:
        """The opposite of `as_json`; other keys are passed over. Raises `KeyError` or `TypeError` for anything else."""
        found = {field.name: value[field.name] for field in fields(cls)}
        trace = found["trace"]
        return cls(
            **{
                **found,
                "memories": tuple(found["memories"]),
                "rewards": dict(found["rewards"]),
                "operations": dict(found["operations"]),
                "verdicts": {name: _verdict(verdict) for name, verdict in found["verdicts"].items()},
                "changes": tuple(found["changes"]),
                "trace": None if trace is None else tuple(trace),
            }
        )


@dataclass(frozen=True)
class Prediction:
    """One scored rollout of one task. `boxed` tells whether the reply held a boxed answer.

    `answer` is the boxed text, or the whole reply when there is none. `scores` holds only metrics that apply;
    `task_digest` tells tasks apart that have one id. `meta` are the short values of the task's meta.
    """

    task_id: str
    task_digest: str
    index: int
    question: str
    golds: tuple[str, ...]
    answer: str
    boxed: bool
    scores: Mapping[str, float]
    finished: Finished
    meta: Mapping[str, Any]

    @property
    def verdicts(self) -> Mapping[str, Verdict]:
        """What judges said, by reward component."""
        return self.finished.verdicts

    @property
    def error(self) -> str | None:
        """Why the agent could not do the task, if it could not."""
        return self.finished.error

    def as_json(self) -> dict[str, Any]:
        """A JSON-ready dictionary, flat."""
        value = {field.name: getattr(self, field.name) for field in fields(self) if field.name != "finished"}
        return {**value, "golds": list(self.golds), **self.finished.as_json()}


def finish(rollout: Rollout, *, trace: bool = False) -> Finished:
    """What is kept of a rollout; with `trace` its prompts and replies too."""
    outcome, calls = rollout.outcome, rollout.calls
    changes = [line for call in calls for line in call.changes]
    changes += [line for verdict in rollout.verdicts.values() for line in verdict.changes]
    return Finished(
        reply=outcome.reply if outcome is not None else "",
        memories=outcome.memories if outcome is not None else (),
        rewards=dict(rollout.rewards),
        calls=len(calls),
        prompt_tokens=summed(call.prompt_tokens for call in calls),
        completion_tokens=summed(call.completion_tokens for call in calls),
        truncated_calls=sum(call.finish_reason == "length" for call in calls),
        unanswered_calls=sum(bool(call.problem) for call in calls),
        seconds=round(rollout.seconds, 3),
        error=rollout.error if outcome is not None or rollout.error else "the agent gave no outcome",
        operations=dict(outcome.info.get("operations") or {}) if outcome is not None else {},
        verdicts=dict(rollout.verdicts),
        trace=tuple(
            {
                "module": call.module,
                "role": call.role,
                "prompt": call.prompt_text,
                "text": call.whole,
                "finish_reason": call.finish_reason,
            }
            for call in calls
        )
        if trace
        else None,
        changes=tuple(dict.fromkeys(changes)),
    )


def score(
    task: Task,
    index: int,
    finished: Finished,
    metrics: Iterable[str] | None = None,
    task_digest: str | None = None,
) -> Prediction:
    """Score what a rollout answered; a failed one scores 0 on every metric that applies to its task.

    Metrics that score a whole set at once are left to `score_together`.
    """
    boxed = last_boxed(finished.reply)
    answer = answer_in(finished.reply) if boxed is None else boxed
    scores = {}
    for name in metrics_for(task, metrics):
        metric = METRICS[name].score
        value = None if metric is None else metric(answer, task)
        if value is not None:
            scores[name] = 0.0 if finished.error is not None else value
    return Prediction(
        task_id=task.id,
        task_digest=digest(task) if task_digest is None else task_digest,
        index=index,
        question=task.question,
        golds=task.answers,
        answer=answer,
        boxed=boxed is not None,
        scores=scores,
        finished=finished,
        meta={key: value for key, value in task.meta.items() if _is_short(value)},
    )


def score_together(
    predictions: Sequence[Prediction], metrics: Iterable[str], batched: Mapping[str, BatchMetric]
) -> list[Prediction]:
    """The predictions with the scores of those metrics that score all answers at once; failed ones score 0."""
    scored = list(predictions)
    for name in metrics:
        if METRICS[name].score is not None:
            continue
        answered = [place for place, prediction in enumerate(scored) if prediction.error is None]
        values = dict.fromkeys(range(len(scored)), 0.0)
        if answered:
            answers, golds = [scored[i].answer for i in answered], [scored[i].golds for i in answered]
            values.update(zip(answered, batched[name](answers, golds), strict=True))
        scored = [replace(p, scores={**p.scores, name: values[i]}) for i, p in enumerate(scored)]
    return scored


def predict(rollout: Rollout, metrics: Iterable[str] | None = None) -> Prediction:
    """Score one rollout's reply against the task's gold answers."""
    return score(rollout.task, rollout.index, finish(rollout), metrics)


def digest(task: Task) -> str:
    """16 hex digits that change with the question, the evidence or the gold answers."""
    parts = (task.question, repr(task.evidence), *task.answers)  # a dialogue: its starting memories too
    text = "\x1f".join(parts).encode(errors="backslashreplace")
    return hashlib.blake2b(text, digest_size=8).hexdigest()


def whole_digest(task: Task, task_digest: str) -> str:
    """16 hex digits that change with anything of the task, its meta included: oracles and rewards read it.

    `task_digest` is its `digest`, which the caller has.
    """
    text = f"{task_digest}\x1f{sorted(task.meta.items())!r}".encode(errors="backslashreplace")
    return hashlib.blake2b(text, digest_size=8).hexdigest()


def _verdict(value: Mapping[str, Any]) -> Verdict:
    usage = value["usage"]
    return Verdict(
        **{**value, "usage": None if usage is None else Usage(**usage), "changes": tuple(value["changes"])}
    )


def _is_short(value: Any) -> bool:
    if isinstance(value, str):
        return len(value) <= _LONGEST_META
    return value is None or isinstance(value, bool | int | float)
