"""Tasks that begin with memories, made from tasks about whole dialogues: what Memory-R1's two stages train on.

- `temporal_pairs`: the last sessions that matter for a question, and a bank of all sessions before them. The manager
  then learns from a rollout that reads one session, not thirty.
- `frozen_banks`: the bank after all sessions, and nothing to read. The answerer learns from banks that stay the same.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

from memfactory.core.bounds import AtLeastOne
from memfactory.core.errors import BadInput
from memfactory.core.registry import component_field, register
from memfactory.core.types import Task
from memfactory.data.banks import Bank, read_banks
from memfactory.data.dialogue import Dialogue, Memory
from memfactory.data.tasks import LazySequence

ANNOTATED = "annotated"
_CHECKED = 2_000  # tasks that are made once at the start, to see that all of them can be

#: The memories after so many sessions of a dialogue.
BankAfter = Callable[[Dialogue, int], tuple[Memory, ...]]


@dataclass(frozen=True)
class FrozenBanksConfig:
    """Fields of `frozen_banks`. `of` is a source of tasks about dialogues.

    `banks` is `annotated`, for what the data say is worth remembering (LoCoMo's observations; what is true in
    synthetic dialogues), or a file that `memfactory data banks` wrote.
    """

    of: dict[str, Any] = component_field("data", "dialogues")
    banks: str = ANNOTATED

    nothing_to_read: ClassVar[bool] = True


@dataclass(frozen=True)
class TemporalPairsConfig(FrozenBanksConfig):
    """Fields of `temporal_pairs`: those of `frozen_banks`, and how many sessions a rollout reads (`window`)."""

    window: AtLeastOne = 1

    nothing_to_read: ClassVar[bool] = False


@register("data", "temporal_pairs", config=TemporalPairsConfig, source="Memory-R1, arXiv 2508.19828")
def temporal_pairs(of: Sequence[Task], banks: str = ANNOTATED, window: int = 1) -> Sequence[Task]:
    """A question, the last `window` sessions that matter for it, and a bank of all sessions before."""
    after = _bank_after(banks)
    return _checked(of, lambda task: pair(task, after, window))


@register("data", "frozen_banks", config=FrozenBanksConfig, source="Memory-R1, arXiv 2508.19828")
def frozen_banks(of: Sequence[Task], banks: str = ANNOTATED) -> Sequence[Task]:
    """A question and the bank after the whole dialogue, with nothing left to read: for training the answerer."""
    after = _bank_after(banks)
    return _checked(of, lambda task: frozen(task, after))


def pair(task: Task, after: BankAfter, window: int) -> Task:
    """The task with the `window` sessions up to the last that holds a turn of its evidence.

    There the answer is what it is at the end, and can be known. A task that does not say which turns matter ends
    with the last session.
    """
    dialogue = _dialogue_of(task)
    turns = set(task.meta.get("evidence_turns") or ())
    holding = [
        place
        for place, session in enumerate(dialogue.sessions)
        if any(turn.id in turns for turn in session.turns)
    ]
    last = holding[-1] if holding else len(dialogue.sessions) - 1
    first = max(0, last + 1 - window)
    read = dialogue.sessions[first : last + 1]
    name = "-".join(dict.fromkeys((read[0].id, read[-1].id)))
    return _begun(task, replace(dialogue, sessions=read, memories=after(dialogue, first)), name)


def frozen(task: Task, after: BankAfter) -> Task:
    """The task with the bank after its whole dialogue, and no session."""
    dialogue = _dialogue_of(task)
    return _begun(
        task, replace(dialogue, sessions=(), memories=after(dialogue, len(dialogue.sessions))), "bank"
    )


def annotated(dialogue: Dialogue, sessions: int) -> tuple[Memory, ...]:
    """What the data say is worth remembering after so many sessions. Raises `BadInput` where they do not say it."""
    if sessions == 0:
        return dialogue.memories
    held = dialogue.sessions[sessions - 1].after
    if held is None:
        raise BadInput(
            f"dialogue '{dialogue.id}': the data do not say what is worth remembering of it; make a file of banks "
            "(memfactory data banks) and name it as 'banks'"
        )
    return held


def from_file(path: str, banks: Mapping[str, Bank]) -> BankAfter:
    """The memories of a file of banks; what it lacks raises `BadInput`."""

    def after(dialogue: Dialogue, sessions: int) -> tuple[Memory, ...]:
        if sessions == 0:
            return dialogue.memories
        session = dialogue.sessions[sessions - 1].id
        if dialogue.id not in banks or session not in banks[dialogue.id]:
            missing = f"session '{session}' of " if dialogue.id in banks else ""
            raise BadInput(
                f"{path}: has no bank of {missing}dialogue '{dialogue.id}'; make it anew from these data"
            )
        return banks[dialogue.id][session]

    return after


def _bank_after(banks: str) -> BankAfter:
    return annotated if banks == ANNOTATED else from_file(banks, read_banks(banks))


def _checked(tasks: Sequence[Task], make: Callable[[Task], Task]) -> Sequence[Task]:
    for index in range(min(len(tasks), _CHECKED)):
        make(tasks[index])
    return LazySequence(len(tasks), lambda index: make(tasks[index]))


def _dialogue_of(task: Task) -> Dialogue:
    if not isinstance(task, Task) or not isinstance(task.evidence, Dialogue) or not task.evidence.sessions:
        raise BadInput(
            "temporal_pairs and frozen_banks need a source of tasks about dialogues with sessions "
            f"(of: {{type: dialogues}} or locomo); this one has {getattr(task, 'id', type(task).__name__)!r}"
        )
    return task.evidence


def _begun(task: Task, dialogue: Dialogue, name: str) -> Task:
    whole = dialogue.id
    meta = {**task.meta, "dialogue": whole, "part": name, "memories_before": len(dialogue.memories)}
    return replace(task, id=f"{task.id}@{name}", evidence=replace(dialogue, id=f"{whole}@{name}"), meta=meta)
