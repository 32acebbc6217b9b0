"""Ctrl-C while a message is worked on: it ends that work and nothing else, however early it comes."""

from __future__ import annotations

import asyncio
import io
import os
import signal
from typing import Any

import pytest
from rich.console import Console

from memfactory.commands.chat import Chat


def chat(runner: asyncio.Runner) -> Chat:
    nobody: Any = None
    return Chat(nobody, runner, Console(file=io.StringIO()), Console(file=io.StringIO()), "Ana")


async def told(log: list[str], text: str, seconds: float = 0.0) -> str:
    log.append(text)
    await asyncio.sleep(seconds)
    return text


def test_it_cancels_the_work_and_the_next_message_goes_on() -> None:
    log: list[str] = []

    async def long() -> str:
        os.kill(os.getpid(), signal.SIGINT)
        return await told(log, "first", 600)

    with asyncio.Runner() as runner:
        talk = chat(runner)
        with pytest.raises(KeyboardInterrupt):
            talk._wait(long(), "remembering")
        assert talk._wait(told(log, "second"), "remembering") == "second"
    assert log == ["first", "second"]


@pytest.mark.filterwarnings("error")
def test_before_asyncio_listens_for_it_nothing_begins_later(monkeypatch: pytest.MonkeyPatch) -> None:
    """asyncio has made its task and has not installed its handler: the place where it asks for the old one."""
    log: list[str] = []
    with asyncio.Runner() as runner:
        talk = chat(runner)
        with monkeypatch.context() as patch:
            patch.setattr("signal.getsignal", interrupted)
            with pytest.raises(KeyboardInterrupt):
                talk._wait(told(log, "first", 600), "remembering")
        assert talk._wait(told(log, "second", 0.01), "remembering") == "second"
        assert log == ["second"], "the first would be at work beside the second, and hold the bank"


def interrupted(number: int) -> None:
    raise KeyboardInterrupt
