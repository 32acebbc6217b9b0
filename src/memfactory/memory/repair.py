"""Putting a damaged bank in order: `bank.json` from the table, and the table back to its newest state that is whole.

Before anything of a table is changed, all of it is copied to the folder `damaged` beside it.
"""

from __future__ import annotations

import shutil
from collections.abc import Collection
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy

from memfactory.core.errors import BadInput, UserError
from memfactory.core.files import disk_errors
from memfactory.memory.bank_folder import (
    DAMAGED,
    INFO,
    SUMS,
    TABLE_FOLDER,
    BankInfo,
    WriterLock,
    check_folder,
    is_bank,
    no_bank,
    read_info,
    write_info,
)
from memfactory.memory.embedders import make_embedder
from memfactory.memory.lance import LanceBank, connect
from memfactory.memory.lance_rows import (
    ITEM,
    OWN_NOTE,
    PLAIN,
    TABLE,
    lance_errors,
    read_own_note,
    read_state,
    to_items,
)
from memfactory.memory.sums import Sums

_ELSEWHERE = "copy the folder back from where you keep copies, or import the last export into a new bank"
_KEPT = "what was there is kept in"
_WORDS_ONLY = "none"  # the embedder of a bank without vectors
_COMPARED, _ALIKE = 8, 0.99  # memories embedded anew, and the least cosine with the vectors that are there


def repair_bank(path: str | Path, embedder: str | None = None, *, keep_damaged: bool = False) -> list[str]:
    """Put a bank in order; returns a line for each thing that was done, none for a bank that is whole.

    `embedder` names the embedder of a bank whose table does not say it (one that an older memfactory made); it is held
    against the vectors that are there. With `keep_damaged` checksums do not count: what can be read stays. Raises
    `BadInput` for what is no bank, a bank that another process writes to, a newer layout, and where nothing helps.
    """
    folder = Path(path).expanduser()
    if not (folder / TABLE_FOLDER).is_dir():
        check_folder(folder)
        if not is_bank(folder):
            raise no_bank(folder)
        raise BadInput(
            f"{folder}: its memories ({TABLE_FOLDER}) are missing and nothing else holds them; copy them back from "
            "where you keep copies, or import the last export into a new bank"
        )
    lock = WriterLock(folder)
    try:
        info = _described(folder)
        sums, done = _open_sums(folder, keep_damaged)
        table, more = _whole_table(folder, sums.damaged())
        done += more
        with lance_errors(str(folder)):
            _, _, meta, _ = read_state(table)
            dim = int(table.schema.field("embedding").type.list_size)
        said = read_own_note(meta.get(OWN_NOTE))
        if said is None and info is not None and info.dim == dim:
            said = info
        if said is None or embedder is not None:
            said = BankInfo(_named(folder, table, dim, embedder), dim)
        if said != info:
            write_info(folder, said)
            done.append(f"{INFO} was made anew: embedder {said.embedder}, dimension {said.dim}")
        if done:
            sums.rewrite()
            sums.record()
    finally:
        lock.release()
    with LanceBank(folder) as bank:
        count = len(bank)
    return [*done, f"{count} {'memory' if count == 1 else 'memories'} can be read"] if done else []


def _described(folder: Path) -> BankInfo | None:
    """What `bank.json` says, None when it is missing or damaged. Raises `BadInput` for a newer layout."""
    try:
        return read_info(folder)
    except BadInput as error:
        if "newer memfactory" in str(error):
            raise
        return None


def _whole_table(folder: Path, damaged: Collection[str]) -> tuple[Any, list[str]]:
    """The table at its newest version that is whole and holds memories, and what was done to get there."""
    done: list[str] = []
    for name in damaged:
        if name.startswith("_versions/"):
            done.append(_drop_version(folder, folder / TABLE_FOLDER / name, done))
    while True:
        try:
            with lance_errors(str(folder)):
                table = connect(folder).open_table(TABLE)
            break
        except UserError as error:
            manifests = _manifests(folder)
            if len(manifests) < 2:
                raise BadInput(f"{error}; there is no older version either: {_ELSEWHERE}") from error
            done.append(_drop_version(folder, manifests[0], done))
    newest = int(table.version)
    found = next((v for v in _versions(table, newest) if _is_whole(folder, table, v, damaged, newest)), None)
    if found is None:
        raise BadInput(
            f"{folder}: no version that holds memories is whole; {_ELSEWHERE}; --keep-damaged takes what can be read"
        )
    with lance_errors(str(folder)):
        if found != newest:
            _keep_copy(folder, done)
            table.checkout(found)
            table.restore()
            done.append(f"went back from version {newest} to {found}, the newest that is whole")
        table.checkout_latest()
        if any(name.startswith("_indices/") for name in damaged):
            for config in table.list_indices():
                table.drop_index(config.name)
            done.append("dropped a damaged index; the next tidying makes it anew")
    for name in damaged:
        if (file := folder / TABLE_FOLDER / name).exists():
            _keep_copy(folder, done)
            with disk_errors(folder, option="bank"):
                file.unlink()
            done.append(f"took {name} out, which is damaged")
    return table, done


def _open_sums(folder: Path, keep_damaged: bool) -> tuple[Sums, list[str]]:
    """The checksums of a bank's files, begun anew if they cannot be read or are not to count; and what was done."""
    try:
        sums = Sums(folder)
    except BadInput:
        (folder / SUMS).unlink(missing_ok=True)
        return Sums(folder), ["the list of checksums was made anew"]
    if keep_damaged and (damaged := sums.damaged()):
        sums.forget()
        return sums, [f"took {', '.join(damaged)} as it is; some memories may be other than they were"]
    return sums, []


def _keep_copy(folder: Path, done: list[str]) -> None:
    """Keep the table as it is in the folder `damaged`, once, before anything of it is changed."""
    if any(line.startswith(_KEPT) for line in done):
        return
    number = 1
    while (copy := folder / DAMAGED / f"{TABLE_FOLDER}.{number}").exists():
        number += 1
    with disk_errors(folder, option="bank"):
        shutil.copytree(folder / TABLE_FOLDER, copy)
    done.append(f"{_KEPT} {copy}")


def _drop_version(folder: Path, manifest: Path, done: list[str]) -> str:
    """Take a version's manifest away, so that another is the newest."""
    _keep_copy(folder, done)
    with disk_errors(folder, option="bank"):
        manifest.unlink()
        manifest.with_name("latest_version_hint.json").unlink(missing_ok=True)
    return f"version {_version_of(manifest)} cannot be read; took it out"


def _manifests(folder: Path) -> list[Path]:
    """One for each version, the newest first."""
    found = (folder / TABLE_FOLDER / "_versions").glob("*.manifest")
    return sorted(found, key=_version_of, reverse=True)


def _version_of(manifest: Path) -> int:
    """The version that a manifest's name says: counted down from 2^64 - 1, or, in old tables, up."""
    number = int(manifest.stem) if manifest.stem.isdigit() else 0
    return 2**64 - 1 - number if number > 2**63 else number


def _versions(table: Any, newest: int) -> list[int]:
    """All versions that may be there, the newest first."""
    with suppress(RuntimeError, OSError, ValueError):
        return sorted((int(entry["version"]) for entry in table.list_versions()), reverse=True)
    return list(range(newest, 0, -1))


def _is_whole(folder: Path, table: Any, version: int, damaged: Collection[str], newest: int) -> bool:
    """Whether every row of a version can be read, from files that are as they were written, and is not none at all.

    The newest may hold none.
    """
    manifest = next((path for path in _manifests(folder) if _version_of(path) == version), None)
    named = manifest.read_bytes() if manifest is not None else b""
    for name in damaged:
        kind, _, file = name.partition("/")
        if kind == "data" and file.encode() in named:
            return False
        # FRAGMENT-VERSION-ID.arrow: rows deleted after VERSION; which version first says so is not in the name.
        since = file.split("-")[1:2]
        if kind == "_deletions" and not (since and since[0].isdigit() and version <= int(since[0])):
            return False
    try:
        with lance_errors(str(folder)):
            table.checkout(version)
            for batch in table.search().to_batches():
                batch.validate(full=True)
            return version == newest or table.count_rows(f"state = '{ITEM}'") > 0
    except UserError:
        return False


def _named(folder: Path, table: Any, dim: int, embedder: str | None) -> str:
    """The name under which vectors of `embedder` are kept. Raises `BadInput` unless those of the table are its own."""
    if embedder is None:
        raise BadInput(
            f"{folder}: nothing says which embedder its vectors (dimension {dim}) are of; name it with --embedder "
            "(minilm, a folder or a hub id)"
        )
    with lance_errors(str(folder)):
        query = table.search().where(f"state = '{ITEM}' AND embedding IS NOT NULL").limit(_COMPARED)
        items = to_items(query.select([*PLAIN, "embedding"]).to_arrow())
    if embedder == _WORDS_ONLY and not items:
        return _WORDS_ONLY
    chosen = make_embedder(embedder)
    if chosen.dim != dim:
        raise BadInput(
            f"{folder}: embedder '{chosen.name}' has dimension {chosen.dim}, and the bank's vectors {dim}"
        )
    vectors = chosen.embed_now([item.text for item in items])
    for item, vector in zip(items, vectors, strict=True):
        if item.embedding is not None and float(numpy.dot(item.embedding, vector)) < _ALIKE:
            raise BadInput(
                f"{folder}: the vector of memory '{item.id}' is not one of embedder '{chosen.name}'; name the one that "
                "the bank was made with, or export without embeddings and import with --embedder"
            )
    return chosen.name
