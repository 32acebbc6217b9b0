"""Where the elements of a JSON array stand in a file, found without holding the file: for files larger than memory.

Strings and brackets alone are looked at. Whether an element is valid JSON shows when it is parsed.
"""

from __future__ import annotations

import re
from array import array
from collections.abc import Iterable
from typing import NoReturn

from memfactory.core.errors import BadInput

# Of a string: all up to its end, a control character (not allowed in JSON), or a backslash that ends the chunk.
_STRING = re.compile(rb'(?:[^"\\\x00-\x1f]++|\\.)*+', re.DOTALL)
# Whole strings and whatever is no bracket; between elements of the array itself, no comma either.
_INSIDE = re.compile(rb'(?:[^\[\]{}"]++|"[^"\\\x00-\x1f]*+(?:\\.[^"\\\x00-\x1f]*+)*+")*+', re.DOTALL)
_ELEMENT = re.compile(rb'(?:[^\[\]{}",]++|"[^"\\\x00-\x1f]*+(?:\\.[^"\\\x00-\x1f]*+)*+")*+', re.DOTALL)
_SPACE = re.compile(rb"[ \t\r\n]*+")
_CLOSES = {ord("]"): ord("["), ord("}"): ord("{")}
_QUOTE, _BACKSLASH, _COMMA, _END = b'"\\,]'


class ArrayPlaces:
    """The elements of an array: element i is at bytes `starts[i]` to `stops[i]` and begins on line `lines[i]`, from 1.

    The array is given in chunks of any size, beginning with its bracket (white space may come before).
    """

    def __init__(self, path: str, chunks: Iterable[bytes], offset: int = 0) -> None:
        """`offset` is the place in the file of the first chunk.

        Raises `BadInput`, naming file and line, where brackets, commas or quotes do not make an array.
        """
        self.path = path
        self.starts, self.stops, self.lines = array("q"), array("q"), array("q")
        self._open = bytearray()  # the brackets that are open, the array's own first
        self._begun = self._comma = self._ended = False
        self._in_string = self._escaped = False
        self._base, self._line, self._counted = offset, 1, 0
        for chunk in chunks:
            at = 0
            while at < len(chunk):
                at = self._step(chunk, at)
            self._line_at(chunk, len(chunk))
            self._base, self._counted = self._base + len(chunk), 0
        if not self._ended:
            self._fail("the array does not end; was the file cut off?")

    def __len__(self) -> int:
        return len(self.stops)

    def _step(self, chunk: bytes, at: int) -> int:
        """Take in the chunk from byte `at` to the next one that decides something; where to go on."""
        if self._in_string:
            return self._string(chunk, at)
        if not self._begun:
            return self._between(chunk, at)
        at = (_ELEMENT if len(self._open) == 1 else _INSIDE).match(chunk, at).end()  # type: ignore[union-attr]
        if at == len(chunk):
            return at
        byte = chunk[at]
        if byte == _QUOTE:
            self._in_string = True
        elif byte == _COMMA or (byte == _END and len(self._open) == 1):
            self.stops.append(self._base + at)
            self._begun, self._comma, self._ended = False, byte == _COMMA, byte == _END
        elif byte not in _CLOSES:
            self._open.append(byte)
        elif self._open.pop() != _CLOSES[byte]:
            self._fail(f"'{chr(byte)}' closes what another bracket opened", chunk, at)
        return at + 1

    def _string(self, chunk: bytes, at: int) -> int:
        if self._escaped:
            self._escaped = False
            return at + 1
        at = _STRING.match(chunk, at).end()  # type: ignore[union-attr]
        if at == len(chunk):
            return at
        if chunk[at] == _QUOTE:
            self._in_string = False
        elif chunk[at] == _BACKSLASH:
            self._escaped = True
        else:
            self._fail("a control character in a string, or a quote is missing", chunk, at)
        return at + 1

    def _between(self, chunk: bytes, at: int) -> int:
        """Before the array, between two elements, or after the array."""
        at = _SPACE.match(chunk, at).end()  # type: ignore[union-attr]
        if at == len(chunk):
            return at
        byte = chunk[at]
        if self._ended:
            self._fail("something stands after the end of the array", chunk, at)
        if not self._open:
            if byte != ord("["):
                self._fail("an array begins with '['", chunk, at)
            self._open.append(byte)
            return at + 1
        if byte == _COMMA or (byte == _END and self._comma):
            self._fail(f"a value is missing before '{chr(byte)}'", chunk, at)
        if byte == _END:
            self._ended = True
            return at + 1
        self._begun = True
        self.starts.append(self._base + at)
        self.lines.append(self._line_at(chunk, at))
        return at  # now as a part of the element

    def _line_at(self, chunk: bytes, at: int) -> int:
        """The line of byte `at`; each byte is looked at once."""
        self._line += chunk.count(b"\n", self._counted, at)
        self._counted = at
        return self._line

    def _fail(self, problem: str, chunk: bytes = b"", at: int = 0) -> NoReturn:
        line = self._line_at(chunk, at) if chunk else self._line
        raise BadInput(f"{self.path}:{line}: not valid JSON ({problem})")
