"""Differences between two texts, word by word, for the terminal (the page has its own in JavaScript)."""

from __future__ import annotations

import re
from difflib import SequenceMatcher
from typing import Literal

Segment = tuple[Literal["same", "del", "ins"], str]
_MOST_WORDS = 4000


def difference(before: str, after: str) -> list[Segment]:
    """Segments: "same" and "del" make the old text, "same" and "ins" the new one.

    Texts of many thousand words are compared line by line, so that a key press never waits.
    """
    pattern = r"\s+|\w+|[^\w\s]"
    old, new = re.findall(pattern, before), re.findall(pattern, after)
    if len(old) + len(new) > _MOST_WORDS:
        old, new = before.splitlines(keepends=True), after.splitlines(keepends=True)
    segments: list[Segment] = []
    for _, i, k, j, m in SequenceMatcher(None, old, new, autojunk=False).get_opcodes():
        if old[i:k] == new[j:m]:
            segments.append(("same", "".join(old[i:k])))
            continue
        if i < k:
            segments.append(("del", "".join(old[i:k])))
        if j < m:
            segments.append(("ins", "".join(new[j:m])))
    return segments
