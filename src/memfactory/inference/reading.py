"""Answering questions about a text, or about every task of a file, with an agent."""

from __future__ import annotations

import json
import sys
from collections.abc import Collection, Iterable, Sequence
from pathlib import Path
from typing import Any, TextIO

from memfactory.core.errors import BadInput
from memfactory.core.files import disk_errors, write_bytes
from memfactory.core.types import Rollout, Task, summed
from memfactory.metrics.boxed import last_boxed

#: How every line of the output file begins (see `result_of`).
_LINE_START = b'{"id": '


def read_text(source: str) -> str:
    """The text of a file, or of standard input for `-`. Raises `BadInput` naming file and remedy."""
    if source == "-":
        return sys.stdin.buffer.read().decode("utf-8", errors="replace")
    path = Path(source)
    if path.is_dir():
        raise BadInput(f"{path} is a folder; --input takes a text file")
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        raise BadInput(f"{path}: no such file; --input takes a text file or - for standard input") from None
    except OSError as error:
        raise BadInput(f"{path}: cannot be read ({error.strerror})") from error
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise BadInput(f"{path}: not UTF-8 text (byte {error.start}); convert it to UTF-8 first") from error


def question_tasks(text: str, questions: Sequence[str], name: str) -> list[Task]:
    """One task for each question about the text."""
    return [
        Task(id=f"{name}#{number}", question=question, evidence=text)
        for number, question in enumerate(questions, start=1)
    ]


def result_of(rollout: Rollout, *, memories: bool) -> dict[str, Any]:
    """What `--json` prints and JSONL output holds for one task.

    `answer` is the boxed text of the reply, or the whole reply; null if the task failed.
    """
    reply = rollout.outcome.reply if rollout.outcome is not None else None
    boxed = last_boxed(reply) if reply is not None else None
    result: dict[str, Any] = {
        "id": rollout.task.id,
        "question": rollout.task.question,
        "answer": reply if boxed is None else boxed,
        "reply": reply,
        "calls": len(rollout.calls),
        "prompt_tokens": summed(call.prompt_tokens for call in rollout.calls),
        "completion_tokens": summed(call.completion_tokens for call in rollout.calls),
        "error": rollout.error,
    }
    if rollout.task.answers:
        result["golds"] = list(rollout.task.answers)
    if memories and rollout.outcome is not None:
        result["memories"] = list(rollout.outcome.memories)
    return result


def answers_there(path: Path) -> dict[str, str]:
    """The answers that earlier starts wrote to the output file: the key of each task's last one, by the task's id.

    The key is empty where an older memfactory wrote none.

    A last line that was cut off is removed. Raises `BadInput` when the file is something else; it is
    then left as it is.
    """
    if not path.exists():
        return {}
    foreign = BadInput(
        f"{path}: exists and does not hold answers of an earlier start; choose another --output"
    )
    try:
        data = path.read_bytes()
    except OSError as error:
        raise BadInput(f"{path}: cannot be written ({error.strerror}); choose another --output") from error
    *whole, cut_off = data.split(b"\n")
    found = {}
    for line in whole:
        try:
            name, key = _id_and_key(json.loads(line))
            found[name] = key
        except (ValueError, TypeError, KeyError, RecursionError):
            raise foreign from None
    if cut_off:
        if not _is_ours(cut_off):
            raise foreign
        with disk_errors(path), open(path, "r+b") as file:
            file.truncate(len(data) - len(cut_off))
    return found


def drop_answers(path: Path, ids: Collection[str]) -> None:
    """Take the lines of some tasks out of an output file, all at once."""
    lines = path.read_bytes().splitlines(keepends=True)
    write_bytes(path, b"".join(line for line in lines if _id_and_key(json.loads(line))[0] not in ids))


def _id_and_key(record: Any) -> tuple[str, str]:
    """Id and key in a line that `write_result` wrote. Raises `KeyError` or `TypeError` for any other."""
    record["reply"], record["error"]
    return str(record["id"]), str(record.get("key", ""))


def _is_ours(cut_off: bytes) -> bool:
    """Whether an unfinished last line can be one of ours: a beginning, or all but the line break."""
    try:
        return bool(_id_and_key(json.loads(cut_off)))
    except (ValueError, RecursionError):
        return cut_off.startswith(_LINE_START) or _LINE_START.startswith(cut_off)
    except (TypeError, KeyError):
        return False


def write_result(file: TextIO, result: dict[str, Any], path: Path) -> None:
    """Append one line and hand it to the operating system."""
    with disk_errors(path):
        file.write(json.dumps(result, ensure_ascii=True) + "\n")
        file.flush()


def unique_ids(tasks: Iterable[Task], source: str) -> None:
    """Raise `BadInput` when two tasks have one id: their answers could not be told apart."""
    seen: set[str] = set()
    for task in tasks:
        if task.id in seen:
            raise BadInput(f"{source}: the id '{task.id}' comes twice; ids must be unique")
        seen.add(task.id)
