"""Whether a run learns: steps that nothing can be learned from, and what in their records says why.

Everything is read from the records of metrics.jsonl, so that a resumed run, the summary and the report find the same.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

#: Steps in a row that are said first, and then again and again.
_FIRST, _EVERY = 3, 10

Record = Mapping[str, Any]


def learned(record: Record) -> bool:
    """Whether the step changed a weight: of the policy, or of a part of the agent that learns by itself.

    So does a record that does not tell.
    """
    norms = [record[key] for key in record if key == "grad_norm" or key.endswith("/grad_norm")]
    return any(norm != 0 for norm in norms) if norms else record.get("rows") != 0


def cause(record: Record) -> tuple[str, str] | None:
    """Why nothing could be learned from a step, as a kind and a text with the remedy; None if something was."""
    if not learned(record):
        return _cause(record)
    if record.get("calls") and record.get("calls/truncated") == 1:
        return "cut", f"every reply of the step was cut at its token limit; {_LIMIT}"
    return None


class Stalls:
    """Follows a run and says when it cannot learn: after three such steps in a row, and then after every ten."""

    def __init__(self, earlier: Sequence[Record] = ()) -> None:
        self._in_a_row = 0
        self._said: set[str] = set()
        for record in earlier:
            self.note(record)

    def note(self, record: Record) -> str | None:
        """Take a finished step in; returns the line to say, if there is one."""
        found = cause(record)
        if found is None:
            self._in_a_row, self._said = 0, set()
            return None
        kind, text = found
        self._in_a_row += 1
        new = self._in_a_row >= _FIRST and kind not in self._said
        if not (new or self._in_a_row % _EVERY == 0):
            return None
        self._said.add(kind)
        what = "a sign that little is learned" if learned(record) else "nothing to learn from"
        return f"{what} in the last {self._in_a_row} steps: {text}"


def nothing_learned(records: Sequence[Record]) -> bool:
    """Whether a run has steps, and none of them changed a weight."""
    return bool(records) and not any(learned(record) for record in records)


def warnings(records: Sequence[Record]) -> list[str]:
    """What a summary or report must say about a run, one line each; nothing for a run that learns."""
    stalls = Stalls()
    said = [line for record in records if (line := stalls.note(record)) is not None]
    if not said and not nothing_learned(records):
        return []
    causes: dict[str, list[str]] = {}
    for record in records:
        found = cause(record)
        if found is not None:
            causes.setdefault(found[0], []).append(found[1])
    lines = [f"{len(texts)} of {len(records)} steps: {texts[-1]}" for texts in causes.values()]
    if nothing_learned(records):
        lines.insert(0, "the weights are unchanged: no step had anything to learn from")
    return lines


_LIMIT = "raise the agent's limit of reply tokens"


def _cause(record: Record) -> tuple[str, str]:
    calls, trainable = record.get("calls"), record.get("calls/trainable")
    if calls == 0:
        return "silent", "the agent made no call, so there is nothing to train"
    if trainable == 0:
        return "untrainable", (
            "no call is trainable: all are of other roles, or empty, or without log-probabilities; let agent.roles "
            "name the policy, and use a sampler that tells log-probabilities"
        )
    if trainable is not None and record.get("calls/unpaid") == trainable:
        return "unpaid", (
            "no reward with a weight pays the modules that were called; see reward.<name>.modules and "
            f"reward.<name>.weight (called: {', '.join(_modules(record))})"
        )
    if record.get("rows"):
        clipped = ", every token was clipped" if record.get("clip_fraction") == 1 else ""
        return "gradient", f"the gradient is zero although there are rows{clipped}"
    if record.get("groups/flat") == 1:
        return "flat", (
            "all groups are flat: every rollout of a task got the same reward"
            f"{_mean(record)}; {_cut(record)}try easier or harder tasks, a higher sampling.train.temperature or a "
            "larger algorithm.group_size"
        )
    return (
        "no rows",
        f"no row came out of the step's rollouts; {_cut(record)}see the step's rollouts for errors",
    )


def _mean(record: Record) -> str:
    reward = record.get("reward")
    return f" ({reward:.3g} on average)" if isinstance(reward, (int, float)) else ""


def _cut(record: Record) -> str:
    """That many replies were cut, if that is so."""
    calls, share = record.get("calls") or 0, record.get("calls/truncated") or 0
    if share < 0.5:
        return ""
    return f"{round(share * calls)} of {calls} replies were cut at their token limit: {_LIMIT}; or "


def _modules(record: Record) -> list[str]:
    return sorted(
        key.removeprefix("length/")
        for key in record
        if key.startswith("length/") and not key.endswith("/max")
    )
