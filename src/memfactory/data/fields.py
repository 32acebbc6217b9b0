"""Fields of a record: there, of the right type, and told by place and name when they are not."""

from __future__ import annotations

import decimal
import math
from collections.abc import Mapping
from typing import Any

from memfactory.core.errors import BadInput, did_you_mean
from memfactory.data.parsing import Record

#: Floats above are not whole because somebody wrote them so.
_EXACT = 10**15
#: Fields of a task's meta that metrics, rewards and agents read, by their type.
_META_TEXTS = ("metric",)
_META_LISTS = ("evidence_turns",)


def require(record: Record, key: str, where: str) -> Any:
    """The value of a field; a dotted key reaches into objects.

    Raises `BadInput` naming place, field and the nearest field that is there.
    """
    if key in record:
        return record[key]
    value: Any = record
    parts = key.split(".")
    for depth, part in enumerate(parts, start=1):
        if not isinstance(value, Mapping) or part not in value:
            known = [str(name) for name in value] if isinstance(value, Mapping) else []
            raise BadInput(f"{where}: no field '{'.'.join(parts[:depth])}'{did_you_mean(part, known)}")
        value = value[part]
    return value


def require_text(record: Record, key: str, where: str, *, empty: bool = False) -> str:
    """The string in a field; `empty` allows one of only spaces. Raises `BadInput` as `require` does."""
    value = require(record, key, where)
    if not isinstance(value, str):
        raise BadInput(f"{where}: field '{key}' must be a string, not {kind_of(value)}")
    if not empty and not value.strip():
        raise BadInput(f"{where}: field '{key}' is empty")
    return value


def require_answers(record: Record, key: str, where: str) -> tuple[str, ...]:
    """The gold answers in a field: a string or number, or a list of them, none empty (see `answer_text`).

    Raises `BadInput` if there is none, or as `require` does.
    """
    value = require(record, key, where)
    answers = value if isinstance(value, list | tuple) else [value]
    texts = tuple(answer_text(answer, key, where) for answer in answers)
    if not texts or not all(text.strip() for text in texts):
        raise BadInput(f"{where}: no gold answer in field '{key}'")
    return texts


def answer_text(answer: object, key: str, where: str) -> str:
    """A gold answer as the text that replies are compared with. Raises `BadInput` naming place and field.

    A text stays as it is. A whole number has no point, as a float either: 5.0 is "5", which tables make of 5 as soon as
    a column has a gap, and which SQuAD's normalisation would turn into "50". Other floats are the shortest digits that
    mean them. NaN and infinities are no answers, and neither are true, null, lists and objects.
    """
    if isinstance(answer, str):
        return answer
    if isinstance(answer, bool) or not isinstance(answer, int | float | decimal.Decimal):
        raise BadInput(f"{where}: field '{key}' must hold strings, not {kind_of(answer)}")
    if isinstance(answer, int):
        return str(answer)
    if not math.isfinite(answer):
        raise BadInput(f"{where}: field '{key}' must hold answers, not {answer} (a gap in a table?)")
    if -_EXACT < answer < _EXACT and answer == int(answer):
        return str(int(answer))
    return str(answer)


def record_id(record: Record, key: str, where: str, default: str) -> str:
    """The id in a field, `default` where it is missing or null: a text, or a number as `answer_text` writes it.

    Raises `BadInput` naming place and field for anything else.
    """
    value = record.get(key)
    if value is None:
        return default
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        raise BadInput(f"{where}: field '{key}' must be a string or a number, not {kind_of(value)}")
    text = answer_text(value, key, where)
    if not text.strip():
        raise BadInput(f"{where}: field '{key}' is empty")
    return text


def optional_text(record: Record, key: str, where: str) -> str:
    """The string in a field that may be missing or null. Raises `BadInput` naming place and field."""
    return "" if record.get(key) is None else require_text(record, key, where, empty=True)


def checked_meta(meta: Record, where: str) -> dict[str, Any]:
    """What a user's record says about its task, checked where metrics, rewards and agents read it.

    Raises `BadInput` naming place and field.
    """
    for key in _META_TEXTS:
        optional_text(meta, key, where)
    for key in _META_LISTS:
        listed = meta.get(key)
        if listed is not None and not (
            isinstance(listed, list | tuple) and all(isinstance(item, str) for item in listed)
        ):
            raise BadInput(f"{where}: field '{key}' must be a list of strings")
    return dict(meta)


def mapping(value: Any, where: str) -> Record:
    """The value, if it is an object. Raises `BadInput` naming its place."""
    if not isinstance(value, Mapping):
        raise BadInput(f"{where}: expected an object, found {kind_of(value)}")
    return value


def kind_of(value: object) -> str:
    """The JSON name of a value's type, with an article."""
    names = {
        dict: "an object",
        list: "a list",
        str: "a string",
        bool: "a boolean",
        int: "a number",
        float: "a number",
    }
    return "null" if value is None else names.get(type(value), f"a {type(value).__name__}")
