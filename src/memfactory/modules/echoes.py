"""Tags that a prompt puts around what it shows, where a model says them again in its reply.

A memory that kept them would be shown inside the same tags again, and be repeated with two of each, and so on.
"""

from __future__ import annotations

import re

_TAG = re.compile(r"[<\[](/?)([A-Za-z][\w.-]*)(?:\s[^<>\[\]]*)?[>\]]")


def tags_of(*templates: str) -> frozenset[str]:
    """Names of the tags that prompts open and close, in lower case.

    `<memory>` and `</memory>`, or `[memory]` and `[/memory]`, are `memory`.
    """
    opened: set[str] = set()
    closed: set[str] = set()
    for template in templates:
        for tag in _TAG.finditer(template):
            (closed if tag[1] else opened).add(tag[2].lower())
    return frozenset(opened & closed)


def without_echo(text: str, tags: frozenset[str]) -> str:
    """A text without those tags around it or around one of its lines, however often, closed or not.

    Lines that are nothing else go, and two tags with nothing between them part two lines. A text without such tags is
    left as it is. One tag in the middle of a line is a word like any other.
    """
    if not tags:
        return text
    names = "|".join(sorted(map(re.escape, tags), key=len, reverse=True))
    tag = re.compile(rf"[<\[]/?\s?(?:{names})(?:\s[^<>\[\]]{{0,200}})?/?[>\]]", re.IGNORECASE)
    if not tag.search(text):
        return text
    # Where a copy ends and the next begins on one line.
    joint = re.compile(rf"{tag.pattern}(?:\s*{tag.pattern})+", re.IGNORECASE)
    lines = joint.sub("\n", text).split("\n")
    bare = [_bare(line, tag) for line in lines]
    return "\n".join(b for line, b in zip(lines, bare, strict=True) if b.strip() or not line.strip()).strip()


def _bare(line: str, tag: re.Pattern[str]) -> str:
    """A line without tags at its beginning and its end."""
    found = list(tag.finditer(line))
    begin, end = 0, len(line)
    for match in found:
        if line[begin : match.start()].strip():
            break
        begin = match.end()
    for match in reversed(found):
        if match.start() < begin or line[match.end() : end].strip():
            break
        end = match.start()
    return line if (begin, end) == (0, len(line)) else line[begin:end].strip()
