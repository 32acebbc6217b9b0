"""The chat of `memfactory infer`: what you say enters the memory bank, what you ask is answered from it.

A message is on disk before anything is done with it, and enters the bank before the next one is read.
"""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import io
import signal
import sys
from collections.abc import Callable, Coroutine, Iterator
from functools import partial
from typing import Any, TypeVar

from rich.console import Console

from memfactory.commands.banking import open_keeper
from memfactory.commands.line_editor import line_editor
from memfactory.commands.memories import counted, item_line, not_understood, say, say_going_on
from memfactory.core.errors import BadInput, UserError, did_you_mean
from memfactory.inference.keeper import Keeper, Reply, Taken, is_question, is_statement
from memfactory.inference.options import InferOptions
from memfactory.recipe.load import Recipe

T = TypeVar("T")
_PROMPT = "you> "
_SHOWN = 20  # memories of a list


def chat(recipe: Recipe, options: InferOptions, console: Console, errors: Console) -> int:
    """Chat until the input ends; the bank and what was said stay on disk, however it ends.

    Returns 0; where nobody sits at a terminal, 1 when something that was sent failed.
    """
    with contextlib.ExitStack() as stack:
        with _waiting(errors, "opening the memory bank and the model"):
            keeper = stack.enter_context(open_keeper(recipe, options.bank, say=partial(say, errors)))
        # One event loop for all messages: connections to a server stay open between them.
        runner = stack.enter_context(asyncio.Runner())
        failed = Chat(keeper, runner, console, errors, options.speaker).run(_reader())
    return 1 if failed and not sys.stdin.isatty() else 0


class Chat:
    """One chat in a terminal."""

    def __init__(
        self, keeper: Keeper, runner: asyncio.Runner, console: Console, errors: Console, speaker: str
    ) -> None:
        self.keeper = keeper
        self.runner = runner
        self.console = console
        self.errors = errors
        self.speaker = speaker
        self.last: Reply | None = None
        self.failed = False
        self.over = False
        self.commands: dict[str, tuple[Callable[[str], None], str, str]] = {
            "memory": (self._memory, "[WORDS]", "list memories, or those that share words with WORDS"),
            "forget": (self._forget, "ID...", "delete memories"),
            "why": (self._why, "", "the memories behind the last answer"),
            "ask": (self._ask, "TEXT", "ask, without remembering TEXT and without a question mark"),
            "tell": (self._tell, "TEXT", "remember TEXT, question or not"),
            "speaker": (self._speaker, "NAME", "who is speaking from now on"),
            "help": (self._help, "", "this list"),
            "quit": (self._quit, "", "leave; so does Ctrl-D"),
        }

    def run(self, read_line: Callable[[str], str]) -> bool:
        """Read and answer until the input ends; returns whether anything failed."""
        count = counted(len(self.keeper.memories), "memory", "memories")
        say(
            self.errors,
            f"{self.keeper.bank.path}: {count}. You are {self.speaker}. /help lists what you can do.",
        )
        say_going_on(self.errors, self.keeper.going_on)
        if len(self.keeper.pending):
            waiting = counted(len(self.keeper.pending), "message")
            say(self.errors, f"{waiting} from before not in the bank yet; taking in now")
            self._guarded(self._take_in)
        while not self.over:
            try:
                line = read_line(_PROMPT)
            except EOFError:
                if self.console.is_terminal:
                    self.console.print()
                break
            except KeyboardInterrupt:
                say(self.errors, "\n(/quit or Ctrl-D leaves)")
                continue
            if line.strip():
                self._guarded(partial(self._message, line.strip()))
        if left := len(self.keeper.pending):
            say(self.errors, f"{counted(left, 'message')} not in the bank yet; kept for the next start")
        return self.failed

    def _guarded(self, act: Callable[[], None]) -> None:
        """Whatever goes wrong with one message is one line, and the chat goes on."""
        try:
            act()
        except KeyboardInterrupt:
            kept = "; what you said is kept and enters the bank with your next message" * bool(
                len(self.keeper.pending)
            )
            say(self.errors, f"(stopped{kept})")
        except UserError as error:
            self.failed = True
            say(self.errors, f"error: {' '.join(str(error).split())}")
            if len(self.keeper.pending):
                say(self.errors, "what you said is kept and enters the bank with your next message")

    def _message(self, text: str) -> None:
        if text.startswith("/"):
            name, _, rest = text[1:].partition(" ")
            if name not in self.commands:
                hint = did_you_mean(name, self.commands) or "; /help lists them"
                raise BadInput(f"there is no command '/{name}'{hint}")
            self.commands[name][0](rest.strip())
            return
        if is_statement(text):
            self._tell(text)
        if is_question(text):
            self._ask(text)

    def _tell(self, text: str) -> None:
        self.keeper.say(text, self.speaker)
        self._take_in()

    def _take_in(self) -> None:
        for taken in self._wait(self.keeper.take_in(), "remembering"):
            self._show(taken)

    def _ask(self, text: str) -> None:
        if len(self.keeper.pending):
            self._take_in()
        self.last = self._wait(self.keeper.ask(text), "answering")
        say(self.console, self.last.text or "(no answer)")

    def _show(self, taken: Taken) -> None:
        if taken.error is not None:
            self.failed = True
            say(self.errors, f"error: {' '.join(str(taken.error).split())}; this was not remembered")
            return
        if taken.unread:
            self.failed = True
            said = taken.session.turns[0].text
            say(self.errors, f"error: '{said[:60]}' {not_understood(taken)}; it is kept and asked for again")
            return
        for change in taken.changes:
            say(self.console, f"  {change}")
        if not taken.changes:
            wrong = taken.remembered.errors
            say(self.console, "  (nothing new to remember" + (f"; {wrong[0]})" if wrong else ")"))

    def _memory(self, words: str) -> None:
        bank = self.keeper.memories
        if words:
            items = [hit.item for hit in bank.search_text(words, _SHOWN)]
        else:
            items = list(bank.items(embeddings=False))[-_SHOWN:]
        for item in items:
            say(self.console, f"  {item_line(item)}")
        if len(items) < len(bank):
            which = "that fit" if words else "newest"
            say(self.console, f"  ({len(items)} {which}, of {len(bank)})")
        elif not items:
            say(self.console, "  (no memories yet)")

    def _forget(self, ids: str) -> None:
        wanted = ids.replace(",", " ").split()
        if not wanted:
            raise BadInput("/forget needs the id of a memory, such as m3; /memory lists them")
        for item_id in wanted:
            gone = self.runner.run(self.keeper.forget(item_id))
            say(self.console, f"  - [{gone.id}] {gone.text}")

    def _why(self, nothing: str) -> None:
        if self.last is None:
            say(self.console, "  (nothing was asked yet)")
            return
        items = self.last.used
        if not items:
            seen = self.last.found
            say(self.console, f"  (the answer names no memory; it was given {len(seen)})")
            items = seen[:_SHOWN]
        for item in items:
            gone = "" if self.keeper.memories.get(item.id) is not None else " (forgotten since)"
            said = f"   from {', '.join(item.sources)}" if item.sources else ""
            say(self.console, f"  {item_line(item)}{said}{gone}")

    def _speaker(self, name: str) -> None:
        if not name:
            raise BadInput("/speaker needs a name")
        self.speaker = " ".join(name.split())
        say(self.console, f"  you are {self.speaker}")

    def _help(self, nothing: str) -> None:
        say(
            self.console,
            "  What you tell is remembered; what ends in a question mark is answered from memory.",
        )
        width = max(len(f"/{name} {usage}") for name, (_, usage, _) in self.commands.items())
        for name, (_, usage, meaning) in self.commands.items():
            say(self.console, f"  {f'/{name} {usage}':{width}}  {meaning}")
        say(self.console, f"  {'Ctrl-C':{width}}  stop what is being done for the last message")

    def _quit(self, nothing: str) -> None:
        self.over = True

    def _wait(self, work: Coroutine[Any, Any, T], doing: str) -> T:
        """Run until it is done. Ctrl-C cancels it, and only it.

        What is being done is shown from within, when asyncio has taken over Ctrl-C. A Ctrl-C just before that leaves
        a task behind that would begin with the next message: it then finds that it was given up.
        """
        given_up = False

        async def shown() -> T:
            if given_up:
                raise asyncio.CancelledError
            with _every_ctrl_c_wakes_the_loop(), _waiting(self.errors, doing):
                return await work

        try:
            return self.runner.run(shown())
        except KeyboardInterrupt:
            given_up = True
            if inspect.getcoroutinestate(work) == inspect.CORO_CREATED:
                work.close()
            raise


@contextlib.contextmanager
def _every_ctrl_c_wakes_the_loop() -> Iterator[None]:
    """asyncio's runner hears a Ctrl-C by Python's own means, which a loop that is about to wait can miss.

    A signal in the instant before the loop waits is noticed only when something else ends the wait. A loop that has a
    signal handler is also woken through a pipe; who hears the signal stays the runner.
    """
    loop, heard_by = asyncio.get_running_loop(), signal.getsignal(signal.SIGINT)
    loop.add_signal_handler(signal.SIGINT, lambda: None)
    signal.signal(signal.SIGINT, heard_by)
    try:
        yield
    finally:
        loop.remove_signal_handler(signal.SIGINT)
        signal.signal(signal.SIGINT, heard_by)


def _waiting(errors: Console, doing: str) -> contextlib.AbstractContextManager[Any]:
    if not errors.is_terminal:
        return contextlib.nullcontext()
    return errors.status(doing)


def _reader() -> Callable[[str], str]:
    """Reads a line: with a prompt and line editing at a terminal, else line by line without any."""
    if isinstance(sys.stdin, io.TextIOWrapper):
        sys.stdin.reconfigure(errors="replace")
    if sys.stdin.isatty():
        return line_editor()

    def line(_: str) -> str:
        text = sys.stdin.readline()
        if not text:
            raise EOFError
        return text

    return line
