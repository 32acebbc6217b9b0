"""Questions over paragraphs, some of them gold: what HotpotQA, 2WikiMultihopQA and MuSiQue have in common."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from memfactory.core.bounds import AtLeastOne
from memfactory.core.errors import BadInput
from memfactory.core.types import Task
from memfactory.data.tasks import FileConfig


@dataclass(frozen=True)
class Paragraph:
    """One paragraph of Wikipedia; `gold` when the answer rests on it."""

    title: str
    text: str
    gold: bool = False


@dataclass(frozen=True)
class Example:
    """One question with its paragraphs, in the file's order; `kind` is the group its benchmark reports it in."""

    id: str
    question: str
    answers: tuple[str, ...]
    paragraphs: tuple[Paragraph, ...]
    kind: str = ""
    level: str = ""

    @property
    def gold(self) -> tuple[Paragraph, ...]:
        """The paragraphs that the answer rests on."""
        return tuple(paragraph for paragraph in self.paragraphs if paragraph.gold)


@dataclass(frozen=True)
class ParagraphsConfig(FileConfig):
    """Fields of `hotpotqa`, `2wikimultihopqa` and `musique`.

    `paragraphs` keeps so many of each question: the gold and the first others.
    """

    paragraphs: AtLeastOne | None = None


def as_task(example: Example, benchmark: str, paragraphs: int | None, where: str) -> Task:
    """An example as a task; its evidence is the paragraphs' text.

    Raises `BadInput` when `paragraphs` cannot hold the gold ones.
    """
    kept = _keep(example, paragraphs, where)
    meta = {
        "benchmark": benchmark,
        "group": example.kind,
        "type": example.kind,
        "level": example.level,
        "gold_titles": tuple(paragraph.title for paragraph in example.gold),
        "gold_evidence": render(example.gold),
        "paragraphs": len(kept),
    }
    return Task(example.id, example.question, render(kept), example.answers, meta)


def render(paragraphs: Sequence[Paragraph]) -> str:
    """Paragraphs as one text, numbered from 1, title and text on their own lines, as in MemAgent's files."""
    return "\n\n".join(f"Document {i}:\n{p.title}\n{p.text}" for i, p in enumerate(paragraphs, start=1))


def _keep(example: Example, paragraphs: int | None, where: str) -> tuple[Paragraph, ...]:
    if paragraphs is None:
        return example.paragraphs
    if paragraphs < len(example.gold):
        raise BadInput(
            f"{where}: paragraphs={paragraphs} cannot hold its {len(example.gold)} gold paragraphs"
        )
    room = paragraphs - len(example.gold)
    others = [i for i, paragraph in enumerate(example.paragraphs) if not paragraph.gold][:room]
    return tuple(p for i, p in enumerate(example.paragraphs) if p.gold or i in others)
