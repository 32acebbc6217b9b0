"""Where the public sample data are, for the tests that read them."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest


@pytest.fixture
def sample_data() -> Path:
    """The folder of public samples: `MEMFACTORY_SAMPLE_DATA`, or `../shared/data` beside the checkout."""
    named = os.environ.get("MEMFACTORY_SAMPLE_DATA")
    folder = Path(named) if named else Path(__file__).resolve().parents[4] / "shared" / "data"
    if not folder.is_dir():
        pytest.skip("no sample data: set MEMFACTORY_SAMPLE_DATA, or put them into ../shared/data")
    return folder


@pytest.fixture
def write(tmp_path: Path) -> Callable[..., str]:
    """Write a file: strings and bytes as they are, a list as JSON Lines; returns its path."""

    def to_file(content: str | bytes | list[Any], name: str = "data.jsonl") -> str:
        path = tmp_path / name
        if isinstance(content, list):
            content = "".join(json.dumps(record) + "\n" for record in content)
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        return str(path)

    return to_file


def hotpot(number: int, distractors: int = 4) -> dict[str, Any]:
    """A small HotpotQA record with two gold paragraphs, at places 1 and 3, and distractors of its own."""
    context = [[f"Other {number}.{i}", [f"Nothing {i}.", " At all."]] for i in range(distractors)]
    context.insert(1, [f"Gold {number}.0", ["First half."]])
    context.insert(3, [f"Gold {number}.1", ["Second half."]])
    return {
        "_id": f"q{number}",
        "question": f"What is {number}?",
        "answer": f"answer {number}",
        "supporting_facts": [[f"Gold {number}.0", 0], [f"Gold {number}.1", 0], [f"Gold {number}.1", 1]],
        "context": context,
        "type": "bridge",
        "level": "easy",
    }


@pytest.fixture
def hotpot_file(write: Callable[..., str]) -> str:
    """Ten small HotpotQA records as one JSON array."""
    return write(json.dumps([hotpot(number) for number in range(10)]), "hotpot.json")
