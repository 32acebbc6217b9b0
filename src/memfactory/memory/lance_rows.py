"""How a bank's items lie in a LanceDB table, and one version of such a table as the base of a bank."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cached_property
from typing import Any

import numpy

from memfactory.core.errors import DiskError, UserError
from memfactory.memory.bank_folder import BankInfo
from memfactory.memory.item import Hit, MemoryItem, own_number
from memfactory.memory.vectors import SLACK, exact_scores

TABLE = "items"
#: Of a row: a memory, a deleted one (its number stays taken), or a note of the bank.
ITEM, GONE, META = "item", "gone", "meta"
#: The note that says what `bank.json` says, so that this can be made anew.
OWN_NOTE = "memfactory:bank"
_TEXTS = (
    "id",
    "text",
    "key",
    "type",
    "created_session",
    "created_time",
    "updated_session",
    "updated_time",
)
#: Columns of a memory, without its vector.
PLAIN = (*_TEXTS, "tags", "sources", "number")
_PAGE = 10_000  # rows read at once
_MARGIN = 8  # rows asked for beyond the best k, so that ties at the end are seen

# How an index is searched; docs/memory_bank.md says what was measured.
PROBES, REFINE = 64, 4


def schema(dim: int) -> Any:
    """The table's columns. `row` is what rows are told apart by: `item/ID` or `meta/KEY`."""
    import pyarrow as pa

    return pa.schema(
        [pa.field("row", pa.string(), nullable=False), pa.field("state", pa.string(), nullable=False)]
        + [pa.field(name, pa.string()) for name in _TEXTS]
        + [pa.field(name, pa.list_(pa.string())) for name in ("tags", "sources")]
        + [pa.field("number", pa.int64(), nullable=False), pa.field("embedding", pa.list_(pa.float32(), dim))]
    )


def own_note(info: BankInfo) -> str:
    """The text of `OWN_NOTE`."""
    return json.dumps({"embedder": info.embedder, "dim": info.dim})


def read_own_note(text: str | None) -> BankInfo | None:
    """What the note says; None where there is none that can be read, as in banks from before it."""
    try:
        value = json.loads(text or "")
        return BankInfo(str(value["embedder"]), int(value["dim"]))
    except (ValueError, TypeError, KeyError):
        return None


def to_table(changes: Mapping[str, MemoryItem | None], meta: Mapping[str, str], number: int, dim: int) -> Any:
    """Changes of items (None: deleted) and of notes as rows; `number` is what rows without one get."""
    import pyarrow as pa

    items = [(item_id, item) for item_id, item in changes.items()]
    empty = ("", "", "", "", "", "", "")
    columns: dict[str, list[Any]] = {
        "row": [f"item/{item_id}" for item_id, _ in items] + [f"meta/{key}" for key in meta],
        "state": [GONE if item is None else ITEM for _, item in items] + [META] * len(meta),
        "number": [number if item is None else item.number for _, item in items] + [0] * len(meta),
    }
    rows = [
        (item_id, *(empty if item is None else (getattr(item, name) for name in _TEXTS[1:])))
        for item_id, item in items
    ] + [(key, value, *empty[1:]) for key, value in meta.items()]
    for place, name in enumerate(_TEXTS):
        columns[name] = [row[place] for row in rows]
    for name in ("tags", "sources"):
        lists = [() if item is None else getattr(item, name) for _, item in items]
        columns[name] = [list(values) for values in lists] + [[] for _ in meta]
    vectors = [None if item is None else item.embedding for _, item in items] + [None] * len(meta)
    filled = [numpy.zeros(dim, numpy.float32) if v is None else v for v in vectors]
    flat = numpy.concatenate(filled) if filled else numpy.empty(0, numpy.float32)
    wanted = schema(dim)
    arrays = {name: pa.array(values, wanted.field(name).type) for name, values in columns.items()}
    arrays["embedding"] = pa.FixedSizeListArray.from_arrays(
        pa.array(flat, pa.float32()), dim, mask=pa.array([v is None for v in vectors], pa.bool_())
    )
    return pa.table([arrays[name] for name in wanted.names], schema=wanted)


def to_items(table: Any) -> list[MemoryItem]:
    """Rows of state `item` as items, in the table's order."""
    vectors: Sequence[Any] = [None] * table.num_rows
    if "embedding" in table.column_names and table.num_rows:
        column = table["embedding"].combine_chunks()
        dim = column.type.list_size
        flat = column.values.slice(column.offset * dim, len(column) * dim)  # also under rows that are null
        rows = flat.to_numpy(zero_copy_only=False).reshape(-1, dim)
        rows.flags.writeable = False
        there = column.is_valid().to_pylist()
        vectors = [row if valid else None for row, valid in zip(rows, there, strict=True)]
    columns = [table[name].to_pylist() for name in PLAIN]
    items = []
    for values, vector in zip(zip(*columns, strict=True), vectors, strict=True):
        fields = dict(zip(PLAIN, values, strict=True))
        fields["tags"], fields["sources"] = tuple(fields["tags"] or ()), tuple(fields["sources"] or ())
        items.append(MemoryItem(**fields, embedding=vector))
    return items


@contextmanager
def lance_errors(path: str) -> Iterator[None]:
    """Turn what LanceDB raises about files into one line that names the bank."""
    try:
        yield
    except UserError:
        raise
    except BaseException as error:
        # Damaged files can also make the library panic, which is no `Exception` on this side.
        if (
            not isinstance(error, RuntimeError | OSError | ValueError)
            and type(error).__name__ != "PanicException"
        ):
            raise
        text = str(error)
        line = " ".join(text.split())[:200]
        if "No space left" in text or "os error 28" in text or "Disk quota" in text:
            raise DiskError(
                f"{path}: the disk is full; free some space and run the same command again"
            ) from error
        if "Permission denied" in text or "os error 13" in text:
            raise DiskError(f"{path}: no permission to read or write this memory bank") from error
        raise UserError(
            f"{path}: this memory bank's files cannot be read or written ({line}); if they are damaged, memfactory "
            f"bank repair {path} goes back to the newest state that is whole"
        ) from error


class Snapshot:
    """One version of a bank's table: the base of the bank that wrote it, of readers and of forks.

    The table is opened when it is first asked. `indexed` tells whether a vector index will be used.
    """

    def __init__(self, database: Any, version: int, path: str, last_number: int, indexed: bool) -> None:
        self._database = database
        self.version = version
        self.last_number = last_number
        self.indexed = indexed
        self._path = path

    @cached_property
    def table(self) -> Any:
        with lance_errors(self._path):
            table = self._database.open_table(TABLE)
            table.checkout(self.version)
            return table

    def get(self, item_id: str) -> MemoryItem | None:
        return self.fetch([item_id]).get(item_id)

    def fetch(self, ids: Sequence[str]) -> dict[str, MemoryItem]:
        """The items of those ids that are there."""
        found: dict[str, MemoryItem] = {}
        for start in range(0, len(ids), 500):
            quoted = ", ".join(_quoted(f"item/{item_id}") for item_id in ids[start : start + 500])
            found |= {item.id: item for item in self._read(f"row IN ({quoted})")}
        return found

    def items(self, *, embeddings: bool = True) -> Iterator[MemoryItem]:
        """Every item by number, page after page. Numbers may have gaps of any size."""
        with lance_errors(self._path):
            found = self.table.search().where(f"state = '{ITEM}'").select(["number"]).to_arrow()["number"]
        numbers = numpy.sort(found.to_numpy())
        for first in range(0, len(numbers), _PAGE):
            last = numbers[min(first + _PAGE, len(numbers)) - 1]
            page = self._read(f"number >= {numbers[first]} AND number <= {last}", embeddings)
            yield from sorted(page, key=lambda item: item.number)

    def with_text(self, text: str) -> list[MemoryItem]:
        return self._read(f"text = {_quoted(text)}")

    def nearest(self, query: numpy.ndarray, k: int, hidden: Collection[str]) -> list[Hit]:
        """Exact without an index: asks for more rows until nothing beyond them can be among the best `k`."""
        margin = 0 if self.indexed else _MARGIN
        limit = k + margin + sum(1 for item_id in hidden if self.may_hold(item_id))
        while True:
            with lance_errors(self._path):
                search = self.table.search(query, vector_column_name="embedding").distance_type("dot")
                if self.indexed:
                    search = search.nprobes(PROBES).refine_factor(REFINE)
                rows = search.limit(limit).select([*PLAIN, "embedding", "_distance"]).to_arrow()
            distances = rows["_distance"].to_pylist()
            hits = [hit for hit in exact_scores(to_items(rows), query) if hit.item.id not in hidden]
            if len(distances) < limit or (self.indexed and len(hits) >= k):
                return hits
            if len(hits) >= k:
                worst = sorted((hit.score for hit in hits), reverse=True)[k - 1]
                if 1.0 - distances[-1] < worst - 2 * SLACK:
                    return hits
            limit *= 4

    def may_hold(self, item_id: str) -> bool:
        """Whether an id may be here, told from its number alone."""
        number = own_number(item_id)
        return number is None or number <= self.last_number

    def _read(self, where: str, embeddings: bool = True) -> list[MemoryItem]:
        columns = [*PLAIN, "embedding"] if embeddings else list(PLAIN)
        with lance_errors(self._path):
            query = self.table.search().where(f"state = '{ITEM}' AND {where}")
            return to_items(query.select(columns).to_arrow())


def read_state(table: Any) -> tuple[int, int, dict[str, str], int]:
    """(items, last number, notes, deleted rows) of a table."""
    import pyarrow.compute as pc

    columns = table.search().select(["state", "number"]).to_arrow()
    counts = {entry["values"]: entry["counts"] for entry in pc.value_counts(columns["state"]).to_pylist()}
    last = pc.max(columns["number"]).as_py() or 0
    notes = table.search().where(f"state = '{META}'").select(["id", "text"]).to_arrow()
    meta = dict(zip(notes["id"].to_pylist(), notes["text"].to_pylist(), strict=True))
    return counts.get(ITEM, 0), last, meta, counts.get(GONE, 0)


def _quoted(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"
