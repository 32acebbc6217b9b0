"""The judge reward against a small server: verdicts, failures that leave an answer unjudged, the cache."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from memfactory.core.errors import BadInput, DiskError
from memfactory.core.types import Outcome, Rollout, Task, Verdict
from memfactory.rewards.judge import Judge, JudgeConfig, read_verdict
from memfactory.rewards.rubric import RewardComponent, Rubric
from tests.openai_server import Server, reply, serving, thinking

PROMPT = "Q={question} G={gold} A={answer}"


@pytest.fixture
def server() -> Iterator[Server]:
    with serving() as server:
        yield server


@pytest.fixture
def judge(server: Server, tmp_path: Path) -> Judge:
    return make(server, tmp_path)


def make(server: Server, folder: Path, **fields: Any) -> Judge:
    return Judge(
        "gpt-x", PROMPT, base_url=server.url, cache=str(folder / "judge"), **{"max_retries": 1, **fields}
    )


def rollout(text: str | None = "\\boxed{in Paris}", golds: tuple[str, ...] = ("Paris",)) -> Rollout:
    outcome = None if text is None else Outcome(text)
    return Rollout(Task("t", "where {answer}?", "e", golds), 0, outcome=outcome)


def ask(judge: Judge, *rollouts: Rollout) -> list[Verdict | None]:
    async def main() -> list[Verdict | None]:
        return await asyncio.gather(*(judge(r) for r in rollouts))

    return asyncio.run(main())


def test_right_and_wrong_with_the_judges_name_and_words(server: Server, judge: Judge) -> None:
    server.script = [reply("It is the same.\nCORRECT"), reply("WRONG")]
    assert ask(judge, rollout()) == [Verdict("gpt-x", 1.0, "It is the same.\nCORRECT")]
    assert ask(judge, rollout("no box, Rome", ("Paris", "the capital"))) == [Verdict("gpt-x", 0.0, "WRONG")]
    first, second = server.bodies
    # The boxed answer, or the whole reply; nothing that a question holds is filled in again.
    assert first["messages"] == [{"role": "user", "content": "Q=where {answer}? G=Paris A=in Paris"}]
    assert second["messages"][0]["content"] == "Q=where {answer}? G=Paris or the capital A=no box, Rome"
    assert (first["model"], first["temperature"], first["max_tokens"]) == ("gpt-x", 0.0, 256)


def test_nothing_to_judge(server: Server, judge: Judge) -> None:
    failed = rollout(None)
    assert ask(judge, rollout(golds=()), failed) == [None, Verdict("gpt-x", 0.0, "there is no answer")]
    assert server.bodies == []


@pytest.mark.parametrize(
    ("script", "said"),
    [
        ([reply("I cannot say.")], "gave no chat completion: the judge says neither CORRECT nor WRONG"),
        ([(200, b"<html>")], "gave no chat completion: "),
        ([500], "answered 500: "),
        ([401], "answered 401: "),
        ([(400, {"error": {"message": "maximum context length is 10"}})], "context length is 10"),
    ],
)
def test_what_fails_after_the_retries_is_unjudged(
    server: Server, judge: Judge, script: list[Any], said: str
) -> None:
    server.script = script
    (verdict,) = ask(judge, rollout())
    assert verdict is not None and verdict.value is None and said in verdict.said
    assert len(server.bodies) == (1 if script[0] in (401,) or "context" in said else 2)
    # Nothing of it is kept: once the judge is well again, it is asked again.
    server.script = [reply("CORRECT")]
    assert ask(judge, rollout()) == [Verdict("gpt-x", 1.0, "CORRECT")]


def test_a_judge_that_does_not_answer_in_time(server: Server, tmp_path: Path) -> None:
    server.delay = 0.5
    (verdict,) = ask(make(server, tmp_path, max_retries=0, timeout_s=0.1), rollout())
    assert verdict is not None and verdict.value is None and "gave no answer within 0.1 s" in verdict.said


@pytest.mark.parametrize("trouble", [429, 503, reply("hm"), (200, b"{")])
def test_trouble_that_passes_is_not_seen(server: Server, judge: Judge, trouble: Any) -> None:
    server.script = [trouble, reply("CORRECT")]
    assert ask(judge, rollout()) == [Verdict("gpt-x", 1.0, "CORRECT")]
    assert len(server.bodies) == 2


def test_what_was_asked_is_not_asked_again(server: Server, judge: Judge, tmp_path: Path) -> None:
    server.script, server.delay = [reply("CORRECT")], 0.05
    same = [rollout() for _ in range(8)]
    assert ask(judge, *same) == [Verdict("gpt-x", 1.0, "CORRECT")] * 8
    assert len(server.bodies) == 1  # though all eight were under way at once
    assert ask(make(server, tmp_path), rollout()) == [Verdict("gpt-x", 1.0, "CORRECT")]  # another process
    assert len(server.bodies) == 1
    ask(make(server, tmp_path, right="RIGHT", max_retries=0), rollout())
    ask(make(server, tmp_path, max_tokens=9), rollout())
    ask(judge, rollout("\\boxed{Rome}"))
    assert len(server.bodies) == 4  # another question each


@pytest.mark.parametrize("left", [b"", b"{", b"[]", b'{"reply": 3}', b'{"reply": "hm"}', b"\xff"])
def test_a_cache_file_that_a_crash_left_is_replaced(
    server: Server, judge: Judge, tmp_path: Path, left: bytes
) -> None:
    server.script = [reply("WRONG")]
    ask(judge, rollout())
    [path] = (tmp_path / "judge").rglob("*.json")
    path.write_bytes(left)
    assert ask(judge, rollout()) == [Verdict("gpt-x", 0.0, "WRONG")]
    assert json.loads(path.read_text()) == {"judge": "gpt-x", "reply": "WRONG"}
    assert ask(judge, rollout()) == [Verdict("gpt-x", 0.0, "WRONG")] and len(server.bodies) == 2
    assert not list((tmp_path / "judge").rglob("*.partial"))


def test_a_cache_that_cannot_be_written_is_told(server: Server, tmp_path: Path) -> None:
    (tmp_path / "judge").write_text("a file")
    server.script = [reply("CORRECT")]
    with pytest.raises(DiskError, match="judge"):
        ask(make(server, tmp_path), rollout())


def test_no_more_questions_at_once_than_allowed(server: Server, tmp_path: Path) -> None:
    server.script, server.delay = [reply("CORRECT")], 0.02
    ask(make(server, tmp_path, max_concurrency=3), *(rollout(f"answer {n}") for n in range(12)))
    assert len(server.bodies) == 12 and 2 <= server.most_busy <= 3


def test_an_endless_answer_is_cut(server: Server, judge: Judge) -> None:
    server.script = [reply("WRONG")]
    ask(judge, rollout("x" * 100_000))
    assert len(server.bodies[0]["messages"][0]["content"]) < 9000


@pytest.mark.parametrize(
    ("said", "value"),
    [
        ("CORRECT", 1.0),
        ("wrong? No: WRONG.", 0.0),
        ('{"label": "CORRECT"}', 1.0),
        ("It is not WRONG, it is\n**CORRECT**", 1.0),
        ("CORRECT would be Paris, so: WRONG", None),
        ("WRONG or CORRECT, who knows", None),
        ("INCORRECT", None),
        ("that is correct", None),  # a word in capitals counts as it stands: this may be "not correct"
        ("", None),
    ],
)
def test_what_a_reply_says(said: str, value: float | None) -> None:
    assert read_verdict(said, "CORRECT", "WRONG") == value


@pytest.mark.parametrize(
    ("said", "value"),
    [("Yes.", 1.0), ("NO", 0.0), ("There is no doubt: yes", 1.0), ("know, yesterday", None)],
)
def test_yes_and_no(said: str, value: float | None) -> None:
    assert read_verdict(said, "yes", "no") == value


@given(st.text())
def test_wild_replies_never_raise(said: str) -> None:
    assert read_verdict(said, "yes", "no") in (0.0, 1.0, None)
    assert read_verdict(said + "\nYES", "YES", "(NO|") in (1.0, None)


def test_the_rubric_notes_who_judged_and_leaves_out_what_was_not(server: Server, judge: Judge) -> None:
    rubric = Rubric({"judge": RewardComponent(judge)})
    server.script = [reply("CORRECT"), 401]
    good, bad = rollout(), rollout("\\boxed{Rome}")
    assert asyncio.run(rubric.score(good)) == {"judge": 1.0} and rubric.unjudged(good) == []
    assert asyncio.run(rubric.score(bad)) == {} and rubric.unjudged(bad) == ["judge"]
    assert bad.verdicts["judge"].judge == "gpt-x"


def test_bad_settings() -> None:
    with pytest.raises(ValueError, match=r"prompt does not contain \{answer\}"):
        JudgeConfig("m", "{question} {gold}")
    with pytest.raises(ValueError, match="right and wrong"):
        JudgeConfig("m", PROMPT, right="yes", wrong="YES")


def test_openais_own_server_needs_a_key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OPENAI_BASE_URL", raising=False)
    monkeypatch.delenv("MY_KEY", raising=False)
    with pytest.raises(BadInput, match="gpt-x needs a key in the environment variable MY_KEY"):
        Judge("gpt-x", PROMPT, api_key_env="MY_KEY")
    monkeypatch.setenv("OPENAI_BASE_URL", "http://127.0.0.1:9/v1")
    Judge("gpt-x", PROMPT, api_key_env="MY_KEY")


CUT_THOUGHT = "<think>\nAn answer is CORRECT only if it names the city. The answer says"


@pytest.mark.parametrize(
    ("said", "why"),
    [
        (reply(CUT_THOUGHT, finish_reason="length"), "the thought was not finished"),
        (reply("The gold is Rome. An answer is CORRECT only if", finish_reason="length"), "cut off before"),
        (reply("<think>It could be CORRECT.</think> label: wrong"), "neither CORRECT nor WRONG"),
        (thinking("An answer is CORRECT only if", None, "length"), "the thought was not finished"),
        (thinking("It is CORRECT.", ""), "nothing was said after the thought"),
    ],
)
def test_no_verdict_comes_out_of_a_thought(
    server: Server, judge: Judge, tmp_path: Path, said: dict[str, Any], why: str
) -> None:
    server.script = [said]
    [verdict] = ask(judge, rollout("\\boxed{Oslo}"))
    assert verdict is not None and verdict.value is None and why in verdict.said
    assert len(server.bodies) == 2, "it is asked again"
    assert not list((tmp_path / "judge").rglob("*.json"))


def test_a_verdict_behind_a_thought_counts_and_one_kept_from_a_thought_does_not(
    server: Server, judge: Judge, tmp_path: Path
) -> None:
    server.script = [reply("<think>Is it CORRECT?</think>\nWRONG"), thinking("Is it WRONG?", "CORRECT")]
    assert ask(judge, rollout("\\boxed{Oslo}")) == [Verdict("gpt-x", 0.0, "WRONG")]
    [kept] = (tmp_path / "judge").rglob("*.json")
    kept.write_text(json.dumps({"judge": "gpt-x", "reply": CUT_THOUGHT}))
    assert ask(judge, rollout("\\boxed{Oslo}")) == [Verdict("gpt-x", 1.0, "CORRECT")]


def test_options_of_the_chat_template_reach_a_judge_that_has_one(server: Server, tmp_path: Path) -> None:
    server.script = [reply("CORRECT")]
    options = {"enable_thinking": False}
    ask(make(server, tmp_path, chat_template_kwargs=options), rollout())
    ask(make(server, tmp_path / "other"), rollout())
    assert [body.get("chat_template_kwargs") for body in server.bodies] == [options, None]


def test_an_answer_is_judged_without_the_thought_before_it(server: Server, judge: Judge) -> None:
    server.script = [reply("CORRECT")]
    ask(judge, rollout("<think>Rome, \\boxed{Rome}?</think>It is Paris."))
    assert server.bodies[0]["messages"][0]["content"].endswith("A=It is Paris.")
