"""RULER (arXiv 2404.06654): synthetic tasks about texts of any length, made as they are asked for.

The definitions are the published ones; word lists, code and essays are not. Two things differ: `length` is that
of the text alone, as the agent brings its own prompt, and there are no worked examples in front. `qa_1` and `qa_2`
ask the questions of a SQuAD or HotpotQA file of the user's.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from memfactory.core.bounds import AtLeastOne, Seed, TextTokens
from memfactory.core.errors import BadInput, did_you_mean
from memfactory.core.registry import register
from memfactory.core.types import Task
from memfactory.data.synthetic.haystack import Count, fit, read_sentences, token_counter
from memfactory.data.synthetic.ruler_qa import QA, QaSource, draft_qa, read_source
from memfactory.data.synthetic.ruler_tasks import TASKS, draft, needs_essay
from memfactory.data.traces import generated

ALL_TASKS = (*TASKS, *QA)
TaskName = Literal[
    "niah_single_1",
    "niah_single_2",
    "niah_single_3",
    "niah_multikey_1",
    "niah_multikey_2",
    "niah_multikey_3",
    "niah_multivalue",
    "niah_multiquery",
    "vt",
    "cwe",
    "fwe",
    "qa_1",
    "qa_2",
]


@dataclass(frozen=True)
class RulerConfig:
    """Fields of `ruler`.

    A text has `length` tokens, at most one in a hundred fewer, as measured by the tokenizer of a model
    (`tokenizer`: folder, hub id or alias; null estimates). `haystack` is a text file for the tasks that hide
    their needles in essays: niah_single_2, niah_single_3, niah_multikey_1, niah_multivalue, niah_multiquery.
    `questions` is SQuAD's JSON for qa_1 and HotpotQA's for qa_2; their questions come in the file's order.
    """

    task: TaskName = "niah_single_1"
    length: TextTokens = 4096
    size: AtLeastOne = 100
    seed: Seed = 0
    haystack: str | None = None
    questions: str | None = None
    tokenizer: str | None = None


@register("data", "ruler", config=RulerConfig, source="RULER, arXiv 2404.06654")
def ruler(
    task: str = "niah_single_1",
    length: int = 4096,
    size: int = 100,
    seed: int = 0,
    haystack: str | None = None,
    questions: str | None = None,
    tokenizer: str | None = None,
) -> Sequence[Task]:
    """RULER's retrieval, tracing, counting and question answering tasks at any length, generated as asked for."""
    if task not in ALL_TASKS:
        hint = did_you_mean(task, ALL_TASKS) or f"; known: {', '.join(ALL_TASKS)}"
        raise BadInput(f"data 'ruler': unknown task '{task}'{hint}")
    if needs_essay(task) and haystack is None:
        raise BadInput(
            f"data 'ruler': task {task} hides its needles in a text; name a file with haystack=..."
        )
    if haystack is not None and not needs_essay(task):
        raise BadInput(f"data 'ruler': task {task} makes its own text; leave haystack out")
    if task in QA and questions is None:
        raise BadInput(f"data 'ruler': task {task} needs {QA[task]}'s own JSON; name it with questions=...")
    if questions is not None and task not in QA:
        raise BadInput(f"data 'ruler': task {task} makes its own questions; leave questions out")
    essay = read_sentences(haystack, "ruler") if haystack is not None else ()
    source = read_source(task, questions) if questions is not None else None
    if source is not None and size > len(source.items):
        raise BadInput(
            f"{questions}: holds {len(source.items)} questions that can be asked, {size} are wanted; lower size"
        )
    count = token_counter(tokenizer, "ruler")

    def make(index: int) -> Task:
        return make_task(index, task=task, length=length, seed=seed, count=count, essay=essay, source=source)

    return generated("ruler", size, make)


def make_task(
    index: int,
    *,
    task: str,
    length: int,
    seed: int,
    count: Count,
    essay: Sequence[str] = (),
    source: QaSource | None = None,
) -> Task:
    """Make one task whose text has `length` tokens as `count` measures them, or up to 1 % fewer.

    `essay` are sentences for the tasks that need some, `source` the questions of the qa tasks. It is a function of
    its arguments alone. Raises `ValueError` for a length that the task does not fit into.
    """
    rng = random.Random(f"ruler|{task}|{length}|{seed}|{index}")
    made = draft_qa(source, index, rng) if source is not None else draft(task, rng, length, essay)
    meta = {
        "metric": "string_match_part" if source is not None else "string_match_all",
        "benchmark": "ruler",
        "group": task,
        "task": task,
        "length": length,
    }
    if made.evidence is not None:
        meta["gold_evidence"] = made.evidence
    text = fit(made, count, length)
    return Task(f"ruler-{task}-{length}-s{seed}-{index}", made.question, text, made.answers, meta)
