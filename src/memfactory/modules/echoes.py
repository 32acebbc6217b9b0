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
    """A text without those tags around it, however often, closed or not, and without lines that are nothing else.

    A text without such tags is left as it is. Tags in the middle of a line are words like any other.
    """
    if not tags:
        return text
    names = "|".join(sorted(map(re.escape, tags), key=len, reverse=True))
    tag = re.compile(rf"[<\[]/?\s?(?:{names})(?:\s[^<>\[\]]{{0,200}})?/?[>\]]", re.IGNORECASE)
    found = list(tag.finditer(text))
    if not found:
        return text
    begin, end = 0, len(text)
    for match in found:
        if text[begin : match.start()].strip():
            break
        begin = match.end()
    for match in reversed(found):
        if match.start() < begin or text[match.end() : end].strip():
            break
        end = match.start()
    lines = text[begin:end].split("\n")
    return "\n".join(line for line in lines if not line.strip() or tag.sub("", line).strip()).strip()
