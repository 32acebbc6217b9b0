"""`MemoryAgent`: the library's way to an agent and its bank."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from memfactory import MemoryAgent
from memfactory.core.errors import BadInput, TaskError, UserError


@pytest.fixture
def recipe(chat_recipe: Path) -> Path:
    return chat_recipe


@pytest.fixture
def agent(recipe: Path, tmp_path: Path) -> Iterator[MemoryAgent]:
    with MemoryAgent(recipe, bank=tmp_path / "bank") as agent:
        yield agent


def test_it_remembers_answers_and_forgets(agent: MemoryAgent, recipe: Path, tmp_path: Path) -> None:
    assert agent and len(agent) == 0
    with pytest.raises(BadInput, match="there is nothing to answer from"):
        agent.ask("Where does Ana live now?")
    [change] = agent.remember("I moved to Oslo.", speaker="Ana", time="3 May 2023")
    assert str(change) == "+ [m1] Ana: I moved to Oslo."
    reply = agent.ask("Where does Ana live now?")
    assert (str(reply), [item.id for item in reply.used]) == ("Ana: I moved to Oslo.", ["m1"])
    agent.remember("I sing.")
    assert [(item.text, item.created_time) for item in agent.memories("oslo")] == [
        ("Ana: I moved to Oslo.", "3 May 2023")
    ]
    with pytest.raises(BadInput, match="is writing to this memory bank"):
        MemoryAgent(recipe, bank=tmp_path / "bank")
    assert agent.forget("m1").id == "m1"
    agent.close()
    agent.close()
    with pytest.raises(UserError, match="was closed"):
        agent.ask("Where?")
    with MemoryAgent(recipe, bank=tmp_path / "bank") as again:
        assert [item.text for item in again.memories()] == ["User: I sing."]


async def test_inside_a_running_event_loop(agent: MemoryAgent) -> None:
    agent.remember("one", speaker="Ana")
    replies = await asyncio.gather(agent.aask("a?"), agent.aremember("two", speaker="Ben"), agent.aask("b?"))
    assert str(replies[0]) == str(replies[2]) == "Ana: one"
    assert str(agent.ask("who?")) == "Ben: two"
    work = asyncio.create_task(agent.aremember("slowly", speaker="Ben"))
    await asyncio.sleep(0.1)
    work.cancel()
    with pytest.raises(asyncio.CancelledError):
        await work
    assert [item.text for item in await agent.amemories()] == ["Ana: one", "Ben: two"]


async def test_of_calls_at_once_each_gets_its_own_changes_and_errors(agent: MemoryAgent) -> None:
    said = ["one", "word " * 2000, "gibberish", "two"]
    results = await asyncio.gather(*map(agent.aremember, said), return_exceptions=True)
    assert [str(change) for result in (results[0], results[3]) for change in result] == [  # type: ignore[union-attr]
        "+ [m1] User: one",
        "+ [m2] User: two",
    ]
    assert isinstance(results[1], TaskError)
    assert results[2] == [] and results[2].unread == ("extractor: no JSON object with 'facts'",)  # type: ignore


def test_a_dialogue_file(agent: MemoryAgent, tmp_path: Path) -> None:
    path = tmp_path / "talk.jsonl"
    path.write_text("".join(json.dumps({"speaker": "Ana", "text": t, "session": t}) + "\n" for t in "abc"))
    seen: list[tuple[int, int]] = []
    changes = agent.read(path, progress=lambda done, total: seen.append((done, total)))
    assert [str(change) for change in changes] == ["+ [m1] Ana: a", "+ [m2] Ana: b", "+ [m3] Ana: c"]
    assert seen == [(1, 3), (2, 3), (3, 3)]
    assert agent.read(path) == []
    with pytest.raises(BadInput, match="no conversation 'other'"):
        agent.read(path, conversation="other")


def test_what_is_wrong_is_told_at_once(recipe: Path, tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="did you mean 'sampler'"):
        MemoryAgent(recipe, ["samplr=hf"], bank=tmp_path / "bank")
    with pytest.raises(BadInput, match="'memagent' keeps no memory bank"):
        MemoryAgent("memagent", bank=tmp_path / "bank")
    assert not (tmp_path / "bank").exists()


def test_the_package_is_light_until_an_agent_is_asked_for() -> None:
    code = (
        "import sys, memfactory; print(len([m for m in sys.modules if m.startswith('memfactory')]));"
        "memfactory.MemoryAgent; print('torch' in sys.modules, 'transformers' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == ["1", "False False"]
    with pytest.raises(AttributeError, match="no attribute 'MemoryAgnt'"):
        __import__("memfactory").MemoryAgnt  # noqa: B018


def test_a_real_policy_behind_the_agent(tmp_path: Path) -> None:
    """The shipped recipe on the policy that ships: whatever it replies, the bank stays whole."""
    with MemoryAgent("memory_r1", ["sampler=hf"], bank=tmp_path / "bank") as agent:
        changes = agent.remember("I live in Oslo.", speaker="Anna", time="3 May 2023")
        reply = agent.ask("Where does Anna live now?")
        assert {call.module for call in reply.calls} == {"answerer"}
        assert reply.reply
        assert len(agent) == sum(1 if change.before is None else 0 for change in changes)
