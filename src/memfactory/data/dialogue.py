"""A long dialogue as evidence: sessions of turns, in the order in which they happened."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass, field, replace
from typing import Any, Literal

#: What a reader of dialogues hands out: the `Dialogue`, or its text for agents that read texts.
Form = Literal["dialogue", "text"]


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
class Memory:
    """Something worth remembering, as data describe it; a bank makes an item of it, with an id and an embedding.

    `session` and `time` are those of the last session that it was learned from, `sources` the ids of its turns.
    """

    text: str
    session: str = ""
    time: str = ""
    key: str = ""
    type: str = ""
    tags: tuple[str, ...] = ()
    sources: tuple[str, ...] = ()


@dataclass(frozen=True)
class Session:
    """Turns of one sitting; `time` is as the data say it, empty when they do not.

    `after` is what a good memory holds once the session is over, of this and all earlier ones, where the data
    tell (None where they do not). No agent looks at it: it is there to make starting banks from.
    """

    id: str
    time: str
    turns: tuple[Turn, ...]
    after: tuple[Memory, ...] | None = field(default=None, repr=False, compare=False)

    def __str__(self) -> str:
        return "\n".join(str(turn) for turn in self.turns)


@dataclass(frozen=True)
class Dialogue:
    """Everything that was said between some speakers. Ids of sessions, and of turns, are unique within it.

    `memories` are what is remembered before the first session: a bank begins with them. With memories and no
    session a dialogue is a frozen bank, of which nothing is left to read.
    """

    id: str
    speakers: tuple[str, ...]
    sessions: tuple[Session, ...]
    memories: tuple[Memory, ...] = ()

    def __str__(self) -> str:
        return "\n\n".join(_shown(session.time, session.turns) for session in self.sessions)

    def turns(self) -> Iterator[Turn]:
        """All turns in order."""
        for session in self.sessions:
            yield from session.turns

    def quote(self, turn_ids: Collection[str]) -> str:
        """The text of these turns alone, in order, with each session's time; unknown ids are passed over."""
        wanted = set(turn_ids)
        parts = []
        for session in self.sessions:
            said = tuple(turn for turn in session.turns if turn.id in wanted)
            if said:
                parts.append(_shown(session.time, said))
        return "\n\n".join(parts)

    def sessions_of(self, turn_ids: Collection[str]) -> tuple[str, ...]:
        """The ids of the sessions that hold any of these turns, in order."""
        wanted = set(turn_ids)
        return tuple(s.id for s in self.sessions if any(turn.id in wanted for turn in s.turns))

    def gold(self, turn_ids: Collection[str]) -> dict[str, Any]:
        """`meta` of a task whose answer rests on these turns: them, their sessions, and their text if there is any."""
        quoted = self.quote(turn_ids)
        found: dict[str, Any] = {
            "evidence_turns": tuple(turn.id for turn in self.turns() if turn.id in set(turn_ids)),
            "evidence_sessions": self.sessions_of(turn_ids),
        }
        return found | ({"gold_evidence": quoted} if quoted else {})

    def in_form(self, form: str) -> Dialogue | str:
        """The dialogue itself, or its text."""
        return self if form == "dialogue" else str(self)

    def before(self, session_id: str) -> Dialogue:
        """The dialogue up to a session, without it. Raises `KeyError` for an unknown one."""
        ids = [session.id for session in self.sessions]
        if session_id not in ids:
            raise KeyError(session_id)
        return replace(self, sessions=self.sessions[: ids.index(session_id)])


def _shown(time: str, turns: tuple[Turn, ...]) -> str:
    lines = [str(turn) for turn in turns]
    return "\n".join([f"[{time}]", *lines] if time else lines)
