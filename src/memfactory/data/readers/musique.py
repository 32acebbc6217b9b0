"""MuSiQue's own JSON Lines (arXiv 2108.00573): questions of two to four hops over twenty paragraphs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from memfactory.core.errors import BadInput
from memfactory.core.registry import register
from memfactory.core.types import Task
from memfactory.data.fields import kind_of, record_id, require, require_answers, require_text
from memfactory.data.parsing import Record
from memfactory.data.readers.paragraphs import Example, Paragraph, ParagraphsConfig, as_task
from memfactory.data.tasks import load


@register("data", "musique", config=ParagraphsConfig, source="MuSiQue, arXiv 2108.00573")
def musique(
    path: str,
    limit: int | None = None,
    offset: int = 0,
    shuffle_seed: int | None = None,
    paragraphs: int | None = None,
) -> Sequence[Task]:
    """MuSiQue's JSON Lines: questions of 2 to 4 hops; those of the full set that have no answer are left out."""

    def parse(record: Record, where: str, default_id: str) -> Task | None:
        return parse_musique(record, where, default_id, paragraphs)

    return load(parse, path, limit, offset, shuffle_seed)


def parse_musique(record: Record, where: str, default_id: str, paragraphs: int | None = None) -> Task | None:
    """A record as a task, None for one without an answer. Raises `BadInput` naming place and field."""
    example = parse_musique_example(record, where, default_id)
    return None if example is None else as_task(example, "musique", paragraphs, where)


def parse_musique_example(record: Record, where: str, default_id: str) -> Example | None:
    """A record as an example, None for one that is marked as not answerable. Raises `BadInput`."""
    answerable = record.get("answerable", True)
    if not isinstance(answerable, bool):
        raise BadInput(f"{where}: field 'answerable' must be a boolean, not {kind_of(answerable)}")
    if not answerable:
        return None
    listed = require(record, "paragraphs", where)
    if not isinstance(listed, list) or not listed:
        raise BadInput(f"{where}: field 'paragraphs' must be a list that is not empty, not {kind_of(listed)}")
    paragraphs = tuple(_paragraph(item, f"{where}.paragraphs[{i}]") for i, item in enumerate(listed))
    if not any(paragraph.gold for paragraph in paragraphs):
        raise BadInput(f"{where}: no paragraph has 'is_supporting': true (a test file has no gold)")
    aliases = record.get("answer_aliases") or []
    if not isinstance(aliases, list) or not all(isinstance(alias, str) for alias in aliases):
        raise BadInput(f"{where}: field 'answer_aliases' must be a list of strings")
    gold = require_answers(record, "answer", where)
    name = record_id(record, "id", where, default_id)
    return Example(
        id=name,
        question=require_text(record, "question", where),
        answers=(*gold, *(alias for alias in dict.fromkeys(aliases) if alias.strip() and alias not in gold)),
        paragraphs=paragraphs,
        kind=f"{sum(paragraph.gold for paragraph in paragraphs)}hop",
    )


def _paragraph(item: object, where: str) -> Paragraph:
    if not isinstance(item, Mapping):
        raise BadInput(f"{where}: a paragraph must be an object, not {kind_of(item)}")
    gold = item.get("is_supporting", False)
    if not isinstance(gold, bool):
        raise BadInput(f"{where}: field 'is_supporting' must be a boolean, not {kind_of(gold)}")
    return Paragraph(
        require_text(item, "title", where, empty=True),
        require_text(item, "paragraph_text", where),
        gold,
    )
