"""What we wrote into a folder: every file with its size and checksum, kept in the folder itself.

It answers two questions. Is what lies there still what was written (a flipped bit, a file cut off)? And may the folder
be deleted, or is something in it that is not ours, or that was changed since? Links are never followed.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from memfactory.core.errors import BadInput
from memfactory.core.files import write_json
from memfactory.core.partials import remove_folder

MANIFEST = "memfactory-manifest.json"
_FORMAT, _VERSION = "memfactory-manifest", 1
#: Files that are hashed at once; hashing lets other threads run.
_AT_ONCE = 4
_SHOWN = 3


@dataclass(frozen=True)
class Entry:
    """A file as it was written. `mtime_ns` spares reading a file again that nobody has touched."""

    size: int
    sha256: str
    mtime_ns: int


@dataclass(frozen=True)
class Manifest:
    """The files of a folder by relative path, its folders, what kind of folder it is, and what else is known of it."""

    kind: str
    facts: Mapping[str, Any]
    files: Mapping[str, Entry]
    folders: Sequence[str]


def seal(folder: Path, kind: str, **facts: Any) -> None:
    """Write the manifest of all that is in a folder now. Raises `DiskError` and `OSError`."""
    files, folders = _listing(folder)
    entries = _entries(folder, files)
    write_json(folder / MANIFEST, _as_json(Manifest(kind, facts, entries, folders)))


def read_manifest(folder: Path) -> Manifest | None:
    """The manifest of a folder; None without one. Raises `BadInput` when it cannot be read."""
    path = folder / MANIFEST
    if not os.path.lexists(path):
        return None
    try:
        value = json.loads(path.read_bytes())
        known = value["format"] == _FORMAT and value["version"] == _VERSION
        files = {_checked(name): Entry(**entry) for name, entry in value["files"].items()}
        found = Manifest(str(value["kind"]), dict(value["facts"]), files, list(value["folders"]))
        if not known or value["check"] != _check(found):
            raise ValueError("its own checksum differs")
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise BadInput(f"{path}: not readable as a list of files ({_words(error)})") from None
    return found


def damage(folder: Path, manifest: Manifest) -> str | None:
    """The first file that is not as it was written, and how; None if all are. Reads every file."""
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        found = pool.map(lambda item: _difference(folder / item[0], item[1]), manifest.files.items())
        for name, difference in zip(manifest.files, found, strict=True):
            if difference is not None:
                pool.shutdown(wait=False, cancel_futures=True)
                return f"{name} {difference}"
    return None


def foreign_files(folder: Path) -> list[str]:
    """What is in a folder and not, or not so, in its manifest: all of it when there is no manifest."""
    if folder.is_symlink():
        return [folder.name]
    try:
        manifest = read_manifest(folder)
    except BadInput:
        return [MANIFEST]
    files, folders = _listing(folder)
    if manifest is None:
        return files or [f"{name}/" for name in folders]
    known = set(manifest.folders)
    strange = [f"{name}/" for name in folders if name not in known]
    for name in files:
        entry = manifest.files.get(name)
        if entry is None or not is_unchanged(folder / name, entry):
            strange.append(name)
    return strange


def require_ours(folder: Path, kind: str, remedy: str) -> None:
    """Raise `BadInput` unless all of a folder is ours, unchanged, and of that kind; an empty folder is anybody's."""
    strange = foreign_files(folder)
    if strange:
        raise BadInput(
            f"{folder}: not written by memfactory, or changed since: {named(strange)}; nothing was deleted, {remedy}"
        )
    manifest = read_manifest(folder)
    if manifest is not None and manifest.kind != kind:
        raise BadInput(f"{folder}: is a {manifest.kind}, no {kind}; nothing was deleted, {remedy}")


def remove_ours(folder: Path) -> bool:
    """Delete a folder if all that is in it is ours and unchanged; else leave it. Raises `OSError`."""
    if foreign_files(folder):
        return False
    return remove_folder(folder, unless=foreign_files)


def named(files: Sequence[str]) -> str:
    """The first few names of a list, for an error's line."""
    return ", ".join(files[:_SHOWN]) + (f" and {len(files) - _SHOWN} more" if len(files) > _SHOWN else "")


def is_unchanged(path: Path, entry: Entry) -> bool:
    """Whether a file is the one that was written; it is read only if its time differs."""
    if path.is_symlink() or not path.is_file():
        return False
    status = path.stat()
    if status.st_size != entry.size:
        return False
    return status.st_mtime_ns == entry.mtime_ns or sha256_of(path) == entry.sha256


def sha256_of(path: Path) -> str:
    """The checksum of a file's content."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def entry_of(path: Path) -> Entry:
    """A file as it is now."""
    status = path.stat()
    return Entry(status.st_size, sha256_of(path), status.st_mtime_ns)


def walk(folder: Path) -> Iterator[tuple[str, bool]]:
    """(relative path, whether it is a folder) of all that is below a folder; a link is a file."""
    for place, folders, files in os.walk(folder):
        below = Path(place).relative_to(folder)
        for name in folders:
            link = (Path(place) / name).is_symlink()
            yield (below / name).as_posix(), not link
        for name in files:
            yield (below / name).as_posix(), False


def _listing(folder: Path) -> tuple[list[str], list[str]]:
    """Files but for the manifest, and folders, sorted."""
    found = sorted(walk(folder))
    files = [name for name, is_folder in found if not is_folder and name != MANIFEST]
    return files, [name for name, is_folder in found if is_folder]


def _entries(folder: Path, files: Sequence[str]) -> dict[str, Entry]:
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        return dict(zip(files, pool.map(lambda name: entry_of(folder / name), files), strict=True))


def _difference(path: Path, entry: Entry) -> str | None:
    try:
        if path.is_symlink() or not path.is_file():
            return "is missing"
        size = path.stat().st_size
        if size != entry.size:
            return f"has {size} bytes instead of {entry.size}"
        if sha256_of(path) != entry.sha256:
            return "is not what was written (its checksum differs)"
    except OSError as error:
        return f"cannot be read ({error.strerror})"
    return None


def _checked(name: str) -> str:
    path = PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts or name in ("", MANIFEST):
        raise ValueError(f"{name!r} is no file of this folder")
    return name


def _as_json(manifest: Manifest) -> dict[str, Any]:
    return {
        "format": _FORMAT,
        "version": _VERSION,
        "kind": manifest.kind,
        "facts": dict(manifest.facts),
        "files": {name: asdict(entry) for name, entry in manifest.files.items()},
        "folders": list(manifest.folders),
        "check": _check(manifest),
    }


def _check(manifest: Manifest) -> str:
    files = {name: [entry.size, entry.sha256] for name, entry in manifest.files.items()}
    content = json.dumps([manifest.kind, manifest.facts, files, list(manifest.folders)], sort_keys=True)
    return hashlib.sha256(content.encode()).hexdigest()


def _words(error: Exception) -> str:
    return (str(error).splitlines() or [""])[0][:120] or type(error).__name__
