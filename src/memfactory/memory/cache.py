"""Embeddings that stay on disk, by text: a SQLite file that several processes may share."""

from __future__ import annotations

import hashlib
import sqlite3
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy

from memfactory.core.errors import BadInput, DiskError

_AT_ONCE = 500


def text_key(text: str) -> str:
    """What a text is known by in the caches."""
    return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16).hexdigest()


class DiskCache:
    """The vectors of one embedder in a file. Raises `BadInput` for a file that is no such cache."""

    def __init__(self, path: str, embedder: str, dim: int) -> None:
        self._path, self._embedder, self._dim = path, embedder, dim
        file = Path(path).expanduser()
        try:
            file.parent.mkdir(parents=True, exist_ok=True)
            # Used by one thread at a time (the embedder's lock), though not always the same one.
            self._database = sqlite3.connect(file, timeout=60, check_same_thread=False, isolation_level=None)
            self._database.execute("PRAGMA journal_mode=WAL")
            self._database.execute("PRAGMA synchronous=NORMAL")
            self._database.execute(
                "CREATE TABLE IF NOT EXISTS embeddings (embedder TEXT, text TEXT, vector BLOB, "
                "PRIMARY KEY (embedder, text)) WITHOUT ROWID"
            )
        except (sqlite3.Error, OSError) as error:
            raise BadInput(
                f"{path}: cannot be used as an embedding cache ({error}); name another file or delete it"
            ) from error

    def read(self, texts: Sequence[str]) -> dict[str, numpy.ndarray]:
        """The vectors of those texts that are there."""
        by_key = {text_key(text): text for text in texts}
        keys = list(by_key)
        found: dict[str, numpy.ndarray] = {}
        try:
            for start in range(0, len(keys), _AT_ONCE):
                part = keys[start : start + _AT_ONCE]
                marks = ", ".join("?" * len(part))
                query = f"SELECT text, vector FROM embeddings WHERE embedder = ? AND text IN ({marks})"
                for key, blob in self._database.execute(query, (self._embedder, *part)):
                    vector = numpy.frombuffer(blob, "<f4").astype(numpy.float32)
                    if vector.shape == (self._dim,):
                        found[by_key[key]] = vector
        except sqlite3.Error as error:
            raise DiskError(
                f"{self._path}: the embedding cache cannot be read ({error}); delete it"
            ) from error
        return found

    def write(self, vectors: Mapping[str, numpy.ndarray]) -> None:
        """Keep vectors; the ones that are there stay."""
        rows = [(self._embedder, text_key(text), v.astype("<f4").tobytes()) for text, v in vectors.items()]
        try:
            self._database.execute("BEGIN IMMEDIATE")
            self._database.executemany("INSERT OR IGNORE INTO embeddings VALUES (?, ?, ?)", rows)
            self._database.execute("COMMIT")
        except sqlite3.Error as error:
            raise DiskError(
                f"{self._path}: the embedding cache cannot be written ({error}); free some space or name "
                "another file"
            ) from error
