"""One reading of a dialogue for all questions about it: how often it is read, who is charged, what when it fails."""

from __future__ import annotations

import asyncio
import json
from collections import Counter

import pytest

from memfactory.core.errors import ServiceError, TaskError
from memfactory.core.types import Rollout, SamplingRequest, Task
from memfactory.data.dialogue import Dialogue
from memfactory.memory.bank import InMemoryBank
from memfactory.rollouts.collect import Collector
from memfactory.samplers.scripted import ScriptedSampler
from tests.unit.agents.test_memory_r1 import make_agent, session
from tests.unit.fakes import models_of

ANA = Dialogue("ana", ("Ana", "Ben"), (session(1, "I live in Rome."), session(2, "Hi.")))
BEN = Dialogue("ben", ("Ana", "Ben"), (session(1, "I live in Oslo."),))
TASKS = [
    Task(f"{dialogue.id}-{number}", f"question {number}?", dialogue, ("x",))
    for dialogue in (ANA, BEN)
    for number in range(3)
]


def reply(request: SamplingRequest) -> str:
    """Facts are the session's text, every fact is added, and the answer repeats what was retrieved."""
    prompt = request.messages[0].content
    head, _, rest = prompt.partition("\n")
    if head.startswith("EXTRACT"):
        return json.dumps({"facts": [rest.replace("\n", " ")]})
    if head.startswith("MANAGE"):
        return json.dumps({"operations": [{"op": "ADD", "text": prompt.split("NEW\n- ")[1]}]})
    return f"Memories: none\n\\boxed{{{len(rest.splitlines())} for {head}}}"


def collector(sampler: ScriptedSampler, *, share: bool = True, concurrency: int | None = None) -> Collector:
    return Collector(make_agent(), models_of(sampler), concurrency=concurrency, share_readings=share)


def modules(rollout: Rollout) -> list[str]:
    return [call.module for call in rollout.calls]


def kinds(sampler: ScriptedSampler) -> Counter[str]:
    return Counter(request.messages[0].content.split()[0] for request in sampler.requests)


def test_a_dialogue_is_read_once_for_each_repeat_and_charged_to_the_first_question() -> None:
    sampler = ScriptedSampler(reply)
    groups = collector(sampler).collect(TASKS, 2, "eval")
    assert kinds(sampler) == {"EXTRACT": 2 * 3, "MANAGE": 2 * 3, "ANSWER": 2 * 6}
    for place, group in enumerate(groups):
        for rollout in group:
            read = ["extractor", "manager"] * len(rollout.task.evidence.sessions)
            assert modules(rollout) == [*(read if place % 3 == 0 else []), "answerer"]
            assert rollout.outcome is not None
            assert len(rollout.outcome.memories) == (len(read) // 2 if place % 3 == 0 else 0)
            states = [(0, ""), *((2 * n, m) for n, m in enumerate(rollout.outcome.memories, start=1))]
            assert [(s.calls, s.text) for s in rollout.states] == (states if place % 3 == 0 else [])
            assert rollout.outcome.info["manager_calls"] == len(rollout.task.evidence.sessions)
    shared = [[rollout.outcome.reply for rollout in group] for group in groups]  # type: ignore[union-attr]
    alone = ScriptedSampler(reply)
    groups = collector(alone, share=False).collect(TASKS, 2, "eval")
    assert kinds(alone)["EXTRACT"] == 2 * 3 * 3
    assert shared == [[rollout.outcome.reply for rollout in group] for group in groups]  # type: ignore[union-attr]
    assert "2 for ANSWER question 0?" in shared[0][0] and "1 for ANSWER question 0?" in shared[3][0]


def test_working_off_jobs_shares_readings_too() -> None:
    sampler = ScriptedSampler(reply)
    done: list[Rollout] = []
    collector(sampler, concurrency=2).work_off([(task, 0) for task in TASKS], "eval", done.append)
    assert kinds(sampler)["EXTRACT"] == 3
    assert sorted(rollout.task.id for rollout in done) == [task.id for task in TASKS]
    assert sum(len(rollout.calls) for rollout in done) == len(sampler.requests)


def test_seeds_of_a_reading_do_not_depend_on_who_asks_first() -> None:
    def seeds(tasks: list[Task]) -> list[int]:
        sampler = ScriptedSampler(reply)
        collector(sampler).collect(tasks, 1, "eval")
        return [r.seed for r in sampler.requests if r.messages[0].content.startswith("EXTRACT")]

    whole = seeds(TASKS[:3])
    assert whole == seeds(TASKS[1:3]) and len(set(whole)) == 2
    assert whole != seeds(TASKS[3:])


def test_dialogues_are_read_side_by_side_though_all_first_rollouts_ask_about_one() -> None:
    active = most = 0

    class Slow(ScriptedSampler):
        async def sample(self, request):  # type: ignore[no-untyped-def]
            nonlocal active, most
            active += 1
            most = max(most, active)
            await asyncio.sleep(0)
            done = await super().sample(request)
            active -= 1
            return done

    sampler = Slow(reply)
    collector(sampler, concurrency=2).collect(TASKS, 1, "eval")
    first = [request.messages[0].content for request in sampler.requests[:2]]
    assert first == ["EXTRACT day 1\nAna: I live in Rome.", "EXTRACT day 1\nAna: I live in Oslo."]
    assert most == 2


@pytest.mark.parametrize("error", [TaskError("too long"), ServiceError("gone")])
def test_a_failed_reading_fails_all_its_questions_and_no_other(error: Exception) -> None:
    def failing(request: SamplingRequest) -> str:
        if "day 2" in request.messages[0].content:
            raise error
        return reply(request)

    sampler = ScriptedSampler(failing)
    groups = collector(sampler).collect(TASKS, 1, "eval")
    assert [rollout.error for [rollout] in groups] == [str(error)] * 3 + [None] * 3
    assert [rollout.lost for [rollout] in groups] == [isinstance(error, ServiceError)] * 3 + [False] * 3
    assert [modules(rollout) for [rollout] in groups[:3]] == [["extractor", "manager"], [], []]


def test_an_answer_leaves_the_reading_as_it_is() -> None:
    agent = make_agent()
    models = models_of(ScriptedSampler(reply))

    async def twice() -> list[object]:
        reading = await agent.read(ANA, models(phase="p", task=TASKS[0], index=0, calls=[]))
        outcomes = []
        for task in TASKS[:2]:
            outcomes.append(await agent.ask(task, reading, models(phase="p", task=task, index=0, calls=[])))
        return [outcome.info["format"]["answerer"] for outcome in outcomes] + [len(reading.bank)]

    assert asyncio.run(twice()) == [1.0, 1.0, 2]


def test_equal_ids_of_different_dialogues_are_not_mixed_up_and_texts_are_not_shared() -> None:
    other = Task("other", "q?", Dialogue("ana", ANA.speakers, BEN.sessions), ())
    text = Task("text", "q?", "a text", ())
    sampler = ScriptedSampler(reply)
    groups = collector(sampler).collect([TASKS[0], other, text], 1, "eval")
    assert kinds(sampler)["EXTRACT"] == 3
    assert "reads a dialogue" in (groups[2][0].error or "")


def test_a_bank_may_begin_with_the_agents_own_and_the_dialogues_memories() -> None:
    bank = InMemoryBank("hashing_for_tests-64", 64)
    bank.add("Known before.", embedding=[1.0] * 64)
    sampler = ScriptedSampler(reply)
    [[rollout]] = Collector(make_agent(bank=bank), models_of(sampler), share_readings=True).collect(
        TASKS[:1], 1, "eval"
    )
    assert rollout.outcome is not None and rollout.outcome.info["bank_size"] == 3
    assert len(bank) == 1
