"""Differences between two texts, word by word, for the terminal (the page has its own in JavaScript)."""

from __future__ import annotations

import re
from difflib import SequenceMatcher
from typing import Literal

Segment = tuple[Literal["same", "del", "ins"], str]
_MOST_WORDS = 4000


def difference(old_text: str, new_text: str) -> list[Segment]:
    """Segments: "same" and "del" make the old text, "same" and "ins" the new one.

    Texts of many thousand words are compared line by line, so that a key press never waits.
    """
    pattern = r"\s+|\w+|[^\w\s]"
    old, new = re.findall(pattern, old_text), re.findall(pattern, new_text)
    if len(old) + len(new) > _MOST_WORDS:
        old, new = old_text.splitlines(keepends=True), new_text.splitlines(keepends=True)
    opcodes = SequenceMatcher(None, old, new, autojunk=False).get_opcodes()
    segments: list[Segment] = []
    gone = fresh = ""
    for number, (kind, i, k, j, m) in enumerate(opcodes):
        before, after = "".join(old[i:k]), "".join(new[j:m])
        between = 0 < number < len(opcodes) - 1 and before.isspace()
        if kind == "equal" and not between:
            segments += _changed(gone, fresh)
            segments.append(("same", before))
            gone = fresh = ""
        else:  # spaces between two changed words are changed with them, so that a new sentence is one piece
            gone, fresh = gone + before, fresh + after
    return segments + _changed(gone, fresh)


def _changed(gone: str, fresh: str) -> list[Segment]:
    found: list[Segment] = [("del", gone), ("ins", fresh)]
    return [segment for segment in found if segment[1]]
