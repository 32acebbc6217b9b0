"""Memories as JSON Lines: out of a bank, and into one, whole or not at all.

The first line says what the file is and which embedder its vectors come from; every other line is a memory.
Only `text` is required of a line, and the first line may be missing: then memories are embedded anew.
"""

from __future__ import annotations

import base64
import hashlib
import json
import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from itertools import islice
from pathlib import Path
from typing import Any

import numpy

from memfactory.core.errors import BadInput, did_you_mean
from memfactory.core.files import check_new_file, new_file
from memfactory.core.partials import remove_partials_of
from memfactory.core.texts import nfc
from memfactory.data.fields import kind_of, require_text
from memfactory.data.files import Records, open_records
from memfactory.data.parsing import Record
from memfactory.memory.batching import BatchingEmbedder
from memfactory.memory.item import MemoryItem
from memfactory.memory.lance import LanceBank, is_bank, making_bank
from memfactory.memory.layered import LayeredBank
from memfactory.memory.vectors import unit

FORMAT, VERSION = "memfactory-memories", 1
_LISTS = ("tags", "sources")
_FIELDS = tuple(field.name for field in fields(MemoryItem) if field.name != "number")
_TIMES = ("created_session", "created_time", "updated_session", "updated_time")
_AT_ONCE = 5_000
_LONGEST_ID, _LARGEST_DIM = 200, 65_536


@dataclass(frozen=True)
class Header:
    """The first line: whose vectors the file holds (None: nobody's) and the bank's notes."""

    embedder: str | None = None
    dim: int = 0
    meta: tuple[tuple[str, str], ...] = ()
    lines: int = 0  # that it takes: 1, or 0 when the file has none
    check: str = ""  # of all memories; empty in files of before


def export_bank(bank: LayeredBank, path: str, *, embeddings: bool = True, replace: bool = False) -> int:
    """Write a bank's memories, in the order of adding; returns how many. The file appears when it is complete.

    Raises `AlreadyThereError` for a file that is there, unless it is to be replaced.
    """
    target = Path(path).expanduser()
    check_new_file(target, force=replace)
    if isinstance(bank, LanceBank) and target.resolve().is_relative_to(bank.path.resolve()):
        raise BadInput(f"{path}: is in the bank's own folder; choose another --output")
    header: dict[str, Any] = {"format": FORMAT, "version": VERSION, "meta": dict(bank.meta)}
    header |= {"embedder": bank.embedder, "dim": bank.dim} if embeddings else {"embedder": None}
    count, total = 0, _Check()
    remove_partials_of(target)
    with new_file(target, replace=replace, option="--output") as file:
        file.write(_line({**header, "check": total.text}))
        for item in bank.items(embeddings=embeddings):
            record = _as_record(item, embeddings)
            total.add(record)
            file.write(_line(record))
            count += 1
        file.seek(0)
        file.write(_line({**header, "check": total.text}))  # as long as the one before
    return count


class _Check:
    """A checksum of memories in their order, whatever the spelling of their JSON."""

    def __init__(self) -> None:
        self._total = hashlib.blake2b(digest_size=8)

    def add(self, record: Mapping[str, Any]) -> None:
        self._total.update(json.dumps(record, sort_keys=True).encode() + b"\n")

    @property
    def text(self) -> str:
        """16 hex digits."""
        return self._total.hexdigest()


def _line(value: Mapping[str, Any]) -> bytes:
    return (json.dumps(value, ensure_ascii=False) + "\n").encode(errors="backslashreplace")


def import_bank(
    source: str, path: str, *, embedder: BatchingEmbedder | None = None, renumber: bool = False
) -> int:
    """Add a file's memories to the bank at `path`, which is made if there is none; returns how many.

    `embedder` embeds all texts anew; left out, the file's vectors are kept. `renumber` gives new ids.
    Every line is checked first. Raises `BadInput` naming the line, and leaves the bank as it was.
    """
    records = open_records(source)
    header = read_header(records)
    if embedder is None and header.embedder is None:
        raise BadInput(f"{source}: holds no embeddings; name an embedder to make them (--embedder minilm)")
    check_lines(records, header)
    name, dim = (embedder.name, embedder.dim) if embedder else (header.embedder or "", header.dim)
    items = _items(records, header, embedder, renumber)
    if is_bank(path):
        with LanceBank(path, embedder=name, dim=dim) as bank, bank.transaction():
            return _insert(bank, items, renumber)
    with making_bank(Path(path).expanduser(), name, dim) as bank:
        count = 0
        while page := list(islice(items, _AT_ONCE)):
            with bank.transaction():
                count += _insert(bank, page, renumber)
        with bank.transaction():
            for key, value in header.meta:
                bank.set_meta(key, value)
        bank.optimize()
    return count


def read_header(records: Records) -> Header:
    """The first line, if it is a header. Raises `BadInput` for one of another format or a newer version."""
    record, where = records[0], records.where(0)
    if "format" not in record:
        return Header()
    if record["format"] != FORMAT:
        raise BadInput(f"{where}: format '{record['format']}' is not '{FORMAT}'")
    if not isinstance(version := record.get("version"), int) or version > VERSION:
        raise BadInput(
            f"{where}: version {version} of this format; this memfactory reads up to {VERSION}; "
            "install a newer memfactory"
        )
    embedder, dim, meta = record.get("embedder"), record.get("dim", 0), record.get("meta", {})
    if not (embedder is None or isinstance(embedder, str)) or not isinstance(dim, int):
        raise BadInput(f"{where}: fields 'embedder' and 'dim' must be a name and a number")
    if embedder is not None and not (0 < dim <= _LARGEST_DIM and not isinstance(dim, bool)):
        raise BadInput(f"{where}: field 'dim' must be a number from 1 to {_LARGEST_DIM}")
    if not isinstance(meta, dict) or not all(isinstance(value, str) for value in meta.values()):
        raise BadInput(f"{where}: field 'meta' must be an object of strings")
    if own := next((key for key in meta if key.startswith("memfactory:")), None):
        raise BadInput(
            f"{where}: field 'meta' holds '{own[:40]}', a note that a bank makes itself; take it out"
        )
    if not isinstance(check := record.get("check", ""), str):
        raise BadInput(f"{where}: field 'check' must be a string")
    return Header(embedder, dim, tuple(meta.items()), 1, check)


def check_lines(records: Records, header: Header) -> None:
    """Raise `BadInput` for a line that is no memory, an id used twice, or a checksum that is not the header's."""
    seen: dict[str, int] = {}
    total = _Check()
    for index in range(header.lines, len(records)):
        item = parse_item(records[index], records.where(index), header.dim if header.embedder else None)
        first = seen.setdefault(item.id, index) if item.id else index
        if first != index:
            raise BadInput(
                f"{records.where(index)}: id '{item.id}' was used before, at {records.where(first)}"
            )
        total.add(records[index])
    if header.check and header.check != total.text:
        raise BadInput(
            f"{records.where(0)}: the memories are not those that were exported (their checksum is another), the file "
            "is damaged or cut off; if it was changed on purpose, take 'check' out of its first line"
        )


def parse_item(record: Record, where: str, dim: int | None) -> MemoryItem:
    """A line as an item; its embedding is read when `dim` is given. Raises `BadInput` naming place and field."""
    values: dict[str, Any] = {"id": "", "text": require_text(record, "text", where)}
    for name, value in record.items():
        if name not in _FIELDS:
            raise BadInput(f"{where}: unknown field '{name}'{did_you_mean(name, _FIELDS)}")
        if name in _LISTS:
            if not isinstance(value, list) or not all(isinstance(part, str) for part in value):
                raise BadInput(f"{where}: field '{name}' must be a list of strings")
            values[name] = tuple(value)
        elif name == "embedding":
            values[name] = _vector(value, where, dim) if dim is not None and value is not None else None
        elif not isinstance(value, str):
            raise BadInput(f"{where}: field '{name}' must be a string, not {kind_of(value)}")
        else:
            values[name] = value
    for name in ("text", "id", "key", "type", *_TIMES):
        values[name] = nfc(values.get(name, ""))
    for name in _LISTS:
        values[name] = tuple(nfc(part) for part in values.get(name, ()))
    if (item_id := values["id"]) and (len(item_id) > _LONGEST_ID or item_id != _plain(item_id)):
        raise BadInput(
            f"{where}: field 'id' must be one line of at most {_LONGEST_ID} characters without control characters or "
            "spaces around it; leave it out for a new one"
        )
    return MemoryItem(**values)


def _plain(item_id: str) -> str:
    return "".join(part for part in item_id if unicodedata.category(part) not in ("Cc", "Zl", "Zp")).strip()


def _vector(value: Any, where: str, dim: int) -> numpy.ndarray:
    """A base64 string of little-endian float32, or a list of numbers."""
    try:
        if isinstance(value, str):
            vector = numpy.frombuffer(base64.b64decode(value, validate=True), "<f4")
        else:
            vector = numpy.array(value, numpy.float32)
        return unit(vector, dim)
    except (ValueError, TypeError, OverflowError) as error:
        raise BadInput(f"{where}: field 'embedding' cannot be used: {error}") from None


def _as_record(item: MemoryItem, embeddings: bool) -> dict[str, Any]:
    record = {name: getattr(item, name) for name in _FIELDS if name != "embedding"}
    record = {name: value for name, value in record.items() if value or name in ("id", "text")}
    if embeddings and item.embedding is not None:
        record["embedding"] = base64.b64encode(item.embedding.astype("<f4").tobytes()).decode()
    return record


def _items(
    records: Records, header: Header, embedder: BatchingEmbedder | None, renumber: bool
) -> Iterator[tuple[str, MemoryItem]]:
    """(place, item) of every line, embedded anew if there is an embedder."""
    dim = header.dim if embedder is None else None
    for start in range(header.lines, len(records), _AT_ONCE):
        lines = range(start, min(start + _AT_ONCE, len(records)))
        items = [parse_item(records[index], records.where(index), dim) for index in lines]
        if embedder is not None:
            vectors = embedder.embed_now([item.text for item in items])
            items = [replace(item, embedding=v) for item, v in zip(items, vectors, strict=True)]
        for index, item in zip(lines, items, strict=True):
            yield records.where(index), replace(item, id="") if renumber else item


def _insert(bank: LanceBank, items: Sequence[Any] | Iterator[Any], renumber: bool) -> int:
    count = 0
    for where, item in items:
        try:
            bank.insert(item)
        except ValueError as error:
            hint = "" if renumber else "; --renumber gives new ids"
            raise BadInput(f"{where}: {error}{hint}") from None
        count += 1
    return count
