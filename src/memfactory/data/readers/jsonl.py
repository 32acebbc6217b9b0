"""A user's own tasks: JSON Lines (or a JSON array) with a question, a text and its answers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from memfactory.core.errors import BadInput
from memfactory.core.registry import register
from memfactory.core.types import Task
from memfactory.data.fields import checked_meta, mapping, record_id, require, require_answers, require_text
from memfactory.data.parsing import Record
from memfactory.data.tasks import FileConfig, Parse, load

_QUESTION = ("question", "input")
_TEXT = ("text", "evidence", "context")
_ANSWERS = ("answers", "answer")


@dataclass(frozen=True)
class JsonlConfig(FileConfig):
    """Fields of `jsonl`: which fields of a record hold what; a dot reaches into objects (`meta.gold`).

    Left out, the question is looked for in `question` or `input`, the text in `text`, `evidence` or
    `context`, the answers in `answers` or `answer` (a string or a list). `require_answers: false` reads
    tasks without gold answers, for infer.
    """

    question_field: str | None = None
    text_field: str | None = None
    answers_field: str | None = None
    id_field: str = "id"
    require_answers: bool = True


@register("data", "jsonl", config=JsonlConfig)
def jsonl(
    path: str,
    limit: int | None = None,
    offset: int = 0,
    shuffle_seed: int | None = None,
    question_field: str | None = None,
    text_field: str | None = None,
    answers_field: str | None = None,
    id_field: str = "id",
    require_answers: bool = True,
) -> Sequence[Task]:
    """Your own JSON Lines: a question, a text and its answers, in fields of any name."""
    parse = make_parse(question_field, text_field, answers_field, id_field, require_answers)
    return load(parse, path, limit, offset, shuffle_seed)


def make_parse(
    question_field: str | None = None,
    text_field: str | None = None,
    answers_field: str | None = None,
    id_field: str = "id",
    answers_required: bool = True,
) -> Parse[Task]:
    """A parser of records for the fields of `JsonlConfig`; it raises `BadInput` naming place and field."""

    def parse(record: Record, where: str, default_id: str) -> Task:
        question = question_field or _present(record, _QUESTION)
        text = text_field or _present(record, _TEXT)
        gold = answers_field or _present(record, _ANSWERS)
        known = {question, text, gold, id_field, "meta"}
        meta = record.get("meta") or {}
        extra = {key: value for key, value in record.items() if key not in known}
        return Task(
            id=record_id(record, id_field, where, default_id),
            question=require_text(record, question, where),
            evidence=require_text(record, text, where, empty=True),
            answers=require_answers(record, gold, where) if answers_required or _holds(record, gold) else (),
            meta=checked_meta({**extra, **mapping(meta, f"{where}.meta")}, where),
        )

    return parse


def _present(record: Record, names: Sequence[str]) -> str:
    """The first of the names that the record has, else the first."""
    return next((name for name in names if name in record), names[0])


def _holds(record: Record, key: str) -> bool:
    """Whether a field is there and has something in it."""
    try:
        return require(record, key, "") not in (None, [], "")
    except BadInput:
        return False
