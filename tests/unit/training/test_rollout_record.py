"""What is kept of a rollout as text: memory by calls, advantages by calls, values that JSON can hold."""

from __future__ import annotations

import json
import math
from typing import Any

from memfactory.agents.memagent import MemAgent
from memfactory.core.chat import Models
from memfactory.core.texts import cut
from memfactory.core.types import Completion, Message, Outcome, Task
from memfactory.modules.answerers import DirectAnswerer
from memfactory.modules.recurrent import RewriteMemory
from memfactory.rollouts.collect import Collector
from memfactory.samplers.scripted import ScriptedSampler
from memfactory.training.rollout_metrics import plain, rollout_record
from tests.unit.fakes import models_of, task

PROMPTS = {"update": "{question}|{memory}|{block}", "answer": "{question}|{memory}", "empty_memory": "none"}


def record_of(agent: Any, replies: list[Any], advantages: dict[str, float] | None = None) -> dict[str, Any]:
    run = Collector(agent, models_of(ScriptedSampler(replies)))
    [[rollout]] = run.collect([task(evidence="0123456789abcdef")], 1, "train-0")
    return rollout_record(rollout, advantages or {}, 1.0, group=3)


async def silent(task: Task, models: Models) -> Outcome:
    """Reports nothing; says at the end what its memory held."""
    chat = models["policy"].chat
    for word in ("one", "two"):
        await chat([Message("user", word)], module="update", max_tokens=9)
    await chat([Message("user", "check")], module="check", max_tokens=9)
    call = await chat([Message("user", "end")], module="answer", max_tokens=9)
    return Outcome(call.text, memories=("first", "second"), info={"operations": {"ADD": 2}, "odd": {1, 2}})


def test_each_call_has_the_memory_it_left_and_its_advantage() -> None:
    agent = MemAgent(8, 64, 64, None, RewriteMemory(PROMPTS), DirectAnswerer(PROMPTS))
    record = record_of(agent, ["m1", "m2", "done"], {"update": 0.5})
    assert (record["group"], record["memory"]) == (3, "none")
    assert [(c["module"], c["reply"], c.get("memory"), c.get("advantage")) for c in record["calls"]] == [
        ("update", "m1", "m1", 0.5),
        ("update", "m2", "m2", 0.5),
        ("answer", "done", None, None),  # its group did not differ in what pays the answer
    ]


def test_memories_of_an_agent_that_reports_none_belong_to_the_module_that_made_as_many_calls() -> None:
    record = record_of(silent, ["a"])
    assert [c.get("memory") for c in record["calls"]] == ["first", "second", None, None]
    assert record["memory"] is None
    assert record["info"] == {"operations": {"ADD": 2}, "odd": [1, 2]}


def test_calls_without_log_probabilities_have_no_advantage() -> None:
    replies = [Completion((7,), (), "stop", text="x")]
    record = record_of(silent, replies, {"update": 1.0, "check": 1.0, "answer": 1.0})
    assert all("advantage" not in call for call in record["calls"])


def test_long_prompts_of_copies_are_cut_in_the_middle_and_say_so() -> None:
    assert cut("0123456789", 10) == "0123456789"
    assert cut("0123456789", 4) == "01\n[… 6 characters left out …]\n89"
    assert cut("0123456789", 0) == "\n[… 10 characters left out …]\n"


def test_anything_becomes_plain() -> None:
    value = {1: math.nan, "a": (1, 2.5), "b": {"c": None}, "d": object, "e": True}
    assert plain(value) == {"1": None, "a": [1, 2.5], "b": {"c": None}, "d": str(object), "e": True}
    json.dumps(plain(value), allow_nan=False)
