"""HotpotQA's own distractor JSON (arXiv 1809.09600), and 2WikiMultihopQA's (2011.01060), which took its layout.

A record is a question, about ten paragraphs and the facts that support the answer. The Hugging Face hub's Parquet
files hold the same in columns (`{title: [...], sentences: [...]}`) or as JSON in strings: they are read as well.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from memfactory.core.errors import BadInput
from memfactory.core.registry import register
from memfactory.core.texts import nfc
from memfactory.core.types import Task
from memfactory.data.fields import kind_of, optional_text, record_id, require, require_answers, require_text
from memfactory.data.parsing import Record, parse_json
from memfactory.data.readers.paragraphs import Example, Paragraph, ParagraphsConfig, as_task
from memfactory.data.tasks import load


@register("data", "hotpotqa", config=ParagraphsConfig, source="HotpotQA, arXiv 1809.09600")
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


@register("data", "2wikimultihopqa", config=ParagraphsConfig, source="2WikiMultihopQA, arXiv 2011.01060")
def two_wiki(
    path: str,
    limit: int | None = None,
    offset: int = 0,
    shuffle_seed: int | None = None,
    paragraphs: int | None = None,
) -> Sequence[Task]:
    """2WikiMultihopQA's JSON: questions over ten paragraphs, two or four of which are needed."""

    def parse(record: Record, where: str, default_id: str) -> Task:
        return parse_two_wiki(record, where, default_id, paragraphs)

    return load(parse, path, limit, offset, shuffle_seed)


def parse_task(record: Record, where: str, default_id: str, paragraphs: int | None = None) -> Task:
    """A record of HotpotQA as a task. Raises `BadInput` naming place and field."""
    return as_task(parse_example(record, where, default_id), "hotpotqa", paragraphs, where)


def parse_two_wiki(record: Record, where: str, default_id: str, paragraphs: int | None = None) -> Task:
    """A record of 2WikiMultihopQA as a task. Raises `BadInput` naming place and field."""
    return as_task(parse_example(record, where, default_id), "2wikimultihopqa", paragraphs, where)


def parse_example(record: Record, where: str, default_id: str) -> Example:
    """A record of either benchmark as an example. Raises `BadInput` naming place and field."""
    gold = {nfc(title) for title, _ in _pairs(record, "supporting_facts", ("title", "sent_id"), where)}
    paragraphs = []
    for title, sentences in _pairs(record, "context", ("title", "sentences", "content"), where):
        if not isinstance(sentences, list) or not all(isinstance(sentence, str) for sentence in sentences):
            raise BadInput(f"{where}: the paragraph '{title}' in field 'context' must be a list of sentences")
        paragraphs.append(Paragraph(title, _joined(sentences), nfc(title) in gold))
    if not any(paragraph.gold for paragraph in paragraphs):
        raise BadInput(f"{where}: no paragraph in field 'context' has a title of field 'supporting_facts'")
    return Example(
        id=record_id(record, "_id", where, record_id(record, "id", where, default_id)),
        question=require_text(record, "question", where),
        answers=require_answers(record, "answer", where),
        paragraphs=tuple(paragraphs),
        kind=optional_text(record, "type", where),
        level=optional_text(record, "level", where),
    )


def _joined(sentences: Sequence[str]) -> str:
    """Sentences as a paragraph: those of HotpotQA bring their own space, those of 2WikiMultihopQA do not."""
    spaced = any(sentence[:1].isspace() for sentence in sentences[1:])
    return ("" if spaced else " ").join(sentences)


def _pairs(record: Record, key: str, columns: Sequence[str], where: str) -> list[tuple[str, Any]]:
    """The pairs of a field: a list of them, a mapping of columns, or either as JSON in a string."""
    value = require(record, key, where)
    if isinstance(value, str):
        value = parse_json(value.encode(errors="surrogatepass"), f"{where}: field '{key}'")
    if isinstance(value, Mapping):
        held = [value[name] for name in columns if name in value]
        if len(held) != 2 or not all(isinstance(column, list) for column in held):
            raise BadInput(f"{where}: field '{key}' must hold the columns {' and '.join(columns[:2])}")
        if len(held[0]) != len(held[1]):
            raise BadInput(f"{where}: the columns of field '{key}' have different lengths")
        value = [list(pair) for pair in zip(*held, strict=True)]
    if not isinstance(value, list) or not value:
        raise BadInput(f"{where}: field '{key}' must be a list that is not empty, not {kind_of(value)}")
    return [_pair(item, key, where) for item in value]


def _pair(item: object, key: str, where: str) -> tuple[str, Any]:
    if not isinstance(item, list) or len(item) != 2 or not isinstance(item[0], str):
        raise BadInput(f"{where}: field '{key}' must hold pairs that begin with a title")
    return item[0], item[1]
