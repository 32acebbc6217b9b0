"""Where tasks come from. Importing this module registers every `data` component that ships.

Files are read by `memfactory.data.readers` (one module a public format) and `memfactory.data.traces`; the
synthetic reading and dialogue tasks are generated here, RULER in `memfactory.data.synthetic.ruler`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from memfactory.core.bounds import AtLeastOne, Count, Seed, Share, Some, SomeOrNone
from memfactory.core.registry import register
from memfactory.core.types import Task
from memfactory.data import mixture, traces
from memfactory.data.readers import hotpotqa, jsonl, locomo, longmemeval, memagent, msc, musique
from memfactory.data.synthetic import babilong, reranking, reranking_traces, ruler
from memfactory.data.tasks import as_task

__all__ = [
    "DialoguesConfig",
    "FactsConfig",
    "babilong",
    "dialogues",
    "facts",
    "hotpotqa",
    "jsonl",
    "locomo",
    "longmemeval",
    "memagent",
    "mixture",
    "msc",
    "musique",
    "reranking",
    "reranking_traces",
    "ruler",
    "traces",
]


@dataclass(frozen=True)
class FactsConfig:
    """Fields of `facts`, described at `memfactory.data.synthetic.facts.make_task`.

    `split` is train or heldout; `size` tasks, from number `offset` on; a text has `sections *
    section_tokens` tokens of the tiny tokenizer.
    """

    split: Literal["train", "heldout"] = "train"
    size: AtLeastOne = 100_000
    seed: Seed = 0
    offset: Count = 0
    sections: Some = 3
    section_tokens: Some = 40
    facts_per_section: Some = 4
    two_fact_share: Share = 0.3


@register("data", "facts", config=FactsConfig)
def facts(
    split: str = "train",
    size: int = 100_000,
    seed: int = 0,
    offset: int = 0,
    sections: int = 3,
    section_tokens: int = 40,
    facts_per_section: int = 4,
    two_fact_share: float = 0.3,
) -> Sequence[Task]:
    """The synthetic reading task: find one or two facts in a text of many, generated as asked for."""
    from memfactory.data.synthetic.facts import make_task

    def make(index: int) -> Task:
        task = make_task(
            offset + index,
            seed=seed,
            split=split,
            sections=sections,
            section_tokens=section_tokens,
            facts_per_section=facts_per_section,
            two_fact_share=two_fact_share,
        )
        return as_task(task)

    return traces.generated("facts", size, make)


@dataclass(frozen=True)
class DialoguesConfig:
    """Fields of `dialogues`, described at `memfactory.data.synthetic.dialogues.make_dialogue_task`.

    `split` is train or heldout; `size` tasks, from number `offset` on; `question` is value, count, when or any;
    `remembered`, the form of the memories that `temporal_pairs` and `frozen_banks` begin with, is sentence or words.
    """

    split: Literal["train", "heldout"] = "train"
    size: AtLeastOne = 100_000
    seed: Seed = 0
    offset: Count = 0
    sessions: Some = 4
    facts_per_session: SomeOrNone = 2
    small_talk: SomeOrNone = 2
    question: Literal["any", "value", "count", "when"] = "any"
    remembered: Literal["sentence", "words"] = "sentence"


@register("data", "dialogues", config=DialoguesConfig)
def dialogues(
    split: str = "train",
    size: int = 100_000,
    seed: int = 0,
    offset: int = 0,
    sessions: int = 4,
    facts_per_session: int = 2,
    small_talk: int = 2,
    question: str = "any",
    remembered: str = "sentence",
) -> Sequence[Task]:
    """Synthetic dialogues in which facts are stated, changed, taken back and repeated; asked is what is true."""
    from memfactory.data.synthetic.dialogues import make_dialogue_task

    def make(index: int) -> Task:
        return make_dialogue_task(
            offset + index,
            seed=seed,
            split=split,
            sessions=sessions,
            facts_per_session=facts_per_session,
            small_talk=small_talk,
            question=question,
            remembered=remembered,
        )

    return traces.generated("dialogues", size, make)
