"""The memory bank on disk, in a LanceDB table: survives a kill at any moment, one writer, many readers.

Every change, or every transaction, is one commit of the table: one atomic rename, so a bank is as it was before or
after it. `bank_folder` says what else is in its folder, `repair` what can be done for a damaged one.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from datetime import timedelta
from pathlib import Path
from typing import Any, Literal

from memfactory.core.errors import BadInput, DiskError, UserError
from memfactory.core.files import disk_errors
from memfactory.memory.bank_folder import (
    HALF,
    INFO,
    SUMS,
    TABLE_FOLDER,
    VERSION,
    BankInfo,
    WriterLock,
    being_written,
    check_folder,
    is_bank,
    lost_info,
    read_info,
    write_info,
)
from memfactory.memory.item import MemoryItem
from memfactory.memory.lance_rows import (
    GONE,
    OWN_NOTE,
    PROBES,
    TABLE,
    Snapshot,
    lance_errors,
    own_note,
    read_own_note,
    read_state,
    schema,
    to_table,
)
from memfactory.memory.layered import LayeredBank
from memfactory.memory.layered_reader import BankState, TextIndexOnce
from memfactory.memory.layers import Layer, compacted, merged
from memfactory.memory.sums import Sums

__all__ = ["VERSION", "LanceBank", "is_bank", "making_bank"]

#: Committed changes kept in memory above the base: in all, and of items that the base holds too.
_KEPT, _KEPT_BELOW = 2000, 16
_PARTS = 8  # of an index over 100 000 memories, before it is made anew
_OLD = timedelta(hours=1)  # how long readers may look at a version that was replaced
_NEXT = "memfactory:next_number"  # a note: numbers below it are taken, though the items may be gone


class LanceBank(LayeredBank):
    """A memory bank that lasts. `path` is its folder; it is made when it does not exist and `mode` is write.

    `embedder` and `dim` are those of the vectors to come: other ones than the bank's are an error; left out,
    they are the bank's own. After `compact_every` commits the table is tidied, and from `index_from`
    memories on it then gets a vector index: searches become fast and approximate.
    Raises `BadInput` for a folder that is no bank, a bank of a newer version, another embedder, or a bank
    that another process writes to.
    """

    def __init__(
        self,
        path: str | Path,
        *,
        embedder: str | None = None,
        dim: int | None = None,
        mode: Literal["write", "read"] = "write",
        compact_every: int = 100,
        index_from: int = 20_000,
    ) -> None:
        self.path = Path(path).expanduser()
        self.mode = mode
        self._compact_every = compact_every
        self._index_from = index_from
        self._lock: WriterLock | None = None
        if mode == "read" or self.path.exists():
            check_folder(self.path)
        if not is_bank(self.path) and (mode == "read" or embedder is None or dim is None):
            if not being_written(self.path):
                _refuse_lost_table(self.path)
            raise BadInput(f"{self.path}: no memory bank here yet, and no embedder was named to make one for")
        if mode == "write":
            self._lock = WriterLock(self.path)
        #: Whether the bank was made by this object, and nothing was put into it yet.
        self.new = False
        try:
            if not is_bank(self.path):
                self._create(embedder or "", dim or 0)
            info = read_info(self.path)
            super().__init__(info.embedder, info.dim)
            self._sums = Sums(self.path)
            self._sums.check()
            with lance_errors(str(self.path)):
                self._database, self._table = _open_table(self.path)
                fragments = self._table.stats()["fragment_stats"]["num_fragments"]  # type: ignore[index]
            self._commits = int(fragments)
            self.refresh()
            if embedder is not None or dim is not None:
                self.require_embedder(embedder or self.embedder, dim or self.dim, str(self.path))
            if mode == "write":
                self._sums.record()
        except BaseException:
            self.close()
            raise

    @property
    def indexed(self) -> bool:
        """Whether searches go by a vector index (fast, approximate) instead of through every vector."""
        return self._base.indexed if isinstance(self._base, Snapshot) else False

    def refresh(self) -> None:
        """See what was committed last. A reader sees one moment until it asks; a writer is always up to date."""
        with lance_errors(str(self.path)):
            self._table.checkout_latest()
            length, last, meta, self._gone = read_state(self._table)
            self._check_table(meta.pop(OWN_NOTE, None))
            indexed = any("embedding" in config.columns for config in self._table.list_indices())
        next_number = max(last + 1, int(meta.pop(_NEXT, "1")))
        base = self._snapshot(next_number - 1, indexed)
        self._committed = BankState(base, (), length, next_number, meta, TextIndexOnce())
        self._settled = 0
        self._restore(self._committed)

    def changes(self) -> Mapping[str, MemoryItem | None]:
        """What the open transaction has changed so far, by id; None was deleted."""
        return merged((*self._layers[self._settled :], self._open), self.dim).changes

    def optimize(self, *, index: bool | None = None) -> None:
        """Tidy the table: fewer files, deleted rows gone, new rows in the index, versions over an hour old dropped.

        `index` makes a vector index (True) or none (False); None makes one from `index_from` memories on.
        """
        self._writable()
        if self._depth:
            raise RuntimeError("optimize inside a transaction")
        self._tidy(index)

    def _tidy(self, index: bool | None = None) -> None:
        with lance_errors(str(self.path)):
            if self._gone:
                self._upsert(to_table({}, {_NEXT: str(self._next_number)}, 0, self.dim))
                self._table.delete(f"state = '{GONE}'")
            if not self.indexed and (index or (index is None and len(self) >= self._index_from)):
                self._create_index()
            self._table.optimize(cleanup_older_than=_OLD)
            if self.indexed and self._index_parts() > _PARTS * max(1.0, len(self) / 100_000):
                self._create_index()
        self._commits = 0
        self._sums.record()
        self._sums.rewrite()
        self.refresh()

    def prewarm(self) -> None:
        """Load the index into memory, so that the first searches are as fast as later ones."""
        if isinstance(self._base, Snapshot) and self.indexed:
            with lance_errors(str(self.path)):
                for config in self._table.list_indices():
                    self._base.table.prewarm_index(config.name)

    def close(self) -> None:
        """Let another process write. What was committed is on disk already."""
        if self._lock is not None:
            self._lock.release(abandon=not is_bank(self.path))
            self._lock = None

    def discard(self) -> None:
        """Close, and leave nothing of a bank that is `new`: a name that was mistyped becomes no bank."""
        if self.new and self._lock is not None:
            with disk_errors(self.path, option="--bank"):
                (self.path / INFO).unlink()
                shutil.rmtree(self.path / TABLE_FOLDER)
                (self.path / SUMS).unlink(missing_ok=True)
        self.close()

    def _create(self, embedder: str, dim: int) -> None:
        """Make the table, then `bank.json`. A table that holds nothing was begun by a process that was killed."""
        _refuse_lost_table(self.path)
        shutil.rmtree(self.path / TABLE_FOLDER, ignore_errors=True)
        (self.path / SUMS).unlink(missing_ok=True)
        info = BankInfo(embedder, dim)
        with lance_errors(str(self.path)):
            rows = to_table({}, {OWN_NOTE: own_note(info)}, 0, dim)
            connect(self.path).create_table(TABLE, data=rows, schema=schema(dim), on_bad_vectors="null")
        write_info(self.path, info)
        self.new = True

    def _check_table(self, note: str | None) -> None:
        """Raise `BadInput` unless the table is the one that `bank.json` describes."""
        mine = BankInfo(self.embedder, self.dim)
        said = read_own_note(note)
        dim = self._table.schema.field("embedding").type.list_size
        if (said or mine) != mine or dim != self.dim:
            raise BadInput(
                f"{self.path / INFO}: names embedder '{self.embedder}' (dimension {self.dim}), and the table is of "
                f"'{said.embedder if said else 'another'}' (dimension {dim}); memfactory bank repair {self.path} makes "
                "it anew"
            )
        self._noted = said is not None

    def _writable(self) -> None:
        if self.mode == "read":
            raise UserError(f"{self.path}: this memory bank was opened for reading only")
        if self._lock is None:
            raise UserError(f"{self.path}: this memory bank was closed; open it again to change it")

    def _commit(self) -> None:
        pending = merged((*self._layers[self._settled :], self._open), self.dim)
        notes = {key: text for key, text in self._meta.items() if self._committed.meta.get(key) != text}
        if not pending.changes and not notes:
            return
        self.new = False
        if not self._noted:  # a bank from before the table had it
            notes[OWN_NOTE] = own_note(BankInfo(self.embedder, self.dim))
        try:
            with lance_errors(str(self.path)):
                rows = to_table(pending.changes, notes, self._next_number - 1, self.dim)
                first = self._committed.next_number
                if not notes and all(item and item.number >= first for item in pending.changes.values()):
                    self._table.add(rows, on_bad_vectors="null")
                else:
                    self._upsert(rows)
        except BaseException:
            self._restore(self._committed)
            raise
        self._noted = True
        self._gone += sum(1 for item in pending.changes.values() if item is None)
        self._commits += 1
        self._settle(pending)
        with suppress(DiskError):  # the commit stands, and a file without a checksum is only not checked
            self._sums.record()
        if self._commits >= self._compact_every:
            self._tidy()

    def _settle(self, committed: Layer) -> None:
        """Go on from what was committed.

        It stays in memory above the same base while it is little: searches then need not look into many
        small files that are in no index yet.
        """
        base = self._base
        layers = compacted((*self._layers[: self._settled], committed), self.dim)
        if isinstance(base, Snapshot):
            changed = [item_id for layer in layers for item_id in layer.changes]
            below = sum(1 for item_id in changed if base.may_hold(item_id))
            if len(changed) > _KEPT or below > _KEPT_BELOW:
                base, layers = self._snapshot(self._next_number - 1, base.indexed), ()
        self._settled = len(layers)
        self._committed = BankState(base, layers, self._length, self._next_number, self._meta, self._texts)
        self._restore(self._committed)

    def _upsert(self, rows: Any) -> None:
        merge = self._table.merge_insert("row").when_matched_update_all().when_not_matched_insert_all()
        merge.execute(rows, on_bad_vectors="null")  # none are bad, but it takes null for bad

    def _snapshot(self, last_number: int, indexed: bool) -> Snapshot:
        return Snapshot(self._database, self._table.version, str(self.path), last_number, indexed)

    def _index_parts(self) -> int:
        """Of how many parts the vector index is; every tidying adds one, and each costs a search time."""
        configs = [config for config in self._table.list_indices() if "embedding" in config.columns]
        statistics = [self._table.index_stats(config.name) for config in configs]
        return sum((entry.num_indices or 1) for entry in statistics if entry is not None)

    def _create_index(self) -> None:
        from lancedb.index import IvfRq

        self._table.create_scalar_index("row", index_type="BTREE", replace=True)  # for get and update
        # Up to here every partition would be searched anyway, and few large ones are searched faster.
        partitions = min(1024, len(self) // 1600)
        partitions = partitions if partitions > PROBES else min(8, max(1, partitions))
        config = IvfRq(distance_type="dot", num_partitions=partitions, num_bits=4)
        self._table.create_index("embedding", config=config)


@contextmanager
def making_bank(path: Path, embedder: str, dim: int) -> Iterator[LanceBank]:
    """A new bank to fill, which is at `path` when the block ends well, and nowhere when it fails or is killed.

    Nobody else can write there meanwhile. Raises `BadInput` when there is a bank already, or one is being made.
    """
    if path.exists():
        check_folder(path)
    lock = WriterLock(path)
    half = path / HALF
    try:
        if is_bank(path):
            raise BadInput(
                f"{path}: another process has just made this memory bank; run the same command again"
            )
        _refuse_lost_table(path)
        with disk_errors(path, option="bank"):
            shutil.rmtree(path / TABLE_FOLDER, ignore_errors=True)
            shutil.rmtree(half, ignore_errors=True)
            try:
                with LanceBank(half, embedder=embedder, dim=dim, compact_every=10**9) as bank:
                    yield bank
                os.rename(half / SUMS, path / SUMS)
                os.rename(half / TABLE_FOLDER, path / TABLE_FOLDER)
                os.rename(half / INFO, path / INFO)
            finally:
                shutil.rmtree(half, ignore_errors=True)
    finally:
        lock.release(abandon=not is_bank(path))


def connect(path: Path) -> Any:
    """LanceDB's database in a bank's folder, without its warnings about empty parts of an index.

    What the user has set for them stays.
    """
    os.environ.setdefault("LANCEDB_LOG", "error")
    os.environ.setdefault("LANCE_LOG", "error")
    import lancedb

    return lancedb.connect(str(path))


def _open_table(path: Path) -> tuple[Any, Any]:
    if not (path / TABLE_FOLDER).is_dir():
        raise BadInput(
            f"{path}: {INFO} is there, and its memories ({TABLE_FOLDER}) are missing; copy them back from where you "
            "keep copies, or import the last export into a new bank"
        )
    database = connect(path)
    return database, database.open_table(TABLE)


def _refuse_lost_table(path: Path) -> None:
    """Raise `BadInput` when there is a table that holds something, and no `bank.json`."""
    folder = path / TABLE_FOLDER
    if not folder.exists():
        return
    if not any((folder / "data").glob("*")):
        return  # no row was ever written
    try:
        rows = connect(path).open_table(TABLE).search().select(["row"]).to_arrow()["row"].to_pylist()
    except (RuntimeError, OSError, ValueError, KeyError):
        raise lost_info(path, None) from None
    if rows not in ([], [f"meta/{OWN_NOTE}"]):
        raise lost_info(path, len(rows))
