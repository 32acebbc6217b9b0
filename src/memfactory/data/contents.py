"""The bytes of a data file: opened, unpacked up to a limit, and told apart by how they begin.

What cannot be read as text or JSON is refused here by its first bytes, so that a packed file or one in UTF-16 is one
line and not an error for each of its lines.
"""

from __future__ import annotations

import gzip
import zlib
from pathlib import Path
from typing import IO

from memfactory.core.errors import BadInput, did_you_mean
from memfactory.data.catalog import where_to_get

BOM = b"\xef\xbb\xbf"
#: Bytes that a single record, or a file that is one JSON object, may have: it is parsed at once.
LARGEST = 1 << 30
#: Bytes that may be unpacked in any case, and times the packed size; text packs 3 to 20 times, a bomb 1000 times.
ALWAYS_UNPACKED, MOST_TIMES, MOST_UNPACKED = 256 << 20, 100, 2 << 30

_CHUNK = 1 << 20
_HEAD = 4096
_GZIP, _PARQUET = b"\x1f\x8b", b"PAR1"
_PACKED = {
    b"PK\x03\x04": "a zip archive",
    b"\x28\xb5\x2f\xfd": "packed with zstd",
    b"\xfd7zXZ\x00": "packed with xz",
    b"BZh": "packed with bzip2",
    b"7z\xbc\xaf": "a 7z archive",
}
_OTHER_TEXT = {
    b"\xff\xfe\x00\x00": "UTF-32",
    b"\x00\x00\xfe\xff": "UTF-32",
    b"\xff\xfe": "UTF-16",
    b"\xfe\xff": "UTF-16",
}


def existing(path: str) -> Path:
    """The file that a path names. Raises `BadInput` for none, a folder, a pipe or a device."""
    try:
        file = Path(path).expanduser()
        if file.is_file():
            return file
        if file.is_dir():
            raise BadInput(f"{path}: is a folder, not a data file")
        if file.exists():
            raise BadInput(
                f"{path}: is a pipe or a device, not a data file; write its content to a file first"
            )
        names = [other.name for other in file.parent.iterdir()] if file.parent.is_dir() else []
    except (OSError, ValueError, RuntimeError) as error:  # no permission, a zero byte, no home folder
        raise BadInput(f"{path!r}: cannot be read ({_first_line(error)})") from None
    raise BadInput(f"{path}: no such data file{where_to_get(path) or did_you_mean(file.name, names)}")


def open_file(path: str) -> IO[bytes]:
    """A data file, opened. Raises `BadInput`."""
    try:
        return existing(path).open("rb")
    except OSError as error:
        raise BadInput(f"{path}: cannot be read ({error.strerror or error})") from None


def is_table(path: str) -> bool:
    """Whether a file is a Parquet table, by its name or by how it begins. Raises `BadInput` if there is none."""
    return path.endswith(".parquet") or _head(path).startswith(_PARQUET)


def unpacked(path: str) -> bytes | None:
    """The content of a gzip file; None for a plain one, which is read where it lies.

    Raises `BadInput` for a broken archive, one that unpacks to more than the limits of this module, other kinds of
    archive, and text in UTF-16.
    """
    head = _head(path)
    data = _unpack(path) if path.endswith(".gz") or head.startswith(_GZIP) else None
    _check(path, head if data is None else data[:_HEAD])
    return data


def whole(path: str) -> bytes:
    """All bytes of a file, unpacked, without byte order mark. Raises `BadInput` as `unpacked` does, or for too many."""
    data = unpacked(path)
    if data is None:
        if (size := existing(path).stat().st_size) > LARGEST:
            raise BadInput(
                f"{path}: one JSON object of {size >> 20} MiB, of which at most {LARGEST >> 20} can be read"
            )
        with open_file(path) as file:
            data = file.read()
    return data.removeprefix(BOM)


def _head(path: str) -> bytes:
    with open_file(path) as file:
        return file.read(_HEAD)


def _check(path: str, head: bytes) -> None:
    for start, what in _PACKED.items():
        if head.startswith(start):
            raise BadInput(f"{path}: is {what}; unpack it first")
    if head.startswith(_GZIP):
        raise BadInput(f"{path}: is packed twice; unpack it first")
    for start, name in _OTHER_TEXT.items():
        if head.startswith(start):
            raise BadInput(f"{path}: is {name} text; convert it first (iconv -f {name} -t UTF-8)")
    if b"\x00" in head[:4] and head[:4].replace(b"\x00", b"") in (b"{", b"[", b"{\n", b'{"'):
        raise BadInput(f"{path}: is UTF-16 or UTF-32 text; convert it to UTF-8 first")


def _unpack(path: str) -> bytes:
    limit = min(max(ALWAYS_UNPACKED, MOST_TIMES * existing(path).stat().st_size), MOST_UNPACKED)
    data = bytearray()
    try:
        with open_file(path) as raw, gzip.open(raw) as file:
            while chunk := file.read(_CHUNK):
                data += chunk
                if len(data) > limit:
                    raise BadInput(
                        f"{path}: unpacks to more than {limit >> 20} MiB; if that is right, unpack it yourself: "
                        "a plain file is read record by record"
                    )
    except (OSError, EOFError, zlib.error) as error:
        raise BadInput(f"{path}: not a readable gzip file ({_first_line(error)})") from None
    return bytes(data)


def _first_line(error: Exception) -> str:
    return (str(error) or type(error).__name__).splitlines()[0]
