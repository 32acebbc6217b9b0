"""What is in a bank, counted."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from dataclasses import astuple, dataclass, replace

from memfactory.memory.lance import VERSION, LanceBank
from memfactory.memory.layered import LayeredBank


@dataclass(frozen=True)
class BankStats:
    """`facts` are single lines (name, value); `types`, `tags` and `sessions` count memories, most frequent first."""

    facts: tuple[tuple[str, str], ...]
    types: tuple[tuple[str, int], ...]
    tags: tuple[tuple[str, int], ...]
    sessions: tuple[tuple[str, int], ...]


def bank_stats(bank: LanceBank, *, most: int = 10) -> BankStats:
    """Count what is in a bank; of tags and sessions the `most` frequent."""
    types: Counter[str] = Counter()
    tags: Counter[str] = Counter()
    sessions: Counter[str] = Counter()
    texts: set[int] = set()
    characters = updated = 0
    for item in bank.items(embeddings=False):
        types[item.type or "(none)"] += 1
        tags.update(item.tags)
        sessions[item.created_session or "(none)"] += 1
        texts.add(hash(item.text))
        characters += len(item.text)
        updated += (item.updated_session, item.updated_time) != (item.created_session, item.created_time)
    count = len(bank)
    size = sum(file.stat().st_size for file in bank.path.rglob("*") if file.is_file())
    facts = (
        ("memories", str(count)),
        ("updated later", str(updated)),
        ("of the same text as another", str(count - len(texts))),
        ("mean length", f"{characters / count:.0f} characters" if count else "-"),
        ("embedder", f"{bank.embedder} (dimension {bank.dim})"),
        ("vector index", "yes" if bank.indexed else "no, searches are exact"),
        ("notes", ", ".join(f"{key}={value}" for key, value in sorted(bank.meta.items())) or "-"),
        ("layout version", str(VERSION)),
        ("size on disk", f"{size / 2**20:.1f} MiB"),
    )
    return BankStats(
        facts,
        tuple(types.most_common()),
        tuple(tags.most_common(most)),
        tuple(sessions.most_common(most)),
    )


def bank_digest(bank: LayeredBank) -> str:
    """16 hex digits that change with any memory of a bank, and with the embedder; the vectors follow from both."""
    total = hashlib.blake2b(f"{bank.embedder}\x1f{bank.dim}\n".encode(), digest_size=8)
    for item in bank.items(embeddings=False):
        total.update(json.dumps(astuple(replace(item, embedding=None))).encode() + b"\n")
    return total.hexdigest()
