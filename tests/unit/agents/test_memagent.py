"""MemAgent: what each call sees, what is carried on, and the odd texts and questions."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from memfactory.agents.memagent import MemAgent
from memfactory.core.errors import BadInput, TaskError
from memfactory.core.types import Call, Message, Outcome, Task
from memfactory.modules.answerers import DirectAnswerer
from memfactory.modules.recurrent import RewriteMemory

PROMPTS = {
    "update": "Q={question}|M={memory}|B={block}",
    "answer": "Q={question}|M={memory}",
    "empty_memory": "nothing yet",
}


class Model:
    """Counts characters as tokens and replies from a list."""

    def __init__(self, replies: Sequence[str]) -> None:
        self.replies = list(replies)
        self.asked: list[tuple[str, str, int]] = []

    async def chat(self, messages: Sequence[Message], *, module: str, max_tokens: int) -> Call:
        assert len(messages) == 1, "calls are independent conversations"
        self.asked.append((module, messages[0].content, max_tokens))
        text = self.replies[len(self.asked) - 1]
        return Call(module, "policy", (1,), (2,), (-0.1,), text, "stop", 0, True)

    def tokens_left(self, messages: Sequence[Message], *, max_tokens: int) -> int:
        return 1_000_000

    def count_tokens(self, text: str) -> int:
        return len(text)

    def split_text(self, text: str, block_tokens: int) -> list[str]:
        return [text[i : i + block_tokens] for i in range(0, len(text), block_tokens)]

    def truncate_text(self, text: str, max_tokens: int) -> str:
        return text[:max_tokens]


class Models:
    def __init__(self, model: Model) -> None:
        self.model = model
        self.reports: list[tuple[int, int, str | None]] = []

    def __getitem__(self, role: str) -> Model:
        assert role == "policy"
        return self.model

    def report(self, done: int, total: int, memory: str | None = None) -> None:
        self.reports.append((done, total, memory))


def read(
    evidence: object, question: str, replies: Sequence[str], **changes: object
) -> tuple[Outcome, Models]:
    settings = {"block_tokens": 10, "memory_tokens": 7, "answer_tokens": 5, "max_blocks": None} | changes
    settings = {"memory": RewriteMemory(PROMPTS), "answerer": DirectAnswerer(PROMPTS)} | settings
    agent = MemAgent(**settings)  # type: ignore[arg-type]
    models = Models(Model(replies))
    outcome = asyncio.run(agent(Task("t", question, evidence), models))
    return outcome, models


def test_memory_goes_from_block_to_block_and_the_last_call_sees_no_text() -> None:
    outcome, models = read("aaaaaaaaaabbbbbbbbbbcc", "who?", ["m1", "m2", "m3", r"\boxed{x}"])
    assert models.model.asked == [
        ("update", "Q=who?|M=nothing yet|B=aaaaaaaaaa", 7),
        ("update", "Q=who?|M=m1|B=bbbbbbbbbb", 7),
        ("update", "Q=who?|M=m2|B=cc", 7),
        ("answer", "Q=who?|M=m3", 5),
    ]
    assert outcome == Outcome(reply=r"\boxed{x}", memories=("m1", "m2", "m3"))
    assert models.reports == [(0, 3, "nothing yet"), (1, 3, "m1"), (2, 3, "m2"), (3, 3, "m3")]


def test_a_text_shorter_than_a_block_is_one_block() -> None:
    _, models = read("abc", "q", ["m", "a"])
    assert [module for module, _, _ in models.model.asked] == ["update", "answer"]


def test_an_empty_text_is_answered_from_the_empty_memory() -> None:
    outcome, models = read("", "q", ["a"])
    assert models.model.asked == [("answer", "Q=q|M=nothing yet", 5)]
    assert outcome.memories == ()


def test_a_question_longer_than_a_block_is_refused_by_name_and_number() -> None:
    with pytest.raises(TaskError, match=r"task 't'.* 11 tokens.*agent.block_tokens=10"):
        read("abc", "q" * 11, [])


def test_more_blocks_than_allowed_are_refused() -> None:
    with pytest.raises(TaskError, match="3 blocks"):
        read("a" * 30, "q", [], max_blocks=2)


def test_evidence_that_is_no_text_is_refused() -> None:
    with pytest.raises(TaskError, match="list"):
        read(["a"], "q", [])


@given(st.text(max_size=30), st.text(max_size=9), st.text(max_size=20))
def test_no_text_question_or_reply_breaks_or_injects(text: str, question: str, reply: str) -> None:
    outcome, models = read(text, question, [reply] * 5)
    assert outcome.reply == reply
    for module, prompt, _ in models.model.asked:
        assert prompt.startswith(f"Q={question}|M=")
        if module == "update":
            assert any(prompt.endswith(f"|B={text[i : i + 10]}") for i in range(0, len(text), 10))


@pytest.mark.parametrize(
    ("prompts", "named"),
    [({}, "prompts.update"), ({**PROMPTS, "update": "{question} {memory}"}, "{block}")],
)
def test_prompts_without_what_they_need_are_refused(prompts: dict[str, str], named: str) -> None:
    with pytest.raises(BadInput, match=named):
        RewriteMemory(prompts)


def test_a_thought_is_no_memory_and_an_unfinished_one_leaves_the_memory_as_it_was() -> None:
    replies = ["<think>hm</think>\n<mem>m1</mem>", "<think>drop m1", r"<think>\boxed{x}"]
    prompts = {**PROMPTS, "update": "Q={question}|<mem>{memory}</mem>|B={block}"}
    outcome, models = read("aaaaaaaaaabbb", "who?", replies, memory=RewriteMemory(prompts))
    assert outcome.memories == ("m1", "m1")
    assert [prompt for _, prompt, _ in models.model.asked][1:] == [
        "Q=who?|<mem>m1</mem>|B=bbb",
        "Q=who?|M=m1",
    ]
    assert outcome.reply == ""
