"""What the program writes to a terminal. Texts of models, memories, files and servers are shown, never carried out."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from rich.console import Console, ConsoleOptions
from rich.segment import Segment
from rich.text import Text

from memfactory.core.texts import plain


class Terminal(Console):
    """A console that takes brackets and colons for what they are, and gives the terminal no command but its own.

    Whatever is printed passes here as segments, tables and bars too. Only rich's own control segments move the cursor.
    """

    def __init__(self, **options: Any) -> None:
        super().__init__(**{"markup": False, "emoji": False, **options})

    def render_str(self, text: str, **options: Any) -> Text:
        """A string as rich's text. Here commands are still whole, which a highlighter may cut in pieces."""
        return super().render_str(plain(text), **options)

    def render(self, renderable: Any, options: ConsoleOptions | None = None) -> Iterator[Segment]:
        """The segments of whatever is printed, their texts `plain`."""
        for segment in super().render(renderable, options):
            yield segment if segment.control else Segment(plain(segment.text), segment.style)
