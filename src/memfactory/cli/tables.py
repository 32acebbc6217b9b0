"""Memories as tables for the terminal."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from rich.table import Table
from rich.text import Text

if TYPE_CHECKING:
    from memfactory.memory.item import MemoryItem
    from memfactory.memory.report import BankStats


def items_table(items: Iterable[MemoryItem]) -> Table:
    """One memory a row."""
    table = Table("id", "type", "key", "memory", "session", "sources", title=None)
    for item in items:
        session = item.created_session
        if item.updated_session != session:
            session += f" → {item.updated_session}"
        cells = (item.id, item.type, item.key, item.text, session, " ".join(item.sources))
        table.add_row(*map(Text, cells))  # as text: a memory's brackets are no markup
    return table


def item_table(item: MemoryItem) -> Table:
    """All that one memory holds."""
    embedding = "none" if item.embedding is None else f"dimension {len(item.embedding)}"
    return _pairs(
        [
            ("id", item.id),
            ("text", item.text),
            ("key", item.key),
            ("type", item.type),
            ("tags", ", ".join(item.tags)),
            ("created", f"{item.created_session} {item.created_time}".strip()),
            ("updated", f"{item.updated_session} {item.updated_time}".strip()),
            ("sources", " ".join(item.sources)),
            ("embedding", embedding),
        ]
    )


def stats_tables(stats: BankStats) -> list[Table]:
    """A bank's counts; a table for each kind of count that there is."""
    tables = [_pairs(stats.facts)]
    for name, counts in (("type", stats.types), ("tag", stats.tags), ("session", stats.sessions)):
        if counts:
            tables.append(_pairs([(value, str(count)) for value, count in counts], (name, "memories")))
    return tables


def _pairs(rows: Sequence[tuple[str, str]], titles: tuple[str, str] | None = None) -> Table:
    table = Table(*(titles or ("", "")), show_header=titles is not None)
    for name, value in rows:
        table.add_row(Text(name), Text(value))
    return table
