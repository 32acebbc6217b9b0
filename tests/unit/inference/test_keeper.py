"""An agent at work on its bank: one commit a message, nothing lost, nothing twice."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from memfactory.agents.base import Answer, Remembered, keeps_bank
from memfactory.agents.memagent import MemAgent
from memfactory.agents.memory_r1 import MemoryR1
from memfactory.core.chat import Models
from memfactory.core.errors import BadInput, ServiceError, TaskError
from memfactory.core.types import Message, Outcome, SamplingRequest, Task
from memfactory.data.dialogue import Dialogue, Session, Turn
from memfactory.inference.ingest import parts_left
from memfactory.inference.keeper import Keeper, Taken, is_question, is_statement
from memfactory.memory.bank import InMemoryBank, MemoryBank
from memfactory.memory.lance import LanceBank
from memfactory.samplers.scripted import ScriptedSampler
from tests.unit.fakes import models_of


class Parrot:
    """Remembers every turn, in two edits; asks the model once for each session and each question."""

    async def __call__(self, task: Task, models: Models) -> Outcome:
        raise NotImplementedError

    def new_bank(self) -> MemoryBank:
        return InMemoryBank("none", 1)

    async def remember(self, session: Session, bank: MemoryBank, models: Models) -> Remembered:
        for turn in session.turns:
            item = bank.add("...", session=session.id, time=session.time, sources=[turn.id])
            await models["policy"].chat([Message("user", str(turn))], module="m", max_tokens=9)
            bank.update(item.id, text=str(turn))
        return Remembered({"add": len(session.turns)})

    async def answer(self, question: str, bank: MemoryBank, models: Models) -> Answer:
        call = await models["policy"].chat([Message("user", question)], module="a", max_tokens=99)
        found = tuple(bank.items())
        return Answer(call.text, found, (*(item.id for item in found[-1:]), "m99"))


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "bank"


@pytest.fixture
def keeper(path: Path) -> Iterator[Keeper]:
    with open_bank(path) as bank:
        yield keeper_of(bank)


def open_bank(path: Path) -> LanceBank:
    return LanceBank(path, embedder="none", dim=1)


def reply(request: SamplingRequest) -> str:
    text = request.messages[0].content
    if "down" in text:
        raise ServiceError("the server is down")
    if "long" in text:
        raise TaskError("too long")
    return f"I heard: {text} \\boxed{{{text.upper()}}}"


def keeper_of(bank: LanceBank) -> Keeper:
    return Keeper(Parrot(), bank, models_of(ScriptedSampler(reply)), lambda: "3 May 2023")


def held(bank: LanceBank) -> list[str]:
    return [item.text for item in LanceBank(bank.path, mode="read").items()]


def tell(keeper: Keeper, *messages: str) -> list[str]:
    for message in messages:
        keeper.say(message, "Ana")
    taken = asyncio.run(keeper.take_in())
    return [str(change) for one in taken for change in one.changes]


def test_which_agents_keep_a_bank() -> None:
    assert keeps_bank(Parrot) and keeps_bank(Parrot()) and keeps_bank(MemoryR1)
    assert not keeps_bank(MemAgent)


def test_messages_enter_the_bank_and_answers_come_from_it(keeper: Keeper, path: Path) -> None:
    assert tell(keeper, "I moved to\nOslo. ", "I sing.") == [
        "+ [m1] Ana: I moved to Oslo.",
        "+ [m2] Ana: I sing.",
    ]
    assert held(keeper.bank) == ["Ana: I moved to Oslo.", "Ana: I sing."]
    [item, _] = keeper.memories.items()
    assert (item.created_session, item.created_time, item.sources) == ("chat-1", "3 May 2023", ("chat-1",))
    answer = asyncio.run(keeper.ask(" where?\ud800"))
    assert (answer.question, str(answer), answer.reply[:8]) == ("where??", "WHERE??", "I heard:")
    assert [i.id for i in answer.used] == ["m2"] and [i.id for i in answer.found] == ["m1", "m2"]
    assert len(answer.calls) == 1
    keeper.bank.close()
    with open_bank(path) as bank:  # tomorrow
        assert tell(keeper_of(bank), "I dance.") == ["+ [m3] Ana: I dance."]
        assert bank.get("m3").created_session == "chat-3"  # type: ignore[union-attr]


@pytest.mark.parametrize("bad", ["", " \n", "\x00"])
def test_empty_messages_and_questions_are_refused(keeper: Keeper, bad: str) -> None:
    with pytest.raises(BadInput, match="needs a text"):
        keeper.say(bad, "Ana")
    with pytest.raises(BadInput, match="speaker"):
        keeper.say("hello", bad)
    with pytest.raises(BadInput, match="needs a text"):
        asyncio.run(keeper.ask(bad))
    assert len(keeper.pending) == 0


def test_a_service_that_fails_leaves_the_bank_as_it_was_and_the_message_waiting(keeper: Keeper) -> None:
    keeper.say("fine", "Ana")
    keeper.say("down", "Ana")
    keeper.say("later", "Ana")
    with pytest.raises(ServiceError):
        asyncio.run(keeper.take_in())
    assert held(keeper.bank) == ["Ana: fine"] and len(keeper.pending) == 2
    assert [item.text for item in keeper.memories.items()] == ["Ana: fine"]


def test_a_message_that_can_never_be_read_is_given_up_and_told(keeper: Keeper) -> None:
    keeper.say("long", "Ana")
    keeper.say("short", "Ana")
    long, short = asyncio.run(keeper.take_in())
    assert isinstance(long.error, TaskError) and not long.changes and short.error is None
    assert len(keeper.pending) == 0
    assert [str(change) for change in short.changes] == ["+ [m1] Ana: short"]


def test_a_cancelled_message_waits_and_questions_see_only_what_was_committed(path: Path) -> None:
    async def scenario(keeper: Keeper) -> None:
        gate.clear()
        keeper.say("slow", "Ana")
        work = asyncio.create_task(keeper.take_in())
        await asyncio.sleep(0.05)
        assert (await keeper.ask("q")).found == (), "the open transaction is not seen"
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(keeper.forget("m1"), 0.05)
        work.cancel()
        with pytest.raises(asyncio.CancelledError):
            await work
        assert held(keeper.bank) == [] and len(keeper.pending) == 1
        gate.set()
        await keeper.take_in()
        assert held(keeper.bank) == ["Ana: slow"]

    class Gated(Parrot):
        async def remember(self, session: Session, bank: MemoryBank, models: Models) -> Remembered:
            done = await super().remember(session, bank, models)
            await gate.wait()
            return done

    gate = asyncio.Event()
    with open_bank(path) as bank:
        asyncio.run(scenario(Keeper(Gated(), bank, models_of(ScriptedSampler(reply)))))


class Choosy(Parrot):
    """Understands no reply to what says "mumble", as long as it is `deaf`; adds half of it first."""

    deaf = True

    async def remember(self, session: Session, bank: MemoryBank, models: Models) -> Remembered:
        done = await super().remember(session, bank, models)
        if self.deaf and any("mumble" in turn.text for turn in session.turns):
            return Remembered({}, ("manager: no JSON",), ("manager: no JSON",))
        return done


@pytest.fixture
def choosy(path: Path) -> Iterator[Keeper]:
    with open_bank(path) as bank:
        yield Keeper(Choosy(), bank, models_of(ScriptedSampler(reply)), lambda: "3 May 2023")


def test_a_message_that_was_not_understood_waits_and_is_tried_a_few_times(choosy: Keeper, path: Path) -> None:
    async def told(text: str) -> list[tuple[int | None, bool, list[str]]]:
        choosy.say(text, "Ana")
        return [(one.said, one.unread, [str(c) for c in one.changes]) for one in await choosy.take_in()]

    async def scenario() -> None:
        assert await told("mumble") == [(1, True, [])]
        assert held(choosy.bank) == [] and [item.text for item in choosy.memories.items()] == []
        assert await told("one") == [(1, True, []), (2, False, ["+ [m1] Ana: one"])]
        assert await told("two") == [(1, True, []), (3, False, ["+ [m2] Ana: two"])]
        assert await told("three") == [(4, False, ["+ [m3] Ana: three"])], "enough for this process"
        assert len(choosy.pending) == 1

    asyncio.run(scenario())
    choosy.bank.close()
    with open_bank(path) as bank:
        agent = Choosy()
        agent.deaf = False
        again = Keeper(agent, bank, models_of(ScriptedSampler(reply)), lambda: "3 May 2023")
        assert tell(again) == ["+ [m4] Ana: mumble"] and len(again.pending) == 0
    assert not (path / "pending.jsonl").exists()


def test_a_session_that_was_not_understood_is_asked_for_again(choosy: Keeper) -> None:
    def reading(*texts: str) -> list[tuple[str, int, bool]]:
        parts = parts_left(dialogue(*texts), choosy.bank)
        return [(p.session.id, p.attempts, asyncio.run(choosy.read(p)).unread) for p in parts]

    assert reading("a", "mumble", "c") == [("d/s1", 0, False), ("d/s2", 0, True), ("d/s3", 0, False)]
    assert held(choosy.bank) == ["Ana: a", "Ana: c"], "half a session is none"
    assert reading("a", "mumble", "c") == [("d/s2", 1, True)]
    choosy.agent.deaf = False  # type: ignore[attr-defined]
    assert reading("a", "mumble", "c", "d") == [("d/s2", 2, False), ("d/s4", 0, False)]
    assert held(choosy.bank) == ["Ana: a", "Ana: c", "Ana: mumble", "Ana: d"]
    assert reading("a", "mumble", "c", "d") == []


@pytest.mark.parametrize(
    ("key", "text"), [("read/d", "x y"), ("read/d", "-3 y"), ("unread/d", "["), ("unread/d", "7")]
)
def test_a_damaged_note_of_a_dialogue_is_one_line(keeper: Keeper, key: str, text: str) -> None:
    keeper.bank.set_meta(key, text)
    with pytest.raises(BadInput, match=f"note '{key}' is damaged"):
        parts_left(dialogue("a"), keeper.bank)


def test_every_attempt_draws_anew(choosy: Keeper) -> None:
    seeds: list[int] = []

    def answer(request: SamplingRequest) -> str:
        seeds.append(request.seed)
        return "x"

    choosy._make_models = models_of(ScriptedSampler(answer))
    for _ in range(3):
        for part in parts_left(dialogue("mumble"), choosy.bank):
            asyncio.run(choosy.read(part))
    assert len(set(seeds)) == 3


def test_of_messages_at_once_each_caller_gets_its_own(choosy: Keeper) -> None:
    async def told(text: str) -> list[Taken]:
        said = choosy.say(text, "Ana")
        return [one for one in await choosy.take_in(said.number) if one.said == said.number]

    async def scenario() -> list[list[Taken]]:
        return await asyncio.gather(*map(told, ["one", "long", "mumble", "two"]))

    [[one], [long], [mumble], [two]] = asyncio.run(scenario())
    assert [str(change) for change in one.changes] == ["+ [m1] Ana: one"]
    assert isinstance(long.error, TaskError) and mumble.unread
    assert [str(change) for change in two.changes] == ["+ [m2] Ana: two"]
    assert held(choosy.bank) == ["Ana: one", "Ana: two"] and len(choosy.pending) == 1


def test_a_bank_that_was_not_there_answers_nothing(path: Path) -> None:
    LanceBank(path.with_name("banks"), embedder="none", dim=1).close()
    with open_bank(path) as bank:
        keeper = keeper_of(bank)
        with pytest.raises(
            BadInput, match="nothing to answer from; tell it something first; did you mean 'banks'"
        ):
            asyncio.run(keeper.ask("where?"))
        assert tell(keeper, "one") and str(asyncio.run(keeper.ask("where?"))) == "WHERE?"


def test_messages_told_at_once_come_in_one_after_another(keeper: Keeper) -> None:
    async def both() -> None:
        keeper.say("one", "Ana")
        keeper.say("two", "Ben")
        await asyncio.gather(keeper.take_in(), keeper.take_in())

    asyncio.run(both())
    assert held(keeper.bank) == ["Ana: one", "Ben: two"]


def test_forgetting(keeper: Keeper) -> None:
    tell(keeper, "one", "two", "three")
    assert asyncio.run(keeper.forget("m2")).text == "Ana: two"
    assert asyncio.run(keeper.forget(" [3] ")).text == "Ana: three"
    with pytest.raises(BadInput, match="no memory 'm2'; did you mean 'm1'"):
        asyncio.run(keeper.forget("m2"))
    assert held(keeper.bank) == ["Ana: one"] == [item.text for item in keeper.memories.items()]
    assert tell(keeper, "four") == ["+ [m4] Ana: four"], "an id is never given twice"


def dialogue(*texts: str, name: str = "d") -> Dialogue:
    sessions = [Session(f"s{n}", "", (Turn(f"t{n}", "Ana", text),)) for n, text in enumerate(texts, start=1)]
    return Dialogue(name, ("Ana",), tuple(sessions))


def read(keeper: Keeper, *texts: str, name: str = "d") -> list[str]:
    parts = parts_left(dialogue(*texts, name=name), keeper.bank)
    for part in parts:
        asyncio.run(keeper.read(part))
    return [f"{part.session.id} {part.number}/{part.total}" for part in parts]


def test_a_dialogue_is_read_once_and_gone_on_with(keeper: Keeper) -> None:
    assert read(keeper, "a", "b") == ["d/s1 1/2", "d/s2 2/2"]
    assert read(keeper, "a", "b") == []
    assert read(keeper, "a", "b", "c") == ["d/s3 3/3"], "it has grown"
    assert read(keeper, "a", "x", name="other") == ["other/s1 1/2", "other/s2 2/2"]
    item = keeper.memories.get("m3")
    assert item is not None and (item.created_session, item.sources) == ("d/s3", ("d/t3",))
    for changed in (("a", "x", "c"), ("a",), ("a", "b", "x", "c")):
        with pytest.raises(BadInput, match="dialogue 'd' was read into this bank before with other content"):
            read(keeper, *changed)
    assert len(keeper.memories) == 5


def test_a_session_that_fails_is_named_and_read_again(keeper: Keeper) -> None:
    with pytest.raises(TaskError, match="session 'd/s2': too long"):
        read(keeper, "a", "long", "c")
    assert held(keeper.bank) == ["Ana: a"]
    with pytest.raises(BadInput, match="other content"):
        read(keeper, "x", "b")
    assert read(keeper, "a", "b", "c") == ["d/s2 2/3", "d/s3 3/3"]


@pytest.mark.parametrize(
    ("text", "tells", "asks"),
    [
        ("I moved to Oslo.", True, False),
        ("Where do I live?", False, True),
        ("I moved to Oslo. Where did I live before?", True, True),
        ("Really? I did not know that", True, False),
        ("Who? What?", False, True),
        ('He said "why?"', False, True),
        ("住在哪里？", False, True),
        ("?", False, True),
    ],
)
def test_what_tells_and_what_asks(text: str, tells: bool, asks: bool) -> None:
    assert (is_statement(text), is_question(text)) == (tells, asks)


@given(st.text(min_size=1).filter(str.strip))
def test_every_message_is_one_or_the_other(text: str) -> None:
    assert is_statement(text) or is_question(text)
