"""A memory that takes notes instead of rewriting itself, a reward for what it kept, and tasks that are hard for it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from memfactory.core.bounds import AtLeastOne
from memfactory.core.chat import ChatModel
from memfactory.core.errors import BadInput
from memfactory.core.registry import register
from memfactory.core.types import Message, Rollout, Task
from memfactory.environments.long_context import LongContext
from memfactory.metrics.qa import normalize
from memfactory.modules.prompts import fill, require
from memfactory.rewards.rubric import Rubric


@dataclass(frozen=True)
class NotesConfig:
    """`note_tokens` bounds one note. The prompts are `prompts.note` and `prompts.empty_memory`."""

    note_tokens: AtLeastOne = 32


@register("module", "notes", config=NotesConfig)
class NotesMemory:
    """One note a block, below the notes before it; when the memory is full the oldest go."""

    def __init__(self, note_tokens: int, prompts: Mapping[str, str]) -> None:
        self.note_tokens = note_tokens
        self.template = require(prompts, "note", ("question", "block"))
        self.empty = require(prompts, "empty_memory")

    async def update(self, question: str, memory: str, block: str, model: ChatModel, max_tokens: int) -> str:
        """Ask for a note about the block; an empty one changes nothing."""
        prompt = fill(self.template, question=question, block=block)
        limit = min(self.note_tokens, max_tokens)
        call = await model.chat([Message("user", prompt)], module="note", max_tokens=limit)
        note = " ".join(call.text.split())
        if note in ("", self.empty):
            return memory
        notes = [note] if memory == self.empty else [*memory.split("\n"), note]
        while len(notes) > 1 and model.count_tokens("\n".join(notes)) > max_tokens:
            del notes[0]
        return model.truncate_text("\n".join(notes), max_tokens)


@register("reward", "kept_answer")
@dataclass(frozen=True)
class KeptAnswer:
    """Share of a gold answer's words that the memory holds after the last block, best over the golds."""

    async def __call__(self, rollout: Rollout) -> float | None:
        """None for a task without gold answers, 0.0 for a rollout without memories."""
        if not rollout.task.answers:
            return None
        memories = rollout.outcome.memories if rollout.outcome is not None else ()
        held = set(normalize(memories[-1]).split()) if memories else set()
        golds = [normalize(gold).split() for gold in rollout.task.answers]
        return max(sum(word in held for word in gold) / max(len(gold), 1) for gold in golds)


@dataclass(frozen=True)
class EarlyFactsConfig:
    """Keep tasks whose facts stand in the first `within` sections, of the first `look_at` tasks of each set."""

    within: int = 1
    look_at: int = 2000


@register("environment", "early_facts", config=EarlyFactsConfig)
class EarlyFacts(LongContext):
    """Tasks of `data: facts` in which what matters comes early and must outlive all that follows."""

    def __init__(
        self,
        within: int,
        look_at: int,
        rubric: Rubric,
        train_tasks: Sequence[Task],
        eval_tasks: Mapping[str, Sequence[Task]],
    ) -> None:
        def early(tasks: Sequence[Task]) -> Sequence[Task]:
            looked_at = tasks[:look_at]
            kept = [task for task in looked_at if _last_section(task) < within]
            if looked_at and not kept:
                raise BadInput(
                    f"environment.within={within}: no task of {len(looked_at)} has its facts so early"
                )
            return kept

        sets = {name: early(tasks) for name, tasks in eval_tasks.items()}
        super().__init__(rubric, early(train_tasks), sets)


def _last_section(task: Task) -> int:
    """The last section (from 0) that holds a needed fact."""
    try:
        return max(task.meta["sections_needed"])
    except KeyError:
        raise BadInput(
            f"environment 'early_facts' needs tasks of data 'facts'; '{task.id}' is none"
        ) from None
