"""Finished rollouts are used again only if no code that decides what they come to was changed."""

from __future__ import annotations

from pathlib import Path

import pytest

import memfactory
from memfactory.commands.code_hash import deciding_files, hash_of

ALONE = ("commands/graph.py", "recipe/build.py", "evaluation/predictions.py", "evaluation/runner.py")


def test_what_counts_of_the_program() -> None:
    root = Path(memfactory.__file__).parent
    found = {str(file.relative_to(root)) for file in deciding_files(root)}
    assert set(ALONE) <= found
    assert {
        "agents/rmm.py",
        "core/chat.py",
        "core/seeding.py",
        "data/dialogue.py",
        "rewards/rubric.py",
    } <= found
    assert not {"cli/main.py", "data/readers/msc.py", "reports/charts.py", "training/trainer.py"} & found


@pytest.fixture
def program(tmp_path: Path) -> Path:
    """A program whose agent imports one file at its top, another in a function, and through it a third."""
    files = {
        "agents/reader.py": (
            "from memfactory.data.dialogue import Turn\n\n\ndef read():\n    from memfactory.data import words\n"
        ),
        "data/__init__.py": "",
        "data/dialogue.py": "class Turn: ...\n",
        "data/words.py": "import memfactory.core.text\n",
        "core/text.py": "",
        "data/other.py": "from memfactory.agents import reader\n",
        **dict.fromkeys(ALONE, "from memfactory.data import other\n"),
    }
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    return tmp_path


@pytest.mark.parametrize(
    ("name", "decides"),
    [
        ("agents/reader.py", True),
        ("data/__init__.py", True),
        ("data/dialogue.py", True),
        ("data/words.py", True),
        ("core/text.py", True),
        ("recipe/build.py", True),
        ("data/other.py", False),
    ],
)
def test_an_edit_changes_the_hash_if_it_decides(program: Path, name: str, decides: bool) -> None:
    before = hash_of(program)
    assert hash_of(program) == before
    (program / name).write_text((program / name).read_text() + "# edited\n")
    assert (hash_of(program) != before) == decides
