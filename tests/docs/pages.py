"""The project's pages, cut into what tests look at: fenced blocks, shell commands, links, tables."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
_FENCE = re.compile(
    r"^(?P<indent> *)(?P<fence>`{3,})(?P<language>[^\n`]*)\n(?P<text>.*?)^ *(?P=fence) *$",
    re.DOTALL | re.MULTILINE,
)
_LINK = re.compile(r"\]\((?P<target>[^)\s]+)\)")
_MARKED = re.compile(r"<!-- results:start -->.*?<!-- results:end -->", re.DOTALL)
NOT_YET = "Not generated yet"


@dataclass(frozen=True)
class Block:
    """One fenced block of a page."""

    page: Path
    line: int
    language: str
    text: str

    @property
    def where(self) -> str:
        """Page and line, for messages."""
        return f"{self.page.relative_to(ROOT)}:{self.line}"


def pages() -> list[Path]:
    """Every page a user or contributor reads."""
    return [
        ROOT / "README.md",
        ROOT / "CONTRIBUTING.md",
        ROOT / "CHANGELOG.md",
        *sorted((ROOT / "docs").rglob("*.md")),
    ]


def blocks(page: Path) -> list[Block]:
    """The fenced blocks of a page, in order."""
    text = page.read_text(encoding="utf-8")
    return [
        Block(
            page,
            text.count("\n", 0, match.start()) + 1,
            match["language"].strip(),
            textwrap.dedent(match["text"]) if match["indent"] else match["text"],
        )
        for match in _FENCE.finditer(text)
    ]


def commands(block: Block) -> Iterator[str]:
    """The commands of a shell block: continued lines joined, comments and empty lines left out."""
    for line in block.text.replace("\\\n", " ").splitlines():
        command = " ".join(re.sub(r"(^|\s)#.*", "", line).split())
        if command:
            yield command


def links(page: Path) -> list[str]:
    """Targets of a page's links to files; figures that are still to be generated do not count."""
    text = page.read_text(encoding="utf-8")
    text = _MARKED.sub(lambda match: "" if NOT_YET in match[0] else match[0], text)
    text = _FENCE.sub("", text)
    targets = [match["target"] for match in _LINK.finditer(text)]
    return [target for target in targets if not target.startswith(("http://", "https://", "#", "mailto:"))]
