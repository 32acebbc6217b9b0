"""Rollouts as the viewers show them: of training (rollouts/*.jsonl), of held-out sets, and of `eval`.

All three become one shape, `ViewedRollout`. Thousands are too many for one page, so `thin` keeps whole groups,
evenly spaced; long prompts are cut in the middle. What was left out is always said.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TypeVar

from memfactory.core.texts import cut
from memfactory.reports.run_data import HeldOut, RunData, step_files

T = TypeVar("T")


@dataclass(frozen=True)
class ViewedCall:
    """One call. `memory` is what the memory held when it was finished (None: as before).

    A `prompt` of None was not recorded: held-out rollouts keep only what the memory held.
    """

    module: str
    prompt: str | None
    reply: str | None
    finish: str | None = None
    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    advantage: float | None = None
    memory: str | None = None


@dataclass(frozen=True)
class ViewedRollout:
    """One rollout. `source` is "training", an evaluation's label, or who was measured by `eval`.

    `group` is equal for the rollouts of one task in one source and step of a run. `memory` is what the memory
    held at the start, `problems` what was wrong with replies, as the agent noted it.
    """

    run: str
    source: str
    step: int | None
    set: str
    task: str
    group: str
    index: int
    question: str
    golds: list[str]
    reply: str | None
    reward: float | None
    rewards: dict[str, float]
    scores: dict[str, float]
    error: str | None
    memory: str | None
    calls: list[ViewedCall]
    operations: dict[str, float]
    problems: list[str]

    def as_json(self, longest: int) -> dict[str, Any]:
        """A JSON-ready dictionary without empty values; texts of calls cut to `longest` characters."""
        value = asdict(self)
        for call in value["calls"]:
            for key in ("prompt", "reply", "memory"):
                if call[key] is not None:
                    call[key] = cut(call[key], longest)
        calls = [_without_nothing(call) for call in value["calls"]]
        return {**_without_nothing(value), "golds": self.golds, "calls": calls}


def count_training_rollouts(run: RunData) -> int:
    """How many rollouts of training are recorded, by the lines of their files."""
    return sum(_lines(file) for _, file in step_files(run.path))


def training_rollouts(run: RunData, most: int | None = None) -> Iterator[ViewedRollout]:
    """Recorded rollouts of a run's training, by step; lines that are no rollout are counted in `run.notes`.

    With `most`, evenly spaced steps are read that hold about as many (at least one): the files of a long run may
    be larger than memory.
    """
    files = step_files(run.path)
    found = sum(_lines(file) for _, file in files) if most is not None else 0
    if most is not None and found > most:
        files = _spaced(files, max(1, most * len(files) // found))
    for step, file in files:
        broken = 0
        with open(file, encoding="utf-8", errors="replace") as lines:
            for line in lines:
                try:
                    record = json.loads(line)
                except (ValueError, RecursionError):
                    record = None
                if isinstance(record, dict):
                    yield _of_training(run.name, step, record)
                else:
                    broken += 1
        if broken:
            run.notes.append(f"{file}: {broken} lines are no rollouts and were left out.")


def _lines(file: Path) -> int:
    with open(file, "rb") as content:
        return sum(block.count(b"\n") for block in iter(lambda: content.read(1 << 20), b""))


def _spaced(values: Sequence[T], count: int) -> list[T]:
    """`count` of the values, evenly spaced, the first and the last among them."""
    return [values[round(i * (len(values) - 1) / max(count - 1, 1))] for i in range(count)]


def held_out_rollouts(run: RunData, held_out: HeldOut) -> Iterator[ViewedRollout]:
    """The predictions of one held-out set."""
    for record in held_out.predictions:
        yield _of_prediction(run.name, held_out, record)


def thin(rollouts: Sequence[ViewedRollout], most: int) -> list[ViewedRollout]:
    """At most `most` of the rollouts: whole groups, evenly spaced, the first and the last among them."""
    groups: dict[str, list[ViewedRollout]] = {}
    for rollout in rollouts:
        groups.setdefault(rollout.group, []).append(rollout)
    if len(rollouts) <= most:
        return list(rollouts)
    ordered = list(groups.values())
    count = min(len(ordered), max(1, most * len(ordered) // len(rollouts)))
    while count:
        kept = [rollout for group in _spaced(ordered, count) for rollout in group]
        if len(kept) <= most:
            return kept
        count -= max(1, count // 20)
    return ordered[0][:most]


def _of_training(run: str, step: int, record: Mapping[str, Any]) -> ViewedRollout:
    calls = [call for call in _list(record.get("calls")) if isinstance(call, Mapping)]
    advantages = _numbers(record.get("advantages"))
    task, group = _text(record.get("task")), record.get("group")
    return ViewedRollout(
        run=run,
        source="training",
        step=step,
        set="",
        task=task,
        group=f"{run}|training|{step}|{task if group is None else group}",
        index=_whole(record.get("index")) or 0,
        question=_text(record.get("question")),
        golds=[_text(gold) for gold in _list(record.get("golds"))],
        reply=_maybe_text(record.get("reply")),
        reward=_number(record.get("reward")),
        rewards=_numbers(record.get("rewards")),
        scores={},
        error=_maybe_text(record.get("error")),
        memory=_maybe_text(record.get("memory")),
        calls=[
            ViewedCall(
                module=_text(call.get("module")),
                prompt=_maybe_text(call.get("prompt")),
                reply=_maybe_text(call.get("reply")),
                finish=_maybe_text(call.get("finish_reason")),
                prompt_tokens=_whole(call.get("prompt_tokens")),
                completion_tokens=_whole(call.get("completion_tokens")),
                advantage=_number(call.get("advantage", advantages.get(_text(call.get("module"))))),
                memory=memory,
            )
            for call, memory in zip(calls, _memories(record, calls), strict=True)
        ],
        operations=_operations(record),
        problems=_problems(record),
    )


def _memories(record: Mapping[str, Any], calls: Sequence[Mapping[str, Any]]) -> list[str | None]:
    """What the memory held after each call; a list `memories` beside the calls belongs to the module that fits."""
    listed = [_text(memory) for memory in _list(record.get("memories"))]
    found = [_maybe_text(call.get("memory")) for call in calls]
    if not listed or any(memory is not None for memory in found):
        return found
    for module in dict.fromkeys(_text(call.get("module")) for call in calls):
        made = [number for number, call in enumerate(calls) if _text(call.get("module")) == module]
        if len(made) == len(listed):
            for number, memory in zip(made, listed, strict=True):
                found[number] = memory
            break
    return found


def _of_prediction(run: str, held_out: HeldOut, record: Mapping[str, Any]) -> ViewedRollout:
    task = _text(record.get("task_id"))
    trace = [call for call in _list(record.get("trace")) if isinstance(call, Mapping)]
    memories = [_text(memory) for memory in _list(record.get("memories"))]
    if trace:
        known = _memories({"memories": memories}, trace)
        calls = [
            ViewedCall(
                module=_text(call.get("module")),
                prompt=_maybe_text(call.get("prompt")),
                reply=_maybe_text(call.get("text")),
                finish=_maybe_text(call.get("finish_reason")),
                memory=memory,
            )
            for call, memory in zip(trace, known, strict=True)
        ]
    else:
        calls = [ViewedCall(module="memory", prompt=None, reply=None, memory=memory) for memory in memories]
    rewards, scores = _numbers(record.get("rewards")), _numbers(record.get("scores"))
    return ViewedRollout(
        run=run,
        source=held_out.label,
        step=held_out.step,
        set=held_out.set,
        task=task,
        group=f"{run}|{held_out.label}|{held_out.set}|{task}",
        index=_whole(record.get("index")) or 0,
        question=_text(record.get("question")),
        golds=[_text(gold) for gold in _list(record.get("golds"))],
        reply=_maybe_text(record.get("reply")),
        reward=scores.get(held_out.metric),
        rewards=rewards,
        scores=scores,
        error=_maybe_text(record.get("error")),
        memory=None,
        calls=calls,
        operations={},
        problems=[],
    )


def _operations(record: Mapping[str, Any]) -> dict[str, float]:
    info = record.get("info")
    return _numbers(info.get("operations")) if isinstance(info, Mapping) else {}


def _problems(record: Mapping[str, Any]) -> list[str]:
    info = record.get("info")
    return [_text(error) for error in _list(info.get("errors"))] if isinstance(info, Mapping) else []


def _without_nothing(value: Mapping[str, Any]) -> dict[str, Any]:
    """Without None and empty mappings and lists; an empty text stays: a memory that was emptied is one."""
    return {key: inner for key, inner in value.items() if inner is not None and inner not in ({}, [])}


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


def _text(value: Any) -> str:
    return value if isinstance(value, str) else "" if value is None else str(value)


def _maybe_text(value: Any) -> str | None:
    return None if value is None else _text(value)


def _number(value: Any) -> float | None:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not abs(value) < 1e300:
        return None
    return float(value)


def _whole(value: Any) -> int | None:
    number = _number(value)
    return None if number is None else int(number)


def _numbers(value: Any) -> dict[str, float]:
    found = {str(key): _number(inner) for key, inner in value.items()} if isinstance(value, Mapping) else {}
    return {key: inner for key, inner in found.items() if inner is not None}
