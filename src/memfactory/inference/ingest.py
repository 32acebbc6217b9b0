"""Reading dialogues into a bank session by session, and going on where an earlier start stopped.

How far a dialogue was read is a note of the bank, committed together with each session's memories: after a kill
the note and the memories agree, and no session is read twice.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from memfactory.core.errors import BadInput
from memfactory.data.dialogue import Dialogue, Session, Turn
from memfactory.inference.notes import Unread, whole_number
from memfactory.memory.bank import MemoryBank


@dataclass(frozen=True)
class Part:
    """One session to read: session `number` of `total` of its dialogue; `attempts` earlier ones were in vain."""

    session: Session
    number: int
    total: int
    attempts: int
    _key: str
    _digest: str

    def read(self, bank: MemoryBank) -> dict[str, str]:
        """The notes of a bank that has the session now."""
        return {**self._progress(bank), **Unread.of(bank, f"unread/{self._key}").without(self.number)}

    def unread(self, bank: MemoryBank) -> dict[str, str]:
        """The notes of a bank whose agent understood nothing of the replies for the session: it is asked for again."""
        return {**self._progress(bank), **Unread.of(bank, f"unread/{self._key}").with_one_more(self.number)}

    def _progress(self, bank: MemoryBank) -> Mapping[str, str]:
        done, _ = _progress_of(bank, self._key)
        return {f"read/{self._key}": f"{self.number} {self._digest}"} if self.number > done else {}


def parts_left(dialogue: Dialogue, bank: MemoryBank) -> list[Part]:
    """The sessions of a dialogue that the bank does not have yet, in order, with ids that begin with the dialogue's.

    Those come first whose replies were not understood before. A dialogue that has grown since is gone on with. Raises
    `BadInput` when what was read before under this name is not how the dialogue begins, or a note is damaged.
    """
    sessions = dialogue.sessions
    done, digest = _progress_of(bank, dialogue.id)
    unread = Unread.of(bank, f"unread/{dialogue.id}").attempts
    if done and (done > len(sessions) or _digest(sessions[:done]) != digest):
        raise BadInput(
            f"dialogue '{dialogue.id}' was read into this bank before with other content ({done} sessions); read this "
            "one into another bank (--bank), or give it another name"
        )
    return [
        Part(
            qualified(session, dialogue.id),
            number,
            len(sessions),
            unread.get(number, 0),
            dialogue.id,
            _digest(sessions[:number]),
        )
        for number, session in enumerate(sessions, start=1)
        if number > done or number in unread
    ]


def qualified(session: Session, dialogue: str) -> Session:
    """A session whose id, and whose turns' ids, begin with the dialogue's, so that a bank can hold several."""
    turns: Sequence[Turn] = [replace(turn, id=f"{dialogue}/{turn.id}") for turn in session.turns]
    return replace(session, id=f"{dialogue}/{session.id}", turns=tuple(turns))


def _progress_of(bank: MemoryBank, dialogue: str) -> tuple[int, str]:
    """How many sessions of a dialogue the bank has seen, and the digest of their content."""
    key = f"read/{dialogue}"
    count, _, digest = bank.meta.get(key, "0 ").partition(" ")
    return whole_number(key, count), digest


def _digest(sessions: Sequence[Session]) -> str:
    """Eight digits that tell the content of sessions from any other."""
    content = [
        [session.id, session.time, [[t.id, t.speaker, t.text, t.caption] for t in session.turns]]
        for session in sessions
    ]
    return hashlib.blake2b(json.dumps(content).encode(), digest_size=4).hexdigest()
