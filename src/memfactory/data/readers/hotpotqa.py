"""HotpotQA's own distractor JSON (arXiv 1809.09600): a question, ten paragraphs, which of them matter."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from memfactory.core.errors import BadInput
from memfactory.core.registry import register
from memfactory.core.types import Task
from memfactory.data.files import Record, kind_of, require, require_answers, require_text
from memfactory.data.tasks import FileConfig, load


@dataclass(frozen=True)
class Paragraph:
    """One paragraph of Wikipedia; `gold` when the answer rests on it."""

    title: str
    text: str
    gold: bool = False


@dataclass(frozen=True)
class Example:
    """One question of HotpotQA with its paragraphs, in the file's order."""

    id: str
    question: str
    answers: tuple[str, ...]
    paragraphs: tuple[Paragraph, ...]
    kind: str
    level: str

    @property
    def gold(self) -> tuple[Paragraph, ...]:
        """The paragraphs that the answer rests on."""
        return tuple(paragraph for paragraph in self.paragraphs if paragraph.gold)


@dataclass(frozen=True)
class HotpotQAConfig(FileConfig):
    """Fields of `hotpotqa`. `paragraphs` keeps so many of each question: the gold and the first others."""

    paragraphs: int | None = None


@register("data", "hotpotqa", config=HotpotQAConfig, source="HotpotQA, arXiv 1809.09600")
def hotpotqa(
    path: str,
    limit: int | None = None,
    offset: int = 0,
    shuffle_seed: int | None = None,
    paragraphs: int | None = None,
) -> Sequence[Task]:
    """HotpotQA's distractor JSON: questions over about ten paragraphs each."""

    def parse(record: Record, where: str, default_id: str) -> Task:
        return parse_task(record, where, default_id, paragraphs)

    return load(parse, path, limit, offset, shuffle_seed)


def parse_task(record: Record, where: str, default_id: str, paragraphs: int | None = None) -> Task:
    """A record as a task; its evidence is the paragraphs' text. Raises `BadInput` naming place and field."""
    example = parse_example(record, where, default_id)
    kept = _keep(example, paragraphs, where)
    meta = {
        "type": example.kind,
        "level": example.level,
        "gold_titles": tuple(paragraph.title for paragraph in example.gold),
        "gold_evidence": render(example.gold),
        "paragraphs": len(kept),
    }
    return Task(example.id, example.question, render(kept), example.answers, meta)


def parse_example(record: Record, where: str, default_id: str) -> Example:
    """A record as an example. Raises `BadInput` naming place and field."""
    gold = {_pair(item, "supporting_facts", where)[0] for item in _items(record, "supporting_facts", where)}
    paragraphs = []
    for item in _items(record, "context", where):
        title, sentences = _pair(item, "context", where)
        if not isinstance(sentences, list) or not all(isinstance(sentence, str) for sentence in sentences):
            raise BadInput(f"{where}: the paragraph '{title}' in field 'context' must be a list of sentences")
        paragraphs.append(Paragraph(title, "".join(sentences), title in gold))
    if not any(paragraph.gold for paragraph in paragraphs):
        raise BadInput(f"{where}: no paragraph in field 'context' has a title of field 'supporting_facts'")
    return Example(
        id=str(record.get("_id", default_id)),
        question=require_text(record, "question", where),
        answers=require_answers(record, "answer", where),
        paragraphs=tuple(paragraphs),
        kind=str(record.get("type", "")),
        level=str(record.get("level", "")),
    )


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


def _items(record: Record, key: str, where: str) -> list[object]:
    value = require(record, key, where)
    if not isinstance(value, list) or not value:
        raise BadInput(f"{where}: field '{key}' must be a list that is not empty, not {kind_of(value)}")
    return value


def _pair(item: object, key: str, where: str) -> tuple[str, object]:
    if not isinstance(item, list) or len(item) != 2 or not isinstance(item[0], str):
        raise BadInput(f"{where}: field '{key}' must hold pairs that begin with a title")
    return item[0], item[1]
