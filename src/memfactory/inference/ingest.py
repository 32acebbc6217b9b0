"""Reading dialogues into a bank session by session, and going on where an earlier start stopped.

How far a dialogue was read is a note of the bank, committed together with each session's memories: after a kill
the note and the memories agree, and no session is read twice.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass

from memfactory.core.errors import BadInput
from memfactory.data.dialogue import Dialogue, Session
from memfactory.inference.keeper import qualified
from memfactory.memory.bank import MemoryBank


@dataclass(frozen=True)
class Part:
    """One session to read: session `number` of `total` of its dialogue, and the note that it is in the bank."""

    session: Session
    number: int
    total: int
    note: tuple[str, str]


def parts_left(dialogue: Dialogue, bank: MemoryBank) -> list[Part]:
    """The sessions of a dialogue that the bank does not have yet, in order, with ids that begin with the dialogue's.

    A dialogue that has grown since is gone on with. Raises `BadInput` when what was read before under this name
    is not how the dialogue begins.
    """
    key, sessions = f"read/{dialogue.id}", dialogue.sessions
    count, _, digest = bank.meta.get(key, "0 ").partition(" ")
    done = int(count)
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
            (key, f"{number} {_digest(sessions[:number])}"),
        )
        for number, session in enumerate(sessions, start=1)
        if number > done
    ]


def _digest(sessions: Sequence[Session]) -> str:
    """Eight digits that tell the content of sessions from any other."""
    content = [
        [session.id, session.time, [[t.id, t.speaker, t.text, t.caption] for t in session.turns]]
        for session in sessions
    ]
    return hashlib.blake2b(json.dumps(content).encode(), digest_size=4).hexdigest()
