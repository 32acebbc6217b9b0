"""JSON of data files: stricter than Python's about keys, kinder about characters, and one line for every error."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

from memfactory.core.errors import BadInput

Record = Mapping[str, Any]
#: An escape that may be half of a character.
_HALF = re.compile(rb"\\u[dD][89a-fA-F]")


def parse_json(data: bytes, where: str, *, line: int | None = None, inside: str = "") -> Any:
    """Parse JSON. `line`, the one on which `data` begin, adds that of an error to `where`; places count `inside`.

    Raises `BadInput` naming the place, also for a key that an object has twice. Halves of characters (a text that
    was cut inside an emoji) become U+FFFD: nothing else could be written as UTF-8, or read by a tokenizer.
    """
    try:
        value = json.loads(data.decode(), object_pairs_hook=_object)
        return _readable(value) if _HALF.search(data) else value
    except UnicodeDecodeError as error:
        lines_before = data.count(b"\n", 0, error.start)
        place = where if line is None else f"{where}:{line + lines_before}"
        raise BadInput(
            f"{place}: not UTF-8 text (byte {error.start}{inside}); convert it to UTF-8 first"
        ) from None
    except json.JSONDecodeError as error:
        place = where if line is None else f"{where}:{line + error.lineno - 1}"
        at = f"character {error.pos + 1}{inside}" if inside else f"column {error.colno}"
        raise BadInput(f"{place}: not valid JSON ({error.msg} at {at})") from None
    except RecursionError:
        place = where if line is None else f"{where}:{line}"
        raise BadInput(f"{place}: not valid JSON (brackets are nested too deeply)") from None
    except ValueError as error:
        place = where if line is None else f"{where}:{line}"
        raise BadInput(f"{place}: not valid JSON ({str(error).splitlines()[0]})") from None


def goes_on(line: bytes) -> bool:
    """Whether a line is the beginning of a JSON value that its end leaves open."""
    text = line.rstrip().decode(errors="replace")
    try:
        json.loads(text)
    except json.JSONDecodeError as error:
        return error.pos >= len(text)
    except (ValueError, RecursionError):
        return False
    return False


def whole_object(data: bytes, path: str) -> Record | None:
    """The object that these bytes are, over many lines; None if they rather are an object a line, the first one cut.

    `data` begin with a line that `goes_on`. Raises `BadInput`, naming the line, for an object that is broken, and for
    several of them.
    """
    try:
        json.loads(data)
    except json.JSONDecodeError as error:
        if error.msg == "Extra data":
            raise BadInput(
                f"{path}:{error.lineno}: another value after a JSON object over many lines; write one object a line, "
                "or a list of them"
            ) from None
        if data.lstrip().partition(b"\n")[2].lstrip().startswith(b"{"):
            return None
    except (ValueError, RecursionError):
        pass  # said below, with its place
    value = parse_json(data, path, line=1)
    return value if isinstance(value, dict) else None


def refuse_whole(path: str, held: Record) -> BadInput:
    """The error for a file that is one JSON object where a list is expected; it says where lists are inside."""
    lists = list(_lists(held))
    problem = f"{path}: the file is one JSON object; a list of records, or one object a line, is expected"
    if len(lists) == 1:
        path_of = "".join(f".{key}" if key.isidentifier() else f"[{json.dumps(key)}]" for key in lists[0])
        names = ".".join(lists[0])
        return BadInput(f"{problem}; the list is under '{names}', take it out: jq '{path_of}' {path}")
    if lists:
        named = ", ".join(f"'{'.'.join(keys)}'" for keys in lists[:6])
        return BadInput(f"{problem}; there are lists under {named}: write the one you mean into a file")
    return BadInput(f"{problem}; to make it the only record: jq -c . {path}")


def holds_records(held: Record) -> bool:
    """Whether an object is but the wrapping of a list of records: its only field, or one that is called `data`."""
    return any(keys == ("data",) or (len(keys) == 1 and len(held) == 1) for keys in _lists(held))


def _lists(held: Record, above: tuple[str, ...] = ()) -> list[tuple[str, ...]]:
    """The keys that lead to a list of objects, at most one object further down."""
    found = []
    for key, value in held.items():
        if isinstance(value, list) and value and all(isinstance(item, dict) for item in value):
            found.append((*above, key))
        elif isinstance(value, dict) and not above:
            found += _lists(value, (key,))
    return found


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    held = dict(pairs)
    if len(held) < len(pairs):
        keys = [key for key, _ in pairs]
        twice = next(key for key in keys if keys.count(key) > 1)
        raise ValueError(f"the key {twice!r} comes twice in one object")
    return held


def _readable(value: Any) -> Any:
    if isinstance(value, str):
        return value.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    if isinstance(value, list):
        return [_readable(item) for item in value]
    if isinstance(value, dict):
        return {_readable(key): _readable(item) for key, item in value.items()}
    return value
