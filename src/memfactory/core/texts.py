"""Texts as they are kept and shown: one form of Unicode, and what is too long to be read whole."""

from __future__ import annotations

import re
import unicodedata

#: What terminals take for a command: colours and cursors, titles and links, and other sequences that ESC begins.
_COMMANDS = re.compile(
    r"(?:\x1b\[|\x9b)[0-?]*[ -/]*[@-~]|\x1b[\]PX^_][^\x07\x1b\x9c\n]{0,500}(?:\x07|\x1b\\|\x9c)|\x1b[ -/]*[0-~]"
)
_UNKNOWN = "\N{REPLACEMENT CHARACTER}"
#: Unicode's classes of characters that turn the direction of writing.
_TURNING = ("LRE", "RLE", "LRO", "RLO", "PDF", "LRI", "RLI", "FSI", "PDI")


def nfc(text: str) -> str:
    """The text in Unicode's composed form (NFC), in which a letter and its accent are one character.

    Keyboards, files and models write `é` in one character or in two; here they become the same text. Never raises:
    broken surrogates stay as they are. Source: Unicode Standard Annex 15.
    """
    return text if unicodedata.is_normalized("NFC", text) else unicodedata.normalize("NFC", text)


def forms(text: str) -> tuple[str, ...]:
    """The forms in which a text may have been kept: composed, as it is, decomposed; each once."""
    if text.isascii():
        return (text,)
    return tuple(dict.fromkeys((nfc(text), text, unicodedata.normalize("NFD", text))))


def one_line(text: str) -> str:
    """A text as it can be kept, shown and compared: one line in composed form, words apart by one space.

    Commands to a terminal and other control characters are taken out, broken surrogates become question marks.
    """
    if not text.isprintable():
        text = _COMMANDS.sub("", text.encode("utf-8", "replace").decode("utf-8"))
        text = "".join(" " if unicodedata.category(c) == "Cc" else c for c in text)
    return nfc(" ".join(text.split()))


def plain(text: str) -> str:
    """The text as a terminal may be given it: lines and tabs stay, commands to the terminal are taken out.

    Whatever else could move its cursor or turn its writing around (other control characters, directions of writing,
    halves of characters) becomes U+FFFD, as does a carriage return that ends no line.
    """
    if text.isascii() and text.isprintable():
        return text
    text = _COMMANDS.sub("", text.replace("\r\n", "\n"))
    return "".join(_UNKNOWN if acts_on_a_terminal(c) else c for c in text)


def acts_on_a_terminal(character: str) -> bool:
    """Whether a character does something instead of being seen; lines and tabs do no harm."""
    category = unicodedata.category(character)
    return (category in ("Cc", "Cs") and character not in "\n\t") or (
        unicodedata.bidirectional(character) in _TURNING
    )


def cut(text: str, longest: int) -> str:
    """The text, or its first and last `longest / 2` characters with a note of how many are missing between them."""
    if len(text) <= longest:
        return text
    half = longest // 2
    tail = text[len(text) - half :]
    return f"{text[:half]}\n[… {len(text) - 2 * half:,} characters left out …]\n{tail}"
