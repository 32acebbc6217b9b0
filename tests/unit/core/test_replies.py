"""What of a reply is thought and what is answer, in the spellings of the usual model families."""

from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from memfactory.core.replies import NOTHING, NOTHING_AFTER, UNFINISHED, marks_among, opens_thought, part

ANSWERED = [
    ("<inner_monologue>x</inner_monologue>A", "A", "x"),
    ("<CoT>x</CoT>A", "A", "x"),
    ("<analysis>x</analysis>\nA", "A", "x"),
    ("<unused94>thought\nx<unused95>A", "A", "x"),
    ("<think>x<\\think>A", "A", "x"),
    ("Oslo. ", "Oslo. ", ""),
    ("<think>\nRome?\n</think>\n\nOslo", "Oslo", "Rome?"),
    ("<THINK type='long'>Rome?</THINK>Oslo", "Oslo", "Rome?"),
    ("<thinking>a <reflection>b</reflection> c</thinking> Oslo", "Oslo", "a b c"),
    ("Rome?</think>Oslo", "Oslo", "Rome?"),
    ("<think>\n<think>Rome?</think>Oslo", "Oslo", "Rome?"),
    ("<think>a<think>b</think>c</think>Oslo", "Oslo", "abc"),
    ("<think>a</think>Oslo<think>b</think>", "Oslo", "ab"),
    ("<think></think>Oslo", "Oslo", ""),
    ('<think>They wrote "</think>" here.</think>Oslo', "Oslo", 'They wrote "</think>" here.'),
    ("<seed:think>Rome?</seed:think>Oslo", "Oslo", "Rome?"),
    ("[THINK]Rome?[/THINK]Oslo", "Oslo", "Rome?"),
    ("\u25c1think\u25b7Rome?\u25c1/think\u25b7Oslo", "Oslo", "Rome?"),
    (
        "<|START_THINKING|>Rome?<|END_THINKING|><|START_RESPONSE|>Oslo<|END_RESPONSE|>",
        "Oslo",
        "Rome?",
    ),
    (
        "<|channel|>analysis<|message|>Rome?<|end|><|start|>assistant<|channel|>final<|message|>Oslo<|return|>",
        "Oslo",
        "Rome?",
    ),
    ("<|channel|>final<|message|>Oslo", "Oslo", ""),
    ("analysisThey ask.assistantfinalOslo", "Oslo", "They ask."),
    ("<|channel>thought\nRome?<channel|>Oslo", "Oslo", "Rome?"),
    ("Here is my thought process: Rome? Here is my response: Oslo", "Oslo", "Rome?"),
    ("He said '<think>' to me.", "He said '<think>' to me.", ""),
    ("List<Thought> thoughts;", "List<Thought> thoughts;", ""),
]
UNANSWERED = [
    ("<think>Rome? \\boxed{Rome}", UNFINISHED),
    ("Sure. <think>Rome? \\boxed{Rome}", UNFINISHED),
    ("<think>a</think>Oslo\n<think>b", UNFINISHED),
    ("<think>a<think>b</think>c", UNFINISHED),
    ("[THINK]Rome?", UNFINISHED),
    ("<|START_THINKING|>Rome?", UNFINISHED),
    ("<|channel|>analysis<|message|>Rome?", UNFINISHED),
    ("<|channel|>analysis<|message|>Rome?<|end|><|start|>assistant<|channel|>fin", UNFINISHED),
    ("analysisThey ask", UNFINISHED),
    ("Here's my thought process: Rome?", UNFINISHED),
    ("<thin", UNFINISHED),
    ("<think kind=", UNFINISHED),
    ("<think>Rome?</think>\n", NOTHING_AFTER),
]


@pytest.mark.parametrize(("text", "answer", "thought"), ANSWERED)
def test_thought_and_answer(text: str, answer: str, thought: str) -> None:
    found = part(text)
    assert (found.answer, found.thought, found.problem) == (answer, thought, "")
    assert part(answer).answer == answer


@pytest.mark.parametrize(("text", "problem"), UNANSWERED)
def test_no_answer(text: str, problem: str) -> None:
    found = part(text)
    assert (found.answer, found.problem) == (None, problem)


def test_a_thought_that_the_prompt_opened() -> None:
    assert part("Rome? \\boxed{Rome}", opened=True).problem == UNFINISHED
    assert part("Rome?</think>Oslo", opened=True).answer == "Oslo"
    assert part("<think>Rome?</think>Oslo", opened=True).answer == "Oslo"
    assert opens_thought("<|im_end|>\n<|im_start|>assistant\n<think>\n")
    assert not opens_thought("<|im_start|>assistant\n<think>\n\n</think>\n\n")
    assert not opens_thought("<|end|><|start|>assistant")


def test_a_thought_that_a_server_tells_apart() -> None:
    assert part("", reasoning="Rome?", cut=True).problem == UNFINISHED
    assert part("", reasoning="Rome?", cut=False).problem == NOTHING_AFTER
    assert part("", cut=True).problem == NOTHING
    assert part("", cut=False).answer == ""
    found = part("Oslo", reasoning="Rome?")
    assert (found.answer, found.thought) == ("Oslo", "Rome?")


def test_a_mark_that_a_model_speaks_of_and_that_nothing_closes() -> None:
    text = "She wrote about the <think> tag of models."
    assert part(text, cut=False).answer == text
    assert part(text, cut=True).problem == part(text).problem == UNFINISHED
    assert part("Done.\n<think>\nRome", cut=False).problem == UNFINISHED


def test_tokens_that_mark_a_thought() -> None:
    tokens = [
        "<think>",
        "</think>",
        "[/THINK]",
        "<|END_THINKING|>",
        "<|im_end|>",
        "<tool_call>",
        "think",
        "<|end|>",
    ]
    assert marks_among(tokens) == set(tokens[:4])
    assert marks_among(["<|channel|>", "<|end|>", "<|im_end|>"]) == {"<|channel|>", "<|end|>"}


PIECES = [
    "<think>",
    "</think>",
    "[THINK]",
    "<|channel|>",
    "final",
    "<|message|>",
    "\n",
    '"',
    "a b",
    "<",
    "</",
]


@given(st.one_of(st.text(), st.lists(st.sampled_from(PIECES)).map("".join)), st.booleans(), st.booleans())
def test_no_reply_raises_and_an_answer_is_its_own_answer(text: str, opened: bool, cut: bool) -> None:
    found = part(text, opened=opened, cut=cut)
    assert (found.answer is None) == (found.problem != "")


@pytest.mark.parametrize(
    "piece", ["<think>", "</think>", "<think ", "<", "< ", "<|channel|>a<|message|>", "a <think> "]
)
def test_time_grows_with_the_length_only(piece: str) -> None:
    began = time.process_time()
    part(piece * (400_000 // len(piece)), cut=False)
    assert time.process_time() - began < 20  # a second at most; what grows with the square takes minutes
