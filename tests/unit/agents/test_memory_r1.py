"""Memory-R1: what each call sees, what becomes of the bank, and who is paid for the answer."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from dataclasses import replace

import pytest
from tests.unit.fakes import models_of

from memfactory.agents.memory_r1 import MemoryR1, Roles
from memfactory.core.errors import BadInput
from memfactory.core.types import Rollout, SamplingRequest, Task
from memfactory.data.dialogue import Dialogue, Memory, Session, Turn
from memfactory.memory.bank import InMemoryBank, MemoryBank
from memfactory.memory.embedders import HashingEmbedder
from memfactory.modules.distilling_answerer import DistillingAnswerer
from memfactory.modules.extractors import FactsExtractor, MemoryListExtractor
from memfactory.modules.managers import manager
from memfactory.modules.retrievers import BankRetriever
from memfactory.rewards.answer import ExactMatch
from memfactory.rewards.operations import ModuleFormat, OpErrors
from memfactory.rewards.rubric import RewardComponent, Rubric
from memfactory.rollouts.collect import Collector
from memfactory.samplers.scripted import ScriptedSampler
from memfactory.training.credit import assign_credit

PROMPTS = {
    "extract": "EXTRACT {time}\n{session}",
    "extract_memory_list": "EXTRACT {session}",
    "manage": "MANAGE\n{memories}\nNEW\n{facts}",
    "manage_numbered": "MANAGE\n{memories}\nNEW\n{facts}",
    "answer_from_memories": "ANSWER {question}\n{memories}",
}


def session(number: int, *texts: str) -> Session:
    turns = tuple(Turn(f"D{number}:{place}", "Ana", text) for place, text in enumerate(texts, start=1))
    return Session(f"session_{number}", f"day {number}", turns)


TASK = Task(
    "t",
    "Where does Ana live?",
    Dialogue("d", ("Ana", "Ben"), (session(1, "I live in Rome."), session(2, "Hi.", "I moved to Oslo."))),
    ("Oslo",),
)
FIRST = '{"facts": ["Ana lives in Rome."]}'
SECOND = '{"facts": ["Ana lives in Oslo."]}'
ADD = '{"operations": [{"op": "ADD", "text": "Ana lives in Rome."}]}'
UPDATE = '{"operations": [{"op": "UPDATE", "id": "m1", "text": "Ana lives in Oslo."}]}'
ANSWER = "Memories: m1\n\\boxed{Oslo}"
GOOD = [FIRST, ADD, SECOND, UPDATE, ANSWER]


def make_agent(
    *,
    extractor: str = "facts",
    operations: str = "addressed",
    method: str = "embedding",
    bank: MemoryBank | None = None,
    roles: Roles = Roles(),  # noqa: B008
    per_speaker_top_k: int | None = None,
) -> MemoryR1:
    return MemoryR1(
        extractor_tokens=1000,
        manager_tokens=1000,
        answer_tokens=1000,
        related=2,
        top_k=3,
        roles=roles,
        extractor=FactsExtractor(PROMPTS) if extractor == "facts" else MemoryListExtractor(PROMPTS),
        manager=manager(PROMPTS, operations),  # type: ignore[arg-type]
        retriever=BankRetriever(method, HashingEmbedder()),  # type: ignore[arg-type]
        answerer=DistillingAnswerer(PROMPTS),
        per_speaker_top_k=per_speaker_top_k,
        bank=bank,
    )


def run(agent: MemoryR1, replies: list[str], task: Task = TASK) -> tuple[Rollout, list[str]]:
    """The rollout, and every prompt."""
    sampler = ScriptedSampler(replies)
    rollout = asyncio.run(Collector(agent, models_of(sampler)).rollout(task, 0, "test"))
    return rollout, [request.messages[0].content for request in sampler.requests]


def info(rollout: Rollout) -> dict:  # type: ignore[type-arg]
    assert rollout.error is None and rollout.outcome is not None
    return dict(rollout.outcome.info)


@pytest.mark.parametrize("method", ["embedding", "bm25", "hybrid"])
def test_sessions_become_facts_operations_a_bank_and_an_answer(method: str) -> None:
    rollout, prompts = run(make_agent(method=method), GOOD)
    assert [call.module for call in rollout.calls] == [
        "extractor",
        "manager",
        "extractor",
        "manager",
        "answerer",
    ]
    assert prompts == [
        "EXTRACT day 1\nAna: I live in Rome.",
        "MANAGE\n(none)\nNEW\n- Ana lives in Rome.",
        "EXTRACT day 2\nAna: Hi.\nAna: I moved to Oslo.",
        "MANAGE\n[m1] Ana lives in Rome.\nNEW\n- Ana lives in Oslo.",
        "ANSWER Where does Ana live?\n[m1] (day 2) Ana lives in Oslo.",
    ]
    assert rollout.outcome is not None and rollout.outcome.reply == ANSWER
    assert rollout.outcome.memories == ("[m1] (day 1) Ana lives in Rome.", "[m1] (day 2) Ana lives in Oslo.")
    assert info(rollout) == {
        "operations": {"add": 1, "update": 1, "delete": 0, "noop": 0},
        "op_errors": 0,
        "manager_calls": 2,
        "format": {"extractor": 1.0, "manager": 1.0, "answerer": 1.0},
        "errors": [],
        "bank_size": 1,
        "retrieved": ["m1"],
        "used": ["m1"],
    }
    json.dumps(info(rollout))


def test_the_layout_of_memfactory() -> None:
    def extracted(value: str) -> str:
        entry = {"key": "home", "memory_type": "fact", "value": value, "tags": ["Ana"]}
        return json.dumps({"memory_list": [entry], "summary": "s"})

    replies = [
        extracted("Ana lives in Rome."),
        '{"operations": [{"id": 1, "op": "ADD"}]}',
        extracted("Ana lives in Oslo."),
        '{"operations": [{"id": 1, "op": "DEL"}, {"id": 2, "op": "ADD"}]}',
        ANSWER,
    ]
    rollout, prompts = run(make_agent(extractor="memory_list", operations="numbered"), replies)
    assert prompts[3] == (
        'MANAGE\n{"id": 1, "key": "home", "value": "Ana lives in Rome."}\n'
        'NEW\n{"id": 2, "key": "home", "value": "Ana lives in Oslo."}'
    )
    assert rollout.outcome is not None and rollout.outcome.memories[-1] == "[m2] (day 2) Ana lives in Oslo."


def test_without_facts_the_manager_is_not_asked() -> None:
    rollout, _ = run(make_agent(), ['{"facts": []}', "nonsense", "\\boxed{x}"])
    assert [call.module for call in rollout.calls] == ["extractor", "extractor", "answerer"]
    assert info(rollout)["format"] == {"extractor": 0.5, "manager": None, "answerer": 0.0}
    assert info(rollout)["bank_size"] == 0


def test_wrong_operations_are_counted_and_harm_nothing() -> None:
    wrong = '{"operations": [{"op": "DELETE", "id": "m7"}, {"op": "UPDATE", "id": "m1"}]}'
    rollout, _ = run(make_agent(), [FIRST, ADD, SECOND, wrong, ANSWER])
    assert info(rollout)["op_errors"] == 2 and info(rollout)["bank_size"] == 1
    assert info(rollout)["format"]["manager"] == 1.0
    assert len(info(rollout)["errors"]) == 2


def test_rollouts_do_not_see_each_others_edits_nor_change_the_bank_they_start_from() -> None:
    embedder = HashingEmbedder()
    bank = InMemoryBank(embedder.name, embedder.dim)
    bank.add("Ben has a goat.", embedding=embedder.embed_now(["Ben has a goat."])[0])

    def reply(request: SamplingRequest) -> str:
        text = request.messages[0].content
        if text.startswith("EXTRACT"):
            return json.dumps({"facts": [f"fact {request.seed} {number}" for number in range(3)]})
        if text.startswith("MANAGE"):
            added = [{"op": "ADD", "text": line[2:]} for line in text.split("\n") if line.startswith("- ")]
            return json.dumps({"operations": [{"op": "DELETE", "id": "m1"}, *added]})
        return ANSWER

    collector = Collector(make_agent(bank=bank), models_of(ScriptedSampler(reply)))
    [group] = collector.collect([TASK], 4, "test")
    finals = [rollout.outcome.memories[-1] for rollout in group if rollout.outcome is not None]
    assert len(set(finals)) == 4
    for final in finals:
        assert len(final.split("\n")) == 6 and "goat" not in final
    assert [item.text for item in bank.items()] == ["Ben has a goat."]


def test_a_starting_bank_of_another_embedder_is_refused() -> None:
    with pytest.raises(BadInput, match="embedder 'other'"):
        run(make_agent(bank=InMemoryBank("other", 3)), GOOD)


def test_a_role_that_nobody_plays_is_one_line_before_the_first_call() -> None:
    with pytest.raises(BadInput, match=r"no model plays the role 'polcy'.*did you mean 'policy'"):
        run(make_agent(roles=Roles(answerer="polcy")), GOOD)


def test_evidence_that_is_no_dialogue_fails_the_rollout() -> None:
    rollout, _ = run(make_agent(), GOOD, Task("t", "q", "a text"))
    assert rollout.error is not None and "task 't'" in rollout.error and "str" in rollout.error


def test_the_same_replies_give_the_same_rollout() -> None:
    assert run(make_agent(), GOOD)[0] == run(make_agent(), GOOD)[0]


RUBRIC = Rubric(
    {
        "answer": RewardComponent(ExactMatch()),
        "format_extractor": RewardComponent(ModuleFormat("extractor"), 0.5, ("extractor",)),
        "op_errors": RewardComponent(OpErrors(), 0.25, ("manager",)),
    }
)


def advantages(answer_of: Callable[[int], str]) -> dict[tuple[int, str], float]:
    """Advantage by (rollout, module) of two rollouts that differ in nothing but their answers."""
    group = []
    for index in range(2):
        rollout, _ = run(make_agent(), [*GOOD[:-1], answer_of(index)])
        rollout.index = index
        rollout.rewards = asyncio.run(RUBRIC.score(rollout))
        group.append(rollout)
    credit = assign_credit([group], RUBRIC, "dr_grpo")
    return {(row.rollout_id, row.module): row.advantage for row in credit.rows}


def test_the_extractors_advantage_changes_when_only_the_answer_changes() -> None:
    right, wrong = ANSWER, "Memories: m1\n\\boxed{Rome}"
    first = advantages(lambda index: right if index == 0 else wrong)
    other = advantages(lambda index: wrong if index == 0 else right)
    for module in ("extractor", "manager", "answerer"):
        assert first[0, module] == 0.5 and other[0, module] == -0.5
    assert advantages(lambda index: right) == {}


async def test_rewards_of_layout_and_operations() -> None:
    rollout, _ = await asyncio.to_thread(run, make_agent(), [FIRST, "no", "no", ANSWER])
    assert await ModuleFormat("extractor")(rollout) == 0.5
    assert await ModuleFormat("manager")(rollout) == 0.0
    assert await OpErrors(worst=4)(rollout) == -0.25
    with pytest.raises(BadInput, match="did you mean 'extractor'"):
        await ModuleFormat("extractr")(rollout)
    failed = Rollout(TASK, 0, error="gone")
    assert (await ModuleFormat("manager")(failed), await OpErrors()(failed)) == (0.0, -1.0)
    silent, _ = await asyncio.to_thread(run, make_agent(), ['{"facts": []}', '{"facts": []}', ANSWER])
    assert (await ModuleFormat("manager")(silent), await OpErrors()(silent)) == (None, None)


BEGUN = (
    Memory("Ana lives in Rome.", "session_0", "day 0", sources=("D0:1",)),
    Memory("Ben has a goat.", "session_0", "day 0"),
    Memory("Ana lives in Rome.", "session_9", "day 9"),
)


@pytest.mark.parametrize("method", ["embedding", "bm25"])
def test_a_bank_begins_with_the_dialogues_memories_and_the_manager_may_change_them(method: str) -> None:
    evidence = Dialogue("d", ("Ana", "Ben"), (session(2, "I moved to Oslo."),), BEGUN)
    rollout, prompts = run(
        make_agent(method=method), [SECOND, UPDATE, ANSWER], replace(TASK, evidence=evidence)
    )
    assert prompts[1].startswith("MANAGE\n[m1] (day 0) Ana lives in Rome.") or "[m1]" in prompts[1]
    assert info(rollout)["operations"]["update"] == 1 and info(rollout)["bank_size"] == 2
    assert rollout.outcome is not None
    assert rollout.outcome.memories == ("[m1] (day 2) Ana lives in Oslo.\n[m2] (day 0) Ben has a goat.",)


def test_with_a_frozen_bank_and_no_session_only_the_answerer_is_asked() -> None:
    evidence = Dialogue("d", ("Ana", "Ben"), (), BEGUN)
    rollout, [prompt] = run(make_agent(), [ANSWER], replace(TASK, evidence=evidence))
    assert [call.module for call in rollout.calls] == ["answerer"]
    assert "[m1] (day 0) Ana lives in Rome." in prompt
    assert info(rollout)["manager_calls"] == 0 and info(rollout)["format"]["extractor"] is None


def test_memories_are_retrieved_for_each_speaker() -> None:
    memories = tuple(Memory(f"Ana lives in Rome, {number}.") for number in range(5))
    memories += (Memory("Ben has a goat."), Memory("BEN met Ana."), Memory("It rained."))
    rollout, _ = run(
        make_agent(per_speaker_top_k=2),
        [ANSWER],
        replace(TASK, evidence=Dialogue("d", ("Ana", "Ben"), (), memories)),
    )
    found = info(rollout)["retrieved"]
    texts = [memories[int(name[1:]) - 1].text for name in found]
    assert sum("ana" in text.lower() for text in texts) >= 2
    assert sum("ben" in text.lower() for text in texts) >= 1
    assert 2 <= len(found) <= 4
    chat, _ = run(
        make_agent(per_speaker_top_k=None), [ANSWER], replace(TASK, evidence=Dialogue("d", (), (), memories))
    )
    assert len(info(chat)["retrieved"]) == 3
