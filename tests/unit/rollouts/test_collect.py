"""Running agents: fixed order, bounded concurrency, which errors are recorded and which come out."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from memfactory.agents.memagent import MemAgent
from memfactory.core.chat import Models
from memfactory.core.errors import BadInput, ServiceError, TaskError
from memfactory.core.types import Completion, Message, Outcome, Rollout, Task
from memfactory.evaluation.runner import evaluate_set, predict
from memfactory.inference.reading import result_of
from memfactory.modules.answerers import DirectAnswerer
from memfactory.modules.recurrent import RewriteMemory
from memfactory.rewards.answer import F1, ExactMatch
from memfactory.rewards.format import Boxed
from memfactory.rewards.rubric import RewardComponent, Rubric
from memfactory.rollouts.collect import Collector
from memfactory.samplers.scripted import ScriptedSampler
from memfactory.training.credit import assign_credit
from memfactory.training.rollout_metrics import rollout_metrics, rollout_record
from tests.unit.fakes import models_of, task

PROMPTS = {
    "update": "{question}|{memory}|{block}",
    "answer": "{question}|{memory}",
    "empty_memory": "none",
}


async def ask(task: Task, models: Models) -> Outcome:
    call = await models["policy"].chat([Message("user", task.id)], module="answer", max_tokens=99)
    return Outcome(reply=call.text)


def collector(agent: Any, replies: Any = ("yes",), **options: Any) -> tuple[Collector, ScriptedSampler]:
    sampler = ScriptedSampler(replies)
    return Collector(agent, models_of(sampler), **options), sampler


def test_groups_come_back_in_order_with_copies_numbered() -> None:
    run, sampler = collector(ask)
    groups = run.collect([task("a"), task("b")], 3, "train-0")
    assert [[(r.task.id, r.index) for r in group] for group in groups] == [
        [("a", 0), ("a", 1), ("a", 2)],
        [("b", 0), ("b", 1), ("b", 2)],
    ]
    assert len({request.seed for request in sampler.requests}) == 6


def test_requests_reach_the_sampler_in_the_same_order_with_the_same_seeds() -> None:
    def requests(phase: str) -> Any:
        run, sampler = collector(ask)
        run.collect([task(name) for name in "abcd"], 2, phase)
        return sampler.requests

    assert requests("train-0") == requests("train-0")
    assert [r.seed for r in requests("train-0")] != [r.seed for r in requests("train-1")]


@pytest.mark.parametrize(("limit", "most"), [(1, 1), (3, 3), (None, 8)])
def test_no_more_rollouts_are_in_flight_than_allowed(limit: int | None, most: int) -> None:
    running, peak = 0, 0

    async def agent(task: Task, models: Models) -> Outcome:
        nonlocal running, peak
        running += 1
        peak = max(peak, running)
        for _ in range(5):
            await asyncio.sleep(0)
        running -= 1
        return Outcome(reply="")

    run, _ = collector(agent, concurrency=limit)
    done: list[Rollout] = []
    run.collect([task(str(i)) for i in range(4)], 2, "eval", done.append)
    assert peak == most
    assert len(done) == 8


@pytest.mark.parametrize("kind", [TaskError, ServiceError])
def test_tasks_and_services_that_fail_are_recorded_with_the_calls_made_so_far(kind: Any) -> None:
    async def agent(task: Task, models: Models) -> Outcome:
        outcome = await ask(task, models)
        if task.id == "bad":
            raise kind("no luck")
        return outcome

    run, _ = collector(agent)
    (bad,), (good,) = run.collect([task("bad"), task("good")], 1, "eval")
    assert bad.error == "no luck" and bad.outcome is None and len(bad.calls) == 1
    assert good.error is None and good.outcome == Outcome(reply="yes")


def test_a_scorer_that_fails_loses_the_rollout_and_there_is_no_score() -> None:
    async def score(rollout: Rollout) -> dict[str, float]:
        raise ServiceError("judge gone")

    run, _ = collector(ask, ["gold"], score=score)
    with pytest.raises(ServiceError, match="judge gone"):
        evaluate_set(run, "s", [task()], repeats=1, phase="eval")


@pytest.mark.parametrize("error", [RuntimeError("bug"), BadInput("no such role"), ZeroDivisionError()])
def test_everything_else_comes_out_as_it_was_raised(error: Exception) -> None:
    async def agent(task: Task, models: Models) -> Outcome:
        raise error

    run, _ = collector(agent)
    with pytest.raises(type(error)) as caught:
        run.collect([task(str(i)) for i in range(3)], 4, "eval")
    assert caught.value is error


def test_a_bug_stops_the_rollouts_that_are_still_running() -> None:
    finished = []

    async def agent(task: Task, models: Models) -> Outcome:
        if task.id == "bug":
            raise RuntimeError("bug")
        await asyncio.sleep(30)
        finished.append(task.id)
        return Outcome(reply="")

    run, _ = collector(agent)
    with pytest.raises(RuntimeError):
        run.collect([task("a"), task("bug"), task("b")], 1, "eval")
    assert finished == []


# --- untrusted replies ---------------------------------------------------------------------------


def check_anything_goes(replies: list[Any], evidence: str = "some text to read, in blocks") -> None:
    """Replies go through agent, rewards, metrics, credit, records and results without raising."""
    rubric = Rubric(
        {
            name: RewardComponent(reward)
            for name, reward in (("em", ExactMatch()), ("f1", F1()), ("box", Boxed()))
        }
    )
    agent = MemAgent(16, 64, 64, None, RewriteMemory(PROMPTS), DirectAnswerer(PROMPTS))
    run, _ = collector(agent, replies, score=rubric.score)
    groups = run.collect([task("t", ("gold", "\\frac{1}{2}"), evidence)], 2, "train-0")
    credit = assign_credit(groups, rubric, "grpo", drop_zero_variance=False)
    metrics = rollout_metrics(credit, rubric)
    assert metrics["rollouts/failed"] == 0
    assert 0 <= metrics["calls/truncated"] <= 1
    assert metrics["calls"] == len([c for r in credit.rollouts for c in r.calls])
    assert metrics["calls/untrainable"] + len(credit.rows) <= metrics["calls"]
    for rollout, advantages in zip(credit.rollouts, credit.advantages, strict=True):
        assert set(rollout.rewards) == {"em", "f1", "box"}
        assert all(0 <= value <= 1 for value in rollout.rewards.values())
        prediction = predict(rollout)
        assert all(0 <= value <= 1 for value in prediction.scores.values())
        assert rollout_record(rollout, advantages, 0.0)["reply"] == prediction.finished.reply
        assert result_of(rollout, memories=True)["reply"] == prediction.finished.reply


wild_text = st.one_of(
    st.text(alphabet=st.characters(), max_size=300),
    st.text(alphabet="\\boxed{} \n\u0000gold", max_size=200),
)
wild_completion = st.builds(
    lambda ids, text, reason, sure: Completion(
        tuple(ids), (-1.0,) * len(ids) if sure else (), reason, text=text
    ),
    st.lists(st.integers(0, 300), max_size=40),
    st.none() | st.text(alphabet=st.characters(), max_size=100),
    st.sampled_from(["stop", "length", "error"]),
    st.booleans(),
)


@settings(max_examples=150, deadline=None)
@given(st.lists(wild_text | wild_completion, min_size=1, max_size=6))
def test_no_reply_ever_raises(replies: list[Any]) -> None:
    check_anything_goes(replies)


@pytest.mark.parametrize(
    "reply",
    [
        "",
        "\\boxed{",
        "\\boxed{" * 100_000,
        "}" * 100_000 + "\\boxed{gold}",
        "\\boxed{\\boxed{gold}{{x}}",
        "{" * 500_000 + "}" * 500_000,
        "gold " * 200_000,
        "\ud800\udfff \ufffd",
        Completion((255, 254, 128, 0x110000 % 256), (-1.0,) * 4, "length"),
    ],
    ids=["empty", "open", "open*1e5", "closed", "nested", "braces", "megabyte", "surrogates", "bad bytes"],
)
def test_extreme_replies(reply: Any) -> None:
    given_as = (
        reply if isinstance(reply, Completion) else Completion((1, 2), (-1.0, -1.0), "stop", text=reply)
    )
    check_anything_goes(["memory", "memory", given_as])


def test_a_megabyte_is_scored_in_reasonable_time() -> None:
    import time

    for text in ("la " * 350_000, "\\boxed{" * 150_000, "{" * 10**6, "gold " * 200_000):
        start = time.perf_counter()
        predict(Rollout(task(), 0, [], Outcome(reply=text), {}, None))
        assert time.perf_counter() - start < 5
