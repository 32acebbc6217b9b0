"""What the faces of `memfactory infer` share about their results: which are there already, and JSON for a terminal."""

from __future__ import annotations

import fcntl
import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, TextIO

from rich.console import Console

from memfactory.commands.graph import Policy
from memfactory.commands.identity import identity, short_hash
from memfactory.commands.memories import counted, say
from memfactory.core.errors import BadInput
from memfactory.core.files import disk_errors
from memfactory.core.texts import acts_on_a_terminal
from memfactory.core.types import Task
from memfactory.evaluation.predictions import digest, whole_digest
from memfactory.inference.reading import answers_there, drop_answers, write_result
from memfactory.models.fingerprint import model_fingerprint
from memfactory.recipe.load import Recipe


class Answers:
    """The file of `--output`, where every answer is kept under its task's id and a key of all that decides it."""

    def __init__(self, path: Path) -> None:
        """Makes the file's folder. Raises `BadInput` for a file that is something else; it is left as it is."""
        self.path = path
        with disk_errors(path, option="--output"):
            path.parent.mkdir(parents=True, exist_ok=True)
        self._there = answers_there(path)
        self._keys: dict[str, str] = {}
        self._stale: set[str] = set()

    def left(self, tasks: Sequence[Task], decided_by: Mapping[str, Any], errors: Console) -> list[Task]:
        """The tasks whose answers are not there, or were decided by something else than now; says how many are what.

        `decided_by` is what decides all answers besides their tasks.
        """
        self._keys = {task.id: _key(task, decided_by) for task in tasks}
        done = {name for name, key in self._keys.items() if self._there.get(name) == key}
        self._stale = self._keys.keys() & self._there.keys() - done
        if done:
            say(
                errors,
                f"{self.path}: {counted(len(done), 'answer')} {_are(len(done))} there already, going on",
            )
        if self._stale:
            say(
                errors,
                f"{self.path}: {counted(len(self._stale), 'answer')} {_are(len(self._stale))} of another question, "
                "text, model, recipe, program or bank; asking again",
            )
        return [task for task in tasks if task.id not in done]

    def begin(self) -> TextIO:
        """Open the file to append to; answers that are made again are gone from it.

        Raises `BadInput` while another process does.
        """
        file = self._open()
        if self._stale:
            with file, disk_errors(self.path, option="--output"):
                drop_answers(self.path, self._stale)
                self._stale = set()
                return self._open()
        return file

    def _open(self) -> TextIO:
        with disk_errors(self.path, option="--output"):
            file = open(self.path, "a", encoding="utf-8")  # noqa: SIM115 (whoever calls closes it)
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.close()
            raise BadInput(
                f"{self.path}: another process is writing answers here; choose another --output"
            ) from None
        return file

    def write(self, file: TextIO, result: Mapping[str, Any]) -> None:
        """Append one result."""
        write_result(file, {**result, "key": self._keys[result["id"]]}, self.path)


def decided_by(recipe: Recipe, policy: Policy) -> dict[str, Any]:
    """What decides all answers of an agent besides their tasks: see `commands.identity`."""
    folders = {"policy": policy.folder, **{role: own.folder for role, own in policy.frozen.items()}}
    return identity(recipe, {role: model_fingerprint(folder) for role, folder in folders.items()})


def _key(task: Task, decided: Mapping[str, Any]) -> str:
    asked = replace(task, answers=())  # what would be right changes no answer
    return short_hash({"task": whole_digest(asked, digest(asked)), **decided})


def _are(count: int) -> str:
    return "is" if count == 1 else "are"


def json_for(value: Any, encoding: str) -> str:
    """JSON in readable characters, or in escapes where the output cannot hold them (broken surrogates, ASCII)."""
    text = json.dumps(value, ensure_ascii=False, indent=2)
    if not text.isascii():  # JSON escapes only those below a space by itself
        text = "".join(f"\\u{ord(c):04x}" if acts_on_a_terminal(c) else c for c in text)
    try:
        text.encode(encoding)
    except UnicodeEncodeError:
        return json.dumps(value, indent=2)
    return text


def unanswered_line(silent: int, calls: int) -> str:
    """A warning about replies that held no answer."""
    return (
        f"warning: {silent} of {calls} replies hold no answer: thoughts that were not finished, or nothing at all; "
        "allow longer replies (the agent's *_tokens), or switch thinking off "
        "(+model.chat_template_kwargs.enable_thinking=false)"
    )
