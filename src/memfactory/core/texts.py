"""Texts for people: what is too long to be read whole."""

from __future__ import annotations


def cut(text: str, longest: int) -> str:
    """The text, or its first and last `longest / 2` characters with a note of how many are missing between them."""
    if len(text) <= longest:
        return text
    half = longest // 2
    tail = text[len(text) - half :]
    return f"{text[:half]}\n[… {len(text) - 2 * half:,} characters left out …]\n{tail}"
