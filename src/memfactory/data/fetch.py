"""Downloading public data sets from where their publishers keep them, whole or not at all."""

from __future__ import annotations

import hashlib
import tarfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from memfactory.core.errors import BadInput, ServiceError, did_you_mean
from memfactory.core.files import disk_errors
from memfactory.data.catalog import DataSet, HubFile, WebFile, find
from memfactory.data.write import atomic_write

_SECONDS_TO_WAIT = 15.0
_CHUNK = 1 << 20


def fetch(
    name: str, parts: Sequence[str] = (), output: str | None = None, say: Callable[[str], None] = print
) -> list[Path]:
    """Download a data set, or the parts of it that are named; return its files. Those that are there are kept.

    Raises `BadInput` for an unknown data set or part and for one that is generated here; `ServiceError`, naming every
    missing file and where it is, when they cannot be downloaded.
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
        if not path.exists():
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
    import httpx

    digest = hashlib.sha256()
    url, headers, sha256 = _request(file)
    try:
        with (
            httpx.stream(
                "GET", url, headers=headers, follow_redirects=True, timeout=_SECONDS_TO_WAIT
            ) as answer,
            atomic_write(str(path)) as target,
        ):
            answer.raise_for_status()
            for chunk in answer.iter_bytes(_CHUNK):
                digest.update(chunk)
                target.write(chunk)
            if sha256 is not None and digest.hexdigest() != sha256:
                raise _Unreachable(f"{url}: the content is not the published one (sha256 differs)")
    except httpx.HTTPError as error:
        raise _Unreachable(_first_line(error)) from error


def _request(file: HubFile | WebFile) -> tuple[str, dict[str, str], str | None]:
    """Address, headers and, where it is known, the hash of a file."""
    if isinstance(file, WebFile):
        return file.url, {}, file.sha256
    from huggingface_hub import hf_hub_url
    from huggingface_hub.utils import build_hf_headers

    return hf_hub_url(file.repository, file.name, repo_type="dataset"), build_hf_headers(), None


def _unpack(archive: Path, folder: Path) -> None:
    """Unpack beside the archive; names that lead out of the folder are refused by the filter."""
    with disk_errors(folder):
        try:
            with tarfile.open(archive) as tar:
                tar.extractall(folder, filter="data")
        except (tarfile.TarError, EOFError) as error:
            raise BadInput(
                f"{archive}: not a readable archive ({_first_line(error)}); delete it and fetch again"
            ) from error


def _first_line(error: Any) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0][:200]
