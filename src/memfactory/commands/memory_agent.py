"""`MemoryAgent`: an agent with a memory bank that lasts, for programs.

Everything of the agent runs in one thread with an event loop of its own. So the plain methods work anywhere, also
inside a running event loop, and the `a...` methods can be awaited from any loop.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Coroutine, Iterable, Sequence
from concurrent.futures import Future
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar

from memfactory.commands.banking import bank_path, open_keeper
from memfactory.core.errors import BadInput, UserError
from memfactory.data.readers.dialogues import read_dialogues
from memfactory.inference.ingest import parts_left
from memfactory.inference.keeper import Change, Keeper, Reply
from memfactory.memory.item import MemoryItem
from memfactory.recipe.load import load_recipe

T = TypeVar("T")


class Changes(list[Change]):
    """What was changed in a bank. `unread` has a line for each text of which the model's replies were not understood.

    Such a text is not in the bank, and is asked for again: a message with the next one, a session when its file is read
    again. `earlier` are changes by messages that an interrupted call left behind.
    """

    def __init__(
        self, changes: Iterable[Change] = (), unread: Iterable[str] = (), earlier: Iterable[Change] = ()
    ) -> None:
        super().__init__(changes)
        self.unread = tuple(unread)
        self.earlier = tuple(earlier)


class MemoryAgent:
    """A recipe's agent, remembering what it is told and answering what it is asked.

    `recipe` is a file or the name of one that ships, `overrides` are those of the command line (`model=smollm2`,
    `sampler=openai`), `bank` is the folder of the memory bank (default: `banks/<recipe name>`), made by the first thing
    that is remembered or read if it is not there. One process at a time may hold a bank; `close`, or leaving a `with`
    block, lets go of it.

    Errors are those of `memfactory.core.errors`: `BadInput` for a wrong recipe or bank (locked, of a newer version,
    of another embedder), `TaskError` for a text that the model cannot read, `ServiceError`, `DiskError`.
    """

    def __init__(
        self, recipe: str | Path, overrides: Sequence[str] = (), *, bank: str | Path | None = None
    ) -> None:
        """Load the recipe, open the bank and start the sampler."""
        self._closed = False
        composed = load_recipe(str(recipe), overrides, command="infer")
        self.bank = bank_path(composed, bank)
        self._open = ExitStack()
        try:
            self._keeper: Keeper = self._open.enter_context(open_keeper(composed, self.bank))
            self._loop = asyncio.new_event_loop()
            self._open.callback(self._loop.close)
            thread = threading.Thread(target=self._loop.run_forever, name="memory-agent", daemon=True)
            thread.start()
            self._open.callback(thread.join)
            self._open.callback(self._loop.call_soon_threadsafe, self._loop.stop)
            self._open.callback(self._end_work)
        except BaseException:
            self._open.close()
            raise

    async def aremember(self, text: str, *, speaker: str = "User", time: str | None = None) -> Changes:
        """Bring a message into the bank; returns what that changed. `time` is today if left out.

        Messages that an earlier, interrupted call left behind come in first; of several calls at once each gets its own
        changes, and its own error. The message is on disk as soon as this begins: if the call fails with
        `ServiceError`, or the process is killed, it comes in with the next one, and so does one of which the replies
        were not understood (`unread` of what is returned).
        """

        async def work() -> Changes:
            said = self._keeper.say(text, speaker, time)
            result = Changes()
            for taken in await self._keeper.take_in(said.number):
                if taken.said != said.number:
                    result.earlier += taken.changes
                    continue
                if taken.error is not None:
                    raise taken.error
                result.extend(taken.changes)
                result.unread += taken.remembered.unread
            return result

        return await self._there(work())

    async def aask(self, question: str) -> Reply:
        """Answer from the bank. `str(reply)` is the answer, `reply.used` the memories it rests on."""
        return await self._there(self._keeper.ask(question))

    async def aread(
        self,
        path: str | Path,
        *,
        conversation: str | None = None,
        progress: Callable[[int, int], None] | None = None,
    ) -> Changes:
        """Read a dialogue file (LoCoMo's JSON, or JSON Lines of turns) into the bank; returns what that changed.

        What the bank has read before is left out, so an interrupted call goes on where it stopped; sessions of which
        the replies were not understood (`unread` of what is returned) are asked for again. `conversation`
        chooses one dialogue of the file (None: all); `progress` is told how many of how many sessions are read.
        """

        async def work() -> Changes:
            dialogues = read_dialogues(str(path)).dialogues
            ids = [dialogue.id for dialogue in dialogues]
            if conversation is not None and conversation not in ids:
                raise BadInput(f"{path}: no conversation '{conversation}'; there are {', '.join(ids[:12])}")
            chosen = [d for d in dialogues if conversation in (None, d.id)]
            parts = [part for dialogue in chosen for part in parts_left(dialogue, self._keeper.bank)]
            changes = Changes()
            for done, part in enumerate(parts, start=1):
                taken = await self._keeper.read(part)
                changes.extend(taken.changes)
                changes.unread += tuple(f"{part.session.id}: {line}" for line in taken.remembered.unread)
                if progress is not None:
                    progress(done, len(parts))
            return changes

        return await self._there(work())

    async def aforget(self, item_id: str) -> MemoryItem:
        """Delete a memory; returns what it was. Raises `BadInput` for an unknown id."""
        return await self._there(self._keeper.forget(item_id))

    async def amemories(self, words: str | None = None, limit: int | None = None) -> list[MemoryItem]:
        """The memories in the order of adding; with `words` those that share some, best first."""

        async def work() -> list[MemoryItem]:
            bank = self._keeper.memories
            if words is None:
                return list(bank.items(embeddings=False))[:limit]
            return [hit.item for hit in bank.search_text(words, len(bank) if limit is None else limit)]

        return await self._there(work())

    def remember(self, text: str, *, speaker: str = "User", time: str | None = None) -> Changes:
        """Bring a message into the bank; see `aremember`."""
        return self._here(self.aremember(text, speaker=speaker, time=time))

    def ask(self, question: str) -> Reply:
        """Answer from the bank; see `aask`."""
        return self._here(self.aask(question))

    def read(
        self,
        path: str | Path,
        *,
        conversation: str | None = None,
        progress: Callable[[int, int], None] | None = None,
    ) -> Changes:
        """Read a dialogue file into the bank; see `aread`. `progress` is called from another thread."""
        return self._here(self.aread(path, conversation=conversation, progress=progress))

    def forget(self, item_id: str) -> MemoryItem:
        """Delete a memory; see `aforget`."""
        return self._here(self.aforget(item_id))

    def memories(self, words: str | None = None, limit: int | None = None) -> list[MemoryItem]:
        """List memories, or search them; see `amemories`."""
        return self._here(self.amemories(words, limit))

    def close(self) -> None:
        """Stop the sampler and let go of the bank; what was remembered stays. Idempotent."""
        if not self._closed:
            self._closed = True
            self._open.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __len__(self) -> int:
        """How many memories there are."""
        return len(self._keeper.memories)

    def __bool__(self) -> bool:
        """An agent is one, also with nothing in its bank."""
        return True

    def __repr__(self) -> str:
        return (
            f"MemoryAgent(bank={str(self.bank)!r}, {'closed' if self._closed else f'{len(self)} memories'})"
        )

    def _end_work(self) -> None:
        asyncio.run_coroutine_threadsafe(_end(), self._loop).result()

    async def _there(self, work: Coroutine[Any, Any, T]) -> T:
        """Run in the agent's own loop; cancelled together with whoever awaits it."""
        if asyncio.get_running_loop() is self._loop:
            return await work
        return await asyncio.wrap_future(self._start(work))

    def _here(self, work: Coroutine[Any, Any, T]) -> T:
        """Run in the agent's own loop, and wait for it in this thread. Ctrl-C cancels it."""
        running = self._start(work)
        try:
            return running.result()
        except BaseException:
            running.cancel()
            raise

    def _start(self, work: Coroutine[Any, Any, T]) -> Future[T]:
        if self._closed:
            work.close()
            raise UserError(f"{self.bank}: this agent was closed; make another one")
        return asyncio.run_coroutine_threadsafe(work, self._loop)


async def _end() -> None:
    """Cancel what still runs in this loop, and see it end."""
    others = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
    for task in others:
        task.cancel()
    await asyncio.gather(*others, return_exceptions=True)
