"""Memories as lines for the terminal."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from rich.console import Console

from memfactory.core.texts import plain
from memfactory.inference.keeper import Taken
from memfactory.memory.item import MemoryItem


def say(console: Console, text: str) -> None:
    """Print a line as it is: brackets are no markup, numbers are not coloured, nothing is cut."""
    console.print(plain(text), highlight=False, markup=False, soft_wrap=True)


def memory_line(item_id: str, time: str, text: str) -> str:
    """`[m3] (3 May 2023) text`."""
    return f"[{item_id}] " + (f"({time}) " if time else "") + text


def item_line(item: MemoryItem) -> str:
    """A memory on one line."""
    return memory_line(item.id, item.updated_time, item.text)


def say_going_on(console: Console, parts: Mapping[str, Path]) -> None:
    """Name the parts of an agent that go on from what they learned beside this bank: it wins over the recipe."""
    for name, folder in parts.items():
        say(
            console,
            f"The {name} goes on from what it learned here; without {folder} it begins as the recipe says.",
        )


def counted(count: int, one: str, many: str | None = None) -> str:
    """`1 memory`, `2 memories`."""
    return f"{count} {one if count == 1 else many or one + 's'}"


def not_understood(taken: Taken) -> str:
    """Why a session is not in the bank: what was wrong with the replies."""
    return f"not understood: {'; '.join(taken.remembered.unread[:3])}"
