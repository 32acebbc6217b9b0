"""The files that a run wrote into its folder, by checksum: only those may it ever delete or replace.

A journal holds a line for every content that a file of the run ever had, written before the file is: so a kill leaves
no file of ours that is not in it. Folders that are written once and for all (checkpoints, `final/`) have a manifest
of their own (`core.manifest`).
"""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from memfactory.core.files import disk_errors, write_bytes

JOURNAL = "written.jsonl"


@dataclass(frozen=True)
class _Content:
    """What a file of ours holds, or would have held. `after`: the size to which this was appended, if it was."""

    size: int
    sha256: str
    after: int | None


class WrittenFiles:
    """Writes the files of a run, and knows them again. For one process at a time: the one that has the run's lock."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._journal = root / JOURNAL
        self._contents: dict[str, list[_Content]] | None = None
        self._trees: set[str] = set()
        self._growing: dict[str, Any] = {}

    @property
    def exists(self) -> bool:
        """Whether a run of ours began in this folder."""
        return self._journal.is_file() and not self._journal.is_symlink()

    def replace(self, path: Path, data: bytes) -> None:
        """Give a file this content, atomically. Another content that is not ours is kept beside it."""
        if path.is_file() and not path.is_symlink() and path.read_bytes() == data and self.is_ours(path):
            return
        self.keep_foreign(path)
        self._growing.pop(self._name(path), None)
        self._note(path, _Content(len(data), hashlib.sha256(data).hexdigest(), None))
        write_bytes(path, data)

    def replace_text(self, path: Path, text: str) -> None:
        """The same with a text; what UTF-8 cannot hold is escaped."""
        self.replace(path, text.encode("utf-8", errors="backslashreplace"))

    def replace_json(self, path: Path, value: Any) -> None:
        """The same with JSON."""
        self.replace_text(path, json.dumps(value, indent=2, ensure_ascii=False) + "\n")

    def append(self, path: Path, text: str) -> None:
        """Add to the end of a file and hand it to the operating system."""
        data = text.encode("utf-8", errors="backslashreplace")
        with disk_errors(path):
            self.announce(path, data)
            with open(path, "ab") as file:
                file.write(data)

    def announce(self, path: Path, data: bytes) -> None:
        """Note what a file will hold when these bytes have been added to it."""
        name = self._name(path)
        if name not in self._growing:
            self._growing[name] = self._begin(path)
        running = self._growing[name]
        if running is not None:
            size, digest = running
            digest.update(data)
            self._growing[name] = (size + len(data), digest)
            self._note(path, _Content(size + len(data), digest.hexdigest(), size))

    def remove(self, path: Path) -> None:
        """Delete a file of ours; another is kept under another name."""
        self.keep_foreign(path)
        path.unlink(missing_ok=True)
        self._growing.pop(self._name(path), None)

    def keep_foreign(self, path: Path) -> None:
        """Move what stands at `path` to a name of its own, unless we wrote it."""
        if not os.path.lexists(path) or self.is_ours(path):
            return
        number, kept = 1, path.with_name(f"{path.name}.kept")
        while os.path.lexists(kept):
            number += 1
            kept = path.with_name(f"{path.name}.kept-{number}")
        with disk_errors(path):
            os.rename(path, kept)

    def is_ours(self, path: Path) -> bool:
        """Whether a file has a content that we gave it, or the beginning of one that a kill cut off."""
        if path.is_symlink() or not path.is_file():
            return False
        contents = self._read().get(self._name(path), [])
        data = path.read_bytes()
        digests: dict[int, str] = {}

        def digest(size: int) -> str:
            if size not in digests:
                digests[size] = hashlib.sha256(data[:size]).hexdigest()
            return digests[size]

        for content in reversed(contents):
            if content.size == len(data) and content.sha256 == digest(content.size):
                return True
            cut_off = content.after is not None and content.after <= len(data) < content.size
            if cut_off and b"\n" not in data[content.after :]:
                before = [c for c in contents if c.size == content.after]
                if content.after == 0 or any(c.sha256 == digest(c.size) for c in before):
                    return True
        return False

    def made_folder(self, name: str) -> None:
        """Note that a tracker made this folder for the run, and fills it."""
        self._read()
        self._trees.add(name)
        self._line({"folder": name})

    def made_by_tracker(self, name: str) -> bool:
        """Whether a folder of the run was made by its tracker."""
        self._read()
        return name in self._trees

    def _begin(self, path: Path) -> tuple[int, Any] | None:
        """Size and running checksum of a file that grows; None for one that is not ours, and so never will be."""
        if not os.path.lexists(path):
            return 0, hashlib.sha256()
        if not self.is_ours(path):
            return None
        data = path.read_bytes()
        return len(data), hashlib.sha256(data)

    def _name(self, path: Path) -> str:
        return path.relative_to(self._root).as_posix()

    def _note(self, path: Path, content: _Content) -> None:
        name = self._name(path)
        self._read().setdefault(name, []).append(content)
        line: dict[str, Any] = {"file": name, "size": content.size, "sha256": content.sha256}
        self._line(line if content.after is None else {**line, "after": content.after})

    def _line(self, value: dict[str, Any]) -> None:
        with disk_errors(self._journal):
            self._journal.parent.mkdir(parents=True, exist_ok=True)
            with open(self._journal, "ab") as file:
                file.write((json.dumps(value) + "\n").encode())

    def _read(self) -> dict[str, list[_Content]]:
        """What the journal knows; a line that a kill cut off, or anything else that is none, proves nothing."""
        if self._contents is None:
            self._contents = {}
            data = self._journal.read_bytes() if self.exists else b""
            for line in data.splitlines():
                self._take(line)
            if data and not data.endswith(b"\n"):
                with disk_errors(self._journal), open(self._journal, "ab") as file:
                    file.write(b"\n")
        return self._contents

    def _take(self, line: bytes) -> None:
        assert self._contents is not None
        try:
            value = json.loads(line)
            if "folder" in value:
                self._trees.add(str(value["folder"]))
                return
            after = value.get("after")
            content = _Content(
                int(value["size"]), str(value["sha256"]), None if after is None else int(after)
            )
            self._contents.setdefault(str(value["file"]), []).append(content)
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError, OverflowError):
            return
