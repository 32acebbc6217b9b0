"""Data files made from other data, or from nothing: HotpotQA-long and its kin, RULER, BABILong, the reading task.

The same arguments give the same bytes; a file appears only when it is complete.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from memfactory.core.errors import BadInput
from memfactory.core.types import Task
from memfactory.data.files import open_records
from memfactory.data.readers.hotpotqa import parse_example
from memfactory.data.readers.musique import parse_musique_example
from memfactory.data.readers.paragraphs import Example, Paragraph, render
from memfactory.data.tasks import Parse, choose, parse_at
from memfactory.data.write import writer_for

#: Benchmarks whose questions can be put among more paragraphs, and how their records are read.
LONG: Mapping[str, Parse[Example | None]] = {
    "hotpotqa": parse_example,
    "2wikimultihopqa": parse_example,
    "musique": parse_musique_example,
}


def make_hotpotqa_long(
    source: str, paragraphs: int, output: str, limit: int | None = None, seed: int = 0, offset: int = 0
) -> int:
    """`make_long` for HotpotQA's own JSON."""
    return make_long("hotpotqa", source, paragraphs, output, limit, seed, offset)


def make_long(
    benchmark: str,
    source: str,
    paragraphs: int,
    output: str,
    limit: int | None = None,
    seed: int = 0,
    offset: int = 0,
) -> int:
    """Hide the gold paragraphs of a benchmark's questions among distractors; return how many were written.

    `source` is the benchmark's own file, of one of `LONG`. Each text has `paragraphs` paragraphs. Distractors
    are drawn from the paragraphs of other questions, no title twice and none of a gold paragraph. Draw and
    places are seeded by `seed` and the question's id, not by its position, so they differ between questions and
    do not change with `limit`. The suffix of `output` chooses the layout: `.parquet` (MemAgent's columns),
    `.jsonl` or `.json` (MemFactory's fields). The `hotpotqa_long` reader takes all three.

    Raises `BadInput` for a bad source, an unknown suffix, or a source with too few paragraphs (saying how
    many there are); `DiskError` when writing fails.
    """
    write = writer_for(output)
    records = open_records(source)
    read = [parse_at(records, index, LONG[benchmark]) for index in range(len(records))]
    examples = [example for example in read if example is not None]
    pool = _Pool(examples, source)
    chosen = [examples[index] for index in choose(len(examples), source, limit, offset)]
    for example in chosen:
        pool.check(example, paragraphs)
    shape = _memagent_row if output.endswith(".parquet") else _memfactory_row
    return write(output, _long_rows(chosen, pool, benchmark, paragraphs, seed, shape))


def make_tasks(tasks: Sequence[Task], output: str) -> int:
    """Write tasks about texts as JSON Lines (or `.json`); return the count. The `jsonl` reader takes the file.

    Raises `BadInput` for another suffix, `DiskError` when writing fails.
    """
    write = writer_for(output, (".jsonl", ".json"))

    def rows() -> Iterator[dict[str, Any]]:
        for task in tasks:
            yield {
                "id": task.id,
                "question": task.question,
                "answers": list(task.answers),
                "meta": dict(task.meta),
                "text": task.evidence,
            }

    return write(output, rows())


def make_facts(
    output: str,
    sections: int,
    count: int,
    seed: int = 0,
    split: str = "heldout",
    offset: int = 0,
    **options: Any,
) -> int:
    """Write `count` tasks of the synthetic reading task as JSON Lines (or `.json`); return the count.

    `options` go to `memfactory.data.synthetic.facts.make_task`. Raises `BadInput` for options that it
    refuses, `DiskError` when writing fails. The `jsonl` reader takes the file.
    """
    from memfactory.data.synthetic.facts import make_task

    write = writer_for(output, (".jsonl", ".json"))
    if count < 1:
        raise BadInput(f"count must be at least 1, not {count}")

    def rows() -> Iterator[dict[str, Any]]:
        for index in range(offset, offset + count):
            try:
                yield make_task(index, seed=seed, split=split, sections=sections, **options)
            except ValueError as error:
                raise BadInput(f"facts: {error}") from None

    return write(output, rows())


class _Pool:
    """All paragraphs of a file, by title, and in how many questions each occurs."""

    def __init__(self, examples: Sequence[Example], source: str) -> None:
        self.source = source
        self.texts: dict[str, Paragraph] = {}
        self.owners: Counter[str] = Counter()
        for example in examples:
            for paragraph in {paragraph.title: paragraph for paragraph in example.paragraphs}.values():
                self.texts.setdefault(paragraph.title, Paragraph(paragraph.title, paragraph.text))
                self.owners[paragraph.title] += 1
        self.titles = list(self.texts)

    def barred(self, example: Example) -> set[str]:
        """Titles that cannot be distractors here: the gold ones, and those that no other question has."""
        gold = {paragraph.title for paragraph in example.gold}
        return gold | {p.title for p in example.paragraphs if self.owners[p.title] == 1}

    def check(self, example: Example, paragraphs: int) -> None:
        """Raise `BadInput` when the text of this question cannot be made."""
        gold = len(example.gold)
        if paragraphs < gold:
            raise BadInput(
                f"paragraphs={paragraphs} cannot hold the {gold} gold paragraphs of question {example.id}"
            )
        there = len(self.titles) - len(self.barred(example))
        if there < paragraphs - gold:
            raise BadInput(
                f"{self.source}: {paragraphs} paragraphs need {paragraphs - gold} distractors for question "
                f"{example.id}, but the other questions have only {there}"
            )

    def draw(self, example: Example, count: int, rng: random.Random) -> list[Paragraph]:
        """`count` paragraphs of other questions, in random order."""
        barred = self.barred(example)
        drawn = rng.sample(self.titles, min(len(self.titles), count + len(barred)))
        return [self.texts[title] for title in drawn if title not in barred][:count]


def _long_rows(
    examples: Sequence[Example],
    pool: _Pool,
    benchmark: str,
    paragraphs: int,
    seed: int,
    shape: Callable[[int, Example, str, dict[str, Any]], dict[str, Any]],
) -> Iterator[dict[str, Any]]:
    for index, example in enumerate(examples):
        rng = random.Random(f"{benchmark}-long|{seed}|{example.id}")
        places = rng.sample(range(paragraphs), len(example.gold))
        text = pool.draw(example, paragraphs - len(places), rng)
        for place, paragraph in sorted(zip(places, example.gold, strict=True), key=lambda pair: pair[0]):
            text.insert(place, paragraph)
        meta = {
            "benchmark": benchmark,
            "group": example.kind,
            "num_docs": paragraphs,
            "gold_places": sorted(places),
            "gold_evidence": render(example.gold),
        }
        yield shape(index, example, render(text), meta)


def _memfactory_row(index: int, example: Example, text: str, meta: dict[str, Any]) -> dict[str, Any]:
    return {
        "id": example.id,
        "input": example.question,
        "answers": list(example.answers),
        "context": text,
        **meta,
    }


def _memagent_row(index: int, example: Example, text: str, meta: dict[str, Any]) -> dict[str, Any]:
    return {
        "data_source": meta["benchmark"],
        "prompt": [{"role": "user", "content": example.question}],
        "context": text,
        "ability": "memory",
        "reward_model": {"style": "rule", "ground_truth": list(example.answers)},
        "extra_info": {"id": example.id, "index": index, "question": example.question, **meta},
    }
