"""A long dialogue as evidence: sessions of turns, in the order in which they happened."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass


@dataclass(frozen=True)
class Turn:
    """What one speaker said. `caption` describes a picture that came with it, if any."""

    id: str
    speaker: str
    text: str
    caption: str = ""

    def __str__(self) -> str:
        shown = f" [shares a picture: {self.caption}]" if self.caption else ""
        return f"{self.speaker}: {self.text}{shown}"


@dataclass(frozen=True)
class Session:
    """Turns of one sitting; `time` is as the data say it, empty when they do not."""

    id: str
    time: str
    turns: tuple[Turn, ...]

    def __str__(self) -> str:
        return "\n".join(str(turn) for turn in self.turns)


@dataclass(frozen=True)
class Dialogue:
    """Everything that was said between some speakers. Ids of sessions, and of turns, are unique within it."""

    id: str
    speakers: tuple[str, ...]
    sessions: tuple[Session, ...]

    def turns(self) -> Iterator[Turn]:
        """All turns in order."""
        for session in self.sessions:
            yield from session.turns

    def before(self, session_id: str) -> Dialogue:
        """The dialogue up to a session, without it. Raises `KeyError` for an unknown one."""
        ids = [session.id for session in self.sessions]
        if session_id not in ids:
            raise KeyError(session_id)
        return Dialogue(self.id, self.speakers, self.sessions[: ids.index(session_id)])
