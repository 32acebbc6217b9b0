"""What a run was begun with: checksums of its data files, of the weights it starts from, and of its plugins.

A run that goes on with other data than it began with would be a run of neither. Files are known by the key of the
recipe that names them, so that a run may move together with its data.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from pathlib import Path
from typing import Any

from memfactory.core.errors import BadInput
from memfactory.core.manifest import Entry, sha256_of
from memfactory.training.run_folder import RunFolder

INPUTS = "inputs.json"
_FORMAT = 1
_AT_ONCE = 4


def named_files(key: str, value: Any) -> Iterator[tuple[str, Path]]:
    """(key, file) of every file that a block of a recipe names, also of those in folders that it names."""
    if isinstance(value, Mapping):
        for name, inner in value.items():
            if name != "type":
                yield from named_files(f"{key}.{name}", inner)
    elif isinstance(value, list | tuple):
        for number, inner in enumerate(value):
            yield from named_files(f"{key}[{number}]", inner)
    elif isinstance(value, str):
        yield from _files_at(key, value)


def files_of(key: str, folder: Path) -> Iterator[tuple[str, Path]]:
    """(key, file) of all files below a folder, or of the one file that it is."""
    if folder.is_file():
        yield key, folder
        return
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            yield f"{key}/{path.relative_to(folder).as_posix()}", path


def check_inputs(
    run: RunFolder,
    files: Iterable[tuple[str, Path]],
    plugins: Iterable[Path],
    say: Callable[[str], None],
) -> dict[str, Any]:
    """Hold a run's files against those that it began with; returns what to keep of them (`write_inputs`).

    Raises `BadInput` that names the first file that differs. A plugin that differs is only told: a mistake in it may
    be what stopped the run. Files that are as old and as long as before are not read again.
    """
    known = _read(run.path / INPUTS)
    before = known.get("files", {})
    listed = dict(files)
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        entries = pool.map(lambda item: _entry(item[1], before.get(item[0])), listed.items())
        found = dict(zip(listed, entries, strict=True))
    for key, path in listed.items():
        if known and key not in before:
            raise _changed(run, path, key, "is new")
        if known and before[key].sha256 != found[key].sha256:
            raise _changed(run, path, key, "has changed")
    for key in before:
        if key not in found:
            raise _changed(run, Path(key.rpartition("/")[2]), key, "is gone")
    hashes = {path.name: sha256_of(path) for path in plugins}
    for name, digest in hashes.items():
        if known and known["plugins"].get(name) != digest:
            say(
                f"warning: plugin {name} has changed since this run began; its later steps are made by the new one"
            )
    plain = {key: asdict(entry) for key, entry in found.items()}
    return {"format": _FORMAT, "files": plain, "plugins": {**known.get("plugins", {}), **hashes}}


def _changed(run: RunFolder, path: Path, key: str, how: str) -> BadInput:
    return BadInput(
        f"{path}: {how} since the run in {run.path} began ({key.partition('/')[0]}); put it back as it was, or choose "
        "another --output-dir"
    )


def _files_at(key: str, text: str) -> Iterator[tuple[str, Path]]:
    """A text may be anything; it is a path if there is a file, or a folder that is written like one."""
    if not text or len(text) > 4096 or "\n" in text or "\0" in text:
        return
    try:
        path = Path(text).expanduser()
        if path.is_file() or ("/" in text and path.is_dir()):
            yield from files_of(key, path)
    except (OSError, RuntimeError):
        return


def _entry(path: Path, before: Entry | None) -> Entry:
    status = path.stat()
    if before is not None and (before.size, before.mtime_ns) == (status.st_size, status.st_mtime_ns):
        return before
    return Entry(status.st_size, sha256_of(path), status.st_mtime_ns)


def _read(path: Path) -> dict[str, Any]:
    """What an earlier start wrote; empty where none did."""
    if not path.exists():
        return {}
    try:
        value = json.loads(path.read_bytes())
        if value["format"] != _FORMAT:
            raise ValueError("another format")
        files = {str(key): Entry(**entry) for key, entry in value["files"].items()}
        return {"files": files, "plugins": dict(value["plugins"])}
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        why = (str(error).splitlines() or [type(error).__name__])[0][:120]
        raise BadInput(
            f"{path}: not readable ({why}); move it away if the data are those that the run began with"
        ) from None
