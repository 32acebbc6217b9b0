"""RULER's qa_1 and qa_2: other benchmarks' questions among so many documents of the same file.

As published: the documents that hold the answer, then the others that stood with the question (SQuAD: the rest of
its article, HotpotQA: its distractors), then documents of the whole file, drawn at random, in random order. Two
things differ: the order of the documents is drawn for each question (the published code shuffles all with one seed,
which puts the gold ones at the same places), and the last document is cut so that lengths are exact.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from memfactory.core.errors import BadInput
from memfactory.data.files import open_records
from memfactory.data.readers.hotpotqa import parse_example
from memfactory.data.readers.squad import read_squad
from memfactory.data.synthetic.haystack import Draft, placed
from memfactory.data.tasks import parse_at

#: The tasks, and the benchmark whose questions each asks.
QA: Mapping[str, str] = {"qa_1": "SQuAD", "qa_2": "HotpotQA"}


@dataclass(frozen=True)
class QaItem:
    """A question, the documents that answer it, and those that come first among the others (by number)."""

    question: str
    answers: tuple[str, ...]
    gold: tuple[int, ...]
    near: tuple[int, ...]


@dataclass(frozen=True)
class QaSource:
    """The questions of a file, and every document in it, each once."""

    items: tuple[QaItem, ...]
    documents: tuple[str, ...]


def read_source(task: str, path: str) -> QaSource:
    """The questions and documents of a file for `qa_1` (SQuAD) or `qa_2` (HotpotQA).

    Raises `BadInput` naming the place of what is wrong.
    """
    file = Path(path).expanduser()
    stamp = file.stat().st_mtime_ns if file.is_file() else 0
    return _read(task, path, stamp)


@cache
def _read(task: str, path: str, stamp: int) -> QaSource:
    """Read once for all sets of a recipe; `stamp` is the file's time, so that an edited one is read again."""
    return _squad(path) if QA[task] == "SQuAD" else _hotpotqa(path)


def _squad(path: str) -> QaSource:
    numbers: dict[str, int] = {}
    items = []
    for article in read_squad(path):
        here = [numbers.setdefault(paragraph.text, len(numbers)) for paragraph in article]
        for paragraph, number in zip(article, here, strict=True):
            near = tuple(other for other in dict.fromkeys(here) if other != number)
            items += [QaItem(asked.text, asked.answers, (number,), near) for asked in paragraph.questions]
    if not items:
        raise BadInput(f"{path}: none of its questions has an answer")
    return QaSource(tuple(items), tuple(numbers))


def _hotpotqa(path: str) -> QaSource:
    records = open_records(path)
    numbers: dict[str, int] = {}
    items = []
    for index in range(len(records)):
        example = parse_at(records, index, parse_example)
        here: dict[int, bool] = {}
        for paragraph in example.paragraphs:
            number = numbers.setdefault(f"{paragraph.title}\n{paragraph.text}", len(numbers))
            here[number] = here.get(number, False) or paragraph.gold
        items.append(
            QaItem(
                example.question,
                example.answers,
                tuple(number for number, gold in here.items() if gold),
                tuple(number for number, gold in here.items() if not gold),
            )
        )
    return QaSource(tuple(items), tuple(numbers))


def draft_qa(source: QaSource, index: int, rng: random.Random) -> Draft:
    """Question `index` of the source among any number of other documents."""
    item = source.items[index]
    gold = [source.documents[number] for number in item.gold]
    depths = [rng.random() for _ in gold]
    draw = _others(source, item, rng)
    drawn: list[str] = []
    seed = rng.getrandbits(64)

    def others(n: int) -> Sequence[str]:
        while len(drawn) < n:
            drawn.append(next(draw))
        return drawn[:n]

    def text(n: int) -> str:
        held = list(others(n))
        random.Random(f"{seed}|{n}").shuffle(held)
        return numbered(placed(held, gold, depths))

    def padding(n: int) -> Iterator[str]:
        first, *words = others(n + 1)[n].split(" ")
        yield f"\n\nDocument {n + len(gold) + 1}:\n{first}"
        yield from words

    return Draft(item.question, item.answers, numbered(gold), text, padding)


def numbered(documents: Sequence[str]) -> str:
    """Documents as one text, numbered from 1."""
    return "\n\n".join(f"Document {i}:\n{document}" for i, document in enumerate(documents, start=1))


def _others(source: QaSource, item: QaItem, rng: random.Random) -> Iterator[str]:
    """Documents beside the gold ones: the near ones first, then all others; a file that is too small starts over.

    Raises `ValueError` when there are none.
    """
    barred = {*item.gold, *item.near}
    near = rng.sample(item.near, len(item.near))
    far = [number for number in range(len(source.documents)) if number not in barred]
    if not near and not far:
        raise ValueError("the file holds no other documents to put beside those of the question")
    while True:
        rng.shuffle(far)
        for number in (*near, *far):
            yield source.documents[number]
