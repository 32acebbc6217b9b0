"""The notes that inference keeps in a bank: what was understood of what it was told, and how often it was tried."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass

from memfactory.core.errors import BadInput
from memfactory.memory.bank import MemoryBank


@dataclass(frozen=True)
class Unread:
    """Numbers of what was tried in vain, with the attempts made so far; a note of the bank under `key`."""

    key: str
    attempts: Mapping[int, int]

    @classmethod
    def of(cls, bank: MemoryBank, key: str) -> Unread:
        """What the bank notes under a key. Raises `BadInput` for a note that is none of ours."""
        text = bank.meta.get(key, "")
        try:
            value = json.loads(text or "{}")
            return cls(key, {int(number): int(count) for number, count in value.items()})
        except (ValueError, TypeError, AttributeError, RecursionError):
            raise damaged_note(key, text) from None

    def without(self, number: int) -> dict[str, str]:
        """The changed note when a number is understood; nothing to change where it was not there."""
        if number not in self.attempts:
            return {}
        return self._note({n: count for n, count in self.attempts.items() if n != number})

    def with_one_more(self, number: int) -> dict[str, str]:
        """The changed note after one more attempt in vain."""
        return self._note({**self.attempts, number: self.attempts.get(number, 0) + 1})

    def _note(self, attempts: Mapping[int, int]) -> dict[str, str]:
        return {self.key: json.dumps({str(number): attempts[number] for number in sorted(attempts)})}


def whole_number(key: str, text: str) -> int:
    """The number that a note holds. Raises `BadInput` for any other text."""
    if text.isascii() and text.isdigit() and len(text) < 19:
        return int(text)
    raise damaged_note(key, text)


def damaged_note(key: str, text: str) -> BadInput:
    """The error for a note that cannot be understood."""
    return BadInput(
        f"the bank's note '{key}' is damaged ('{text[:40]}'); go back to a copy of the bank, or export its "
        "memories and import them into a new bank"
    )
