"""Putting a damaged bank in order: `bank.json` from the table, and the table back to its newest state that is whole.

Nothing is deleted: what cannot be read is moved to the folder `damaged` beside the table, and going back is a new
version of the table.
"""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy

from memfactory.core.errors import BadInput, UserError
from memfactory.core.files import disk_errors
from memfactory.memory.bank_folder import (
    DAMAGED,
    INFO,
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
    TABLE,
    lance_errors,
    read_own_note,
    read_state,
    to_items,
)

_WORDS_ONLY = "none"  # the embedder of a bank without vectors
_COMPARED, _ALIKE = 8, 0.99  # memories embedded anew, and the least cosine with the vectors that are there


def repair_bank(path: str | Path, embedder: str | None = None) -> list[str]:
    """Put a bank in order; returns a line for each thing that was done, none for a bank that is whole.

    `embedder` names the embedder of a bank whose table does not say it (one that an older memfactory made); it is held
    against the vectors that are there. Raises `BadInput` for what is no bank, a bank that another process writes to, a
    newer layout, and where nothing can be done.
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
        table, done = _whole_table(folder)
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


def _whole_table(folder: Path) -> tuple[Any, list[str]]:
    """The table at its newest version of which every row can be read, and what was done to get there."""
    done = []
    while True:
        try:
            with lance_errors(str(folder)):
                table = connect(folder).open_table(TABLE)
            break
        except UserError as error:
            done.append(_set_aside(folder, error))
    newest = int(table.version)
    found = next((version for version in _versions(table, newest) if _is_whole(folder, table, version)), None)
    if found is None:
        raise BadInput(
            f"{folder}: no version of its memories can be read whole; copy the folder back from where you keep copies, "
            "or import the last export into a new bank"
        )
    if found != newest:
        with lance_errors(str(folder)):
            table.checkout(found)
            table.restore()
        done.append(
            f"went back from version {newest} to {found}, the newest that is whole; what came later is lost"
        )
    with lance_errors(str(folder)):
        table.checkout_latest()
    return table, done


def _set_aside(folder: Path, error: UserError) -> str:
    """Move the newest version's manifest away, so that the one before is the newest. Raises `BadInput` at the last."""
    versions = folder / TABLE_FOLDER / "_versions"
    manifests = sorted(versions.glob("*.manifest"), key=_version_of)
    if len(manifests) < 2:
        raise BadInput(
            f"{error}; there is no older version either: copy the folder back from where you keep copies, or import "
            "the last export into a new bank"
        ) from error
    with disk_errors(folder, option="bank"):
        (folder / DAMAGED).mkdir(exist_ok=True)
        os.replace(manifests[-1], folder / DAMAGED / manifests[-1].name)
        (versions / "latest_version_hint.json").unlink(missing_ok=True)
    return f"version {_version_of(manifests[-1])} cannot be read; it was moved to {folder / DAMAGED}"


def _version_of(manifest: Path) -> int:
    """The version that a manifest's name says: counted down from 2^64 - 1, or, in old tables, up."""
    number = int(manifest.stem) if manifest.stem.isdigit() else 0
    return 2**64 - 1 - number if number > 2**63 else number


def _versions(table: Any, newest: int) -> list[int]:
    """All versions that may be there, the newest first."""
    with suppress(RuntimeError, OSError, ValueError):
        return sorted((int(entry["version"]) for entry in table.list_versions()), reverse=True)
    return list(range(newest, 0, -1))


def _is_whole(folder: Path, table: Any, version: int) -> bool:
    try:
        with lance_errors(str(folder)):
            table.checkout(version)
            for batch in table.search().to_batches():
                batch.validate(full=True)
    except UserError:
        return False
    return True


def _named(folder: Path, table: Any, dim: int, embedder: str | None) -> str:
    """The name under which vectors of `embedder` are kept. Raises `BadInput` unless those of the table are its own."""
    if embedder is None:
        raise BadInput(
            f"{folder}: nothing says which embedder its vectors (dimension {dim}) are of; name it with --embedder "
            "(minilm, a folder or a hub id)"
        )
    with lance_errors(str(folder)):
        columns = [
            "id",
            "text",
            "key",
            "type",
            "created_session",
            "created_time",
            "updated_session",
            "updated_time",
        ]
        query = table.search().where(f"state = '{ITEM}' AND embedding IS NOT NULL").limit(_COMPARED)
        items = to_items(query.select([*columns, "tags", "sources", "number", "embedding"]).to_arrow())
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
