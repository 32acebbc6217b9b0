"""SQuAD's own JSON, 1.1 or 2.0 (arXiv 1606.05250, 1806.03822): one object, articles of paragraphs of questions.

RULER's qa_1 is made of it; questions that are marked as impossible are left out, as there.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from memfactory.core.errors import BadInput
from memfactory.data.fields import kind_of, require, require_answers, require_text
from memfactory.data.files import open_object
from memfactory.data.parsing import Record


@dataclass(frozen=True)
class Question:
    """A question about a paragraph, and the distinct answers that annotators marked in it."""

    text: str
    answers: tuple[str, ...]


@dataclass(frozen=True)
class SquadParagraph:
    """A paragraph and the questions about it that have an answer."""

    text: str
    questions: tuple[Question, ...]


def read_squad(path: str) -> tuple[tuple[SquadParagraph, ...], ...]:
    """The paragraphs of every article of a file. Raises `BadInput` naming the place and field of what is wrong."""
    whole = open_object(path)
    return tuple(
        tuple(_paragraph(paragraph, place) for place, paragraph in _items(article, "paragraphs", where))
        for where, article in _items(whole, "data", path)
    )


def _paragraph(record: Record, where: str) -> SquadParagraph:
    questions = []
    for place, asked in _items(record, "qas", where, empty=True):
        if asked.get("is_impossible", False):
            continue
        texts: dict[str, None] = {}
        for inside, answer in _items(asked, "answers", place):
            texts.update(dict.fromkeys(require_answers(answer, "text", inside)))
        questions.append(Question(require_text(asked, "question", place), tuple(texts)))
    return SquadParagraph(require_text(record, "context", where), tuple(questions))


def _items(record: Record, key: str, where: str, *, empty: bool = False) -> list[tuple[str, Record]]:
    """The objects of a list with their places."""
    value = require(record, key, where)
    if not isinstance(value, list):
        raise BadInput(f"{where}: field '{key}' must be a list, not {kind_of(value)}")
    if not value and not empty:
        raise BadInput(f"{where}: field '{key}' is empty")
    held: list[tuple[str, Record]] = []
    for index, item in enumerate(value):
        place = f"{where}.{key}[{index}]"
        if not isinstance(item, Mapping):
            raise BadInput(f"{place}: expected an object, found {kind_of(item)}")
        held.append((place, item))
    return held
