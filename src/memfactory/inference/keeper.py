"""An agent at work on a memory bank that lasts: what it is told enters the bank, what it is asked it answers from it.

The chat, the reading of dialogue files and `MemoryAgent` are three faces of this class.
"""

from __future__ import annotations

import asyncio
import datetime
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace

from memfactory.agents.base import Answer, BankAgent, Remembered
from memfactory.agents.components import component_learners, load_components, save_components
from memfactory.core.errors import BadInput, TaskError, did_you_mean
from memfactory.core.texts import nfc, one_line
from memfactory.core.types import Call, Task
from memfactory.data.dialogue import Session, Turn
from memfactory.inference.ingest import Part
from memfactory.inference.pending import Pending, Said
from memfactory.memory.bank import MemoryBank
from memfactory.memory.bank_folder import no_bank
from memfactory.memory.item import MemoryItem
from memfactory.memory.lance import LanceBank
from memfactory.memory.layered import LayeredBank
from memfactory.metrics.boxed import last_boxed
from memfactory.rollouts.collect import ModelsFactory

#: So often a message whose replies are not understood is tried before it waits for another start.
MOST_TRIES = 3
#: From a bank to the notes that it is to keep.
Notes = Callable[[MemoryBank], Mapping[str, str]]


@dataclass(frozen=True)
class Change:
    """What became of one memory: `before` is None for a new one, `after` for one that was deleted."""

    before: MemoryItem | None
    after: MemoryItem | None

    def __str__(self) -> str:
        """`+` a new memory, `~` a changed one (and from what), `-` one that is gone."""
        if self.after is None:
            return f"- [{self.before.id}] {self.before.text}" if self.before is not None else ""
        if self.before is None:
            return f"+ [{self.after.id}] {self.after.text}"
        was = f" (was: {self.before.text})" if self.before.text != self.after.text else ""
        return f"~ [{self.after.id}] {self.after.text}{was}"


@dataclass(frozen=True)
class Taken:
    """A session that is in the bank now, what it changed there, and what the agent says about it.

    With `remembered.unread` it is not in the bank: nothing of the replies was understood, and it is asked for again.
    `said` is the number of a message. `error`: the message can never be read, and was given up.
    """

    session: Session
    changes: tuple[Change, ...]
    remembered: Remembered
    said: int | None = None
    error: TaskError | None = None

    @property
    def unread(self) -> bool:
        """Whether the session still has to be read."""
        return bool(self.remembered.unread)


@dataclass(frozen=True)
class Reply:
    """An answer. `text` is what a user reads; `used` are the memories that it rests on, `found` all that were shown.

    `reply` is the model's own text, and `calls` are the model calls behind it.
    """

    question: str
    text: str
    reply: str
    used: tuple[MemoryItem, ...] = ()
    found: tuple[MemoryItem, ...] = ()
    calls: tuple[Call, ...] = field(default=(), repr=False)

    def __str__(self) -> str:
        return self.text


def today() -> str:
    """The day as dialogues write it: `3 May 2023`."""
    day = datetime.date.today()
    months = "January February March April May June July August September October November December"
    return f"{day.day} {months.split()[day.month - 1]} {day.year}"


class Keeper:
    """Feeds sessions to an agent and its bank one after another, and asks it. Use it from one event loop."""

    def __init__(
        self,
        agent: BankAgent,
        bank: LanceBank,
        make_models: ModelsFactory,
        clock: Callable[[], str] = today,
    ) -> None:
        """`clock` tells the time that messages get when they come without one.

        Parts of the agent that learn while they serve go on from what is kept beside the bank (`going_on` says which,
        and from where), whatever the recipe would have them begin with. Raises `BadInput` when that does not fit.
        """
        self.agent = agent
        self.bank = bank
        self.pending = Pending(bank)
        self._make_models = make_models
        self._clock = clock
        self._turn = asyncio.Lock()  # one session at a time; questions need not wait for it
        self._asked = 0
        self._tries: dict[int, int] = {}  # in vain, of messages, while this lives
        self._view: LayeredBank = bank.fork()
        self._learned = bank.path / "components"
        self._components = component_learners(agent)
        self.going_on = load_components(self._components, self._learned)

    @property
    def memories(self) -> LayeredBank:
        """The bank as it was committed last; for looking, not for changing."""
        return self._view

    def say(self, text: str, speaker: str, time: str | None = None) -> Said:
        """Accept a message: from now on it survives a kill. `take_in` brings it into the bank.

        Raises `BadInput` for an empty message, `DiskError` when it cannot be kept.
        """
        said, who = one_line(text), one_line(speaker)
        if not said or not who:
            raise BadInput("a message needs a text and a speaker")
        return self.pending.add(who, said, self._clock() if time is None else one_line(time))

    async def take_in(self, until: int | None = None) -> list[Taken]:
        """Bring every message that waits (`until`: up to that number) into the bank, each as a session of its own.

        The oldest comes first. One whose replies are not understood waits on, at most `MOST_TRIES` times while this
        keeper lives, and the next one comes. One that the model can never read (`TaskError`) is given up, and told in
        what is returned. Whatever else ends this early, a service that fails or a cancellation, leaves the message
        waiting.
        """
        taken: list[Taken] = []
        tried: set[int] = set()
        async with self._turn:
            while True:
                over = {number for number, tries in self._tries.items() if tries >= MOST_TRIES}
                said = self.pending.first(tried | over, until)
                if said is None:
                    return taken
                tried.add(said.number)
                taken.append(await self._take(said))

    async def read(self, part: Part) -> Taken:
        """Read a session into the bank; how far its dialogue was read is kept with it, in the same commit.

        Raises `TaskError`, and leaves the bank as it was, for a session that the model cannot read.
        """
        async with self._turn:
            try:
                return await self._read(part.session, "read", part.attempts, part.read, part.unread)
            except TaskError as error:
                raise TaskError(f"session '{part.session.id}': {error}") from error

    async def ask(self, question: str, name: str | None = None) -> Reply:
        """Answer a question from the bank. `name` tells questions apart whose draws must be repeatable.

        Raises `BadInput` for a bank that was not there and into which nothing has come yet.
        """
        asked = one_line(question)
        if not asked:
            raise BadInput("a question needs a text")
        if self.bank.new and not len(self.pending):
            raise no_bank(self.bank.path, "there is nothing to answer from; tell it something first")
        self._asked += 1
        task = Task(name or f"question-{self._asked}", asked, None)
        calls: list[Call] = []
        models = self._make_models(phase="ask", task=task, index=0, calls=calls)
        answer = await self.agent.answer(asked, self._view, models)
        save_components({n: c for n, c in self._components.items() if c.online}, self._learned)
        by_id = {item.id: item for item in answer.found}
        used = tuple(by_id[item_id] for item_id in answer.used if item_id in by_id)
        return Reply(asked, _shown(answer), answer.reply, used, answer.found, tuple(calls))

    async def forget(self, item_id: str) -> MemoryItem:
        """Delete a memory; returns what it was. Raises `BadInput` for an id that is not there."""
        wanted = nfc(item_id.strip().strip("[]"))
        async with self._turn:
            if wanted.isdigit() and wanted not in self.bank:
                wanted = f"m{wanted}"
            if self.bank.get(wanted) is None:
                known = [item.id for item in self._view.items(embeddings=False)]
                raise BadInput(f"there is no memory '{wanted[:40]}'{did_you_mean(wanted, known)}")
            gone = self.bank.delete(wanted)
            self._view = self.bank.fork()
            return gone

    async def _take(self, said: Said) -> Taken:
        """Try to bring one message in."""
        name = f"chat-{said.number}"
        session = Session(name, said.time, (Turn(name, said.speaker, said.text),))
        attempts = self.pending.attempts(said)
        try:
            taken = await self._read(
                session,
                "chat",
                attempts,
                lambda bank: self.pending.note(said),
                lambda bank: self.pending.note_unread(said),
            )
            if taken.unread:
                self._tries[said.number] = self._tries.get(said.number, 0) + 1
            return replace(taken, said=said.number)
        except TaskError as error:
            self._note(self.pending.note(said))
            return Taken(session, (), Remembered(), said.number, error)
        finally:
            self.pending.settle()

    async def _read(self, session: Session, phase: str, attempts: int, read: Notes, unread: Notes) -> Taken:
        """Let the agent read a session; `read` or `unread` are the bank's notes afterwards.

        Every attempt has draws of its own.
        """
        calls: list[Call] = []
        task = Task(session.id, "", session)
        models = self._make_models(phase=phase, task=task, index=attempts, calls=calls)
        before = self._view
        try:
            with self.bank.transaction():
                remembered = await self.agent.remember(session, self.bank, models)
                if remembered.unread:
                    raise _NothingUnderstood(remembered)
                self._note(read(self.bank))
                changed = self.bank.changes()
        except _NothingUnderstood as nothing:
            self._note(unread(self.bank))
            return Taken(session, (), nothing.remembered)
        finally:
            self._view = self.bank.fork()
        changes = tuple(Change(before.get(item_id), item) for item_id, item in changed.items())
        return Taken(session, tuple(c for c in changes if c.before != c.after), remembered)

    def _note(self, notes: Mapping[str, str]) -> None:
        with self.bank.transaction():
            for key, text in notes.items():
                self.bank.set_meta(key, text)


class _NothingUnderstood(Exception):
    """Ends the transaction of a session of which nothing was understood."""

    def __init__(self, remembered: Remembered) -> None:
        super().__init__()
        self.remembered = remembered


_SENTENCE = re.compile(r"(?<=[.!?…。！？])\s+")
_ASKS = ("?", "？", "؟")


def is_question(text: str) -> bool:
    """Whether a message wants an answer: it ends in a question mark."""
    return text.rstrip(" \t\"'”’)*_").endswith(_ASKS)


def is_statement(text: str) -> bool:
    """Whether a message tells something: it has a sentence that does not end in a question mark."""
    return any(not is_question(sentence) for sentence in _SENTENCE.split(text.strip()) if sentence)


def _shown(answer: Answer) -> str:
    """What a user reads of a reply: the boxed answer, or all of it."""
    return last_boxed(answer.reply) or answer.reply.strip()
