"""A hash of a model folder: two folders with the same one hold the same model."""

from __future__ import annotations

import hashlib
from pathlib import Path

_SUFFIXES = {".safetensors", ".bin", ".json", ".jinja", ".model", ".txt", ".py"}


def model_fingerprint(folder: Path) -> str:
    """16 hex digits over the names and contents of the folder's weights, configuration and tokenizer files.

    Reads all of it, which costs about as much as loading the weights does afterwards without.
    """
    total = hashlib.blake2b(digest_size=8)
    for path in sorted(folder.iterdir()):
        if path.suffix in _SUFFIXES and path.is_file():
            with path.open("rb") as file:
                content = hashlib.file_digest(file, "blake2b").hexdigest()
            total.update(f"{path.name}\x1f{content}\n".encode())
    return total.hexdigest()
