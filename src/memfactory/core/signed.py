"""A file that proves itself to be ours and unchanged: its last line holds the checksum of all before it."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path

from memfactory.core.files import write_bytes

_LAST_LINE = re.compile(rb"<!-- memfactory sha256:([0-9a-f]{64}) -->\n")
_LENGTH = len(b"<!-- memfactory sha256: -->\n") + 64


def write_signed(path: Path, html: str) -> None:
    """Write an HTML file that proves itself; what UTF-8 cannot hold is escaped. Raises `DiskError`."""
    data = html.encode("utf-8", errors="backslashreplace") + b"\n"
    digest = hashlib.sha256(data).hexdigest()
    write_bytes(path, data + f"<!-- memfactory sha256:{digest} -->\n".encode())


def is_signed(path: Path) -> bool:
    """Whether a file is one of `write_signed`, and unchanged."""
    if path.is_symlink() or not path.is_file():
        return False
    data = path.read_bytes()
    match = _LAST_LINE.fullmatch(data[-_LENGTH:])
    return match is not None and match[1].decode() == hashlib.sha256(data[:-_LENGTH]).hexdigest()
