"""Hashes of downloaded files, in a file beside them that `sha256sum -c` reads too.

Most publishers name no hash. What was fetched first is then what every later fetch, on this machine or from a copy of
the folder, must bring again.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

from memfactory.core.errors import BadInput
from memfactory.core.files import disk_errors, write_text

SUMS = "SHA256SUMS"


def recorded(path: Path) -> str | None:
    """The hash that a file had when it was fetched; None if it was not fetched here."""
    return _read(path.parent / SUMS).get(path.name)


def record(path: Path, sha256: str) -> None:
    """Note the hash of a file that was fetched. Raises `DiskError`."""
    sums = {**_read(path.parent / SUMS), path.name: sha256}
    write_text(path.parent / SUMS, "".join(f"{value}  {name}\n" for name, value in sorted(sums.items())))


def verify(path: Path) -> None:
    """Raise `BadInput` for a file that is not what was fetched; files that were put here by hand are passed over."""
    expected = recorded(path)
    if expected is None:
        return
    with disk_errors(path), path.open("rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    if found != expected:
        raise BadInput(
            f"{path}: it has changed since it was fetched (its sha256 differs from {path.parent / SUMS}); delete it "
            "and fetch again, or delete its line there to keep it"
        )


def _read(path: Path) -> dict[str, str]:
    try:
        lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    except FileNotFoundError:
        return {}
    parted = [line.partition("  ") for line in lines]
    return {name: value for value, _, name in parted if name}
