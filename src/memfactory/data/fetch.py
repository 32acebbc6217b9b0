"""Downloading public data sets from where their publishers keep them, whole or not at all."""

from __future__ import annotations

import hashlib
import re
import tarfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from memfactory.core.address import parse_address
from memfactory.core.download import download
from memfactory.core.errors import BadInput, ServiceError, did_you_mean
from memfactory.core.files import disk_errors
from memfactory.core.http import HttpFailed
from memfactory.data.catalog import DataSet, HubFile, WebFile, find
from memfactory.data.checksums import SUMS, record, recorded, verify
from memfactory.data.write import atomic_write


def fetch(
    name: str, parts: Sequence[str] = (), output: str | None = None, say: Callable[[str], None] = print
) -> list[Path]:
    """Download a data set, or the parts of it that are named; return its files. Those that are there are kept.

    What was fetched stands with its hash in the folder's file SHA256SUMS (`data.checksums`), and is compared with it
    whenever it is fetched again. Raises `BadInput` for an unknown data set or part, for one that is generated here and
    for a file that has changed since; `ServiceError`, naming every missing file and where it is, when they cannot be
    downloaded.
    """
    entry = find(name)
    if not entry.parts:
        raise BadInput(f"{name} is generated here, there is nothing to fetch: {entry.make}")
    for part in parts:
        if part not in entry.parts:
            hint = did_you_mean(part, entry.parts) or f"; parts: {', '.join(entry.parts)}"
            raise BadInput(f"{name} has no part '{part}'{hint}")
    folder = Path(output or entry.folder).expanduser()
    wanted = {part: file for part, file in entry.parts.items() if not parts or part in parts}
    found = []
    for number, file in enumerate(wanted.values()):
        path = folder / file.name
        if path.exists():
            verify(path)
        else:
            say(f"fetching {file}")
            try:
                _download(file, path)
            except _Unreachable as error:
                raise _by_hand(entry, list(wanted.values())[number:], folder, str(error)) from error
        found.append(path)
        if path.suffixes[-2:] == [".tar", ".gz"]:
            _unpack(path, folder)
    return found


class _Unreachable(Exception):
    """A file could not be downloaded; the message says why."""


def _by_hand(entry: DataSet, files: Sequence[HubFile | WebFile], folder: Path, reason: str) -> ServiceError:
    missing = [file for file in files if not (folder / file.name).exists()]
    return ServiceError(
        f"{entry.name} cannot be downloaded ({reason}); put these files into {folder}/ yourself: "
        f"{', '.join(map(str, missing))}"
    )


def _download(file: HubFile | WebFile, path: Path) -> None:
    """Over HTTP, also from the hub: its own client says on many lines, for half a minute, that there is no network."""
    digest, url, headers = hashlib.sha256(), _address(file), {}
    if urlsplit(url).scheme != "https" and not parse_address(url).is_here:
        raise _Unreachable(f"{url} is not https")
    if isinstance(file, HubFile):
        from huggingface_hub.utils import build_hf_headers

        headers = build_hf_headers()

    def write(piece: bytes) -> None:
        digest.update(piece)
        target.write(piece)

    try:
        with atomic_write(str(path)) as target:
            replies = download(url, write, headers=headers)
            _check(path, digest.hexdigest(), _published(file, replies), url)
    except HttpFailed as error:
        raise _Unreachable(f"{url}: it {error}") from error
    record(path, digest.hexdigest())


def _address(file: HubFile | WebFile) -> str:
    if isinstance(file, WebFile):
        return file.url
    from huggingface_hub import hf_hub_url

    return hf_hub_url(file.repository, file.name, repo_type="dataset")


def _published(file: HubFile | WebFile, replies: Sequence[Mapping[str, str]]) -> str | None:
    """The hash that the publishers name: in the catalogue, or the hub in its replies for large files."""
    if isinstance(file, WebFile):
        return file.sha256
    named = [reply.get("x-linked-etag", "").strip('W/"') for reply in replies]
    return next((name for name in named if re.fullmatch(r"[0-9a-f]{64}", name)), None)


def _check(path: Path, found: str, published: str | None, url: str) -> None:
    before = recorded(path)
    if published is not None and found != published:
        raise _Unreachable(f"{url}: the content is not the published one (sha256 differs)")
    if before is not None and found != before:
        raise _Unreachable(
            f"{url}: the content is not what was fetched before (sha256 differs); if its publishers have changed it, "
            f"delete its line in {path.parent / SUMS}"
        )


def _unpack(archive: Path, folder: Path) -> None:
    """Unpack beside the archive; names that lead out of the folder are refused by the filter.

    What is there already stays. Raises `BadInput` for a file of another content: it may be somebody's own.
    """
    with disk_errors(folder):
        try:
            with tarfile.open(archive) as tar:
                missing = [member for member in tar if not _is_there(tar, member, folder)]
                tar.extractall(folder, missing, filter="data")
        except (tarfile.TarError, EOFError) as error:
            raise BadInput(
                f"{archive}: not a readable archive ({_first_line(error)}); delete it and fetch again"
            ) from error


def _is_there(tar: tarfile.TarFile, member: tarfile.TarInfo, folder: Path) -> bool:
    """Whether a file of the archive stands in the folder, as it is in the archive."""
    target = folder / member.name
    content = tar.extractfile(member) if member.isfile() and target.is_file() else None
    if content is None:
        return False
    with content, open(target, "rb") as mine:
        while (theirs := content.read(1 << 20)) == mine.read(1 << 20):
            if not theirs:
                return True
    raise BadInput(f"{target}: is there and is not the file of the archive; move it away and fetch again")


def _first_line(error: Any) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0][:200]
