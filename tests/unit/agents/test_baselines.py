"""Baselines: which text each one reads, that it fits the context, and what is refused."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.unit.fakes import models_of

from memfactory.agents.baselines import GAP, FullContext, NoMemory, Oracle, RagBm25, RagEmbedding
from memfactory.core.errors import BadInput, TaskError
from memfactory.core.types import Call, Outcome, Task
from memfactory.memory.embedders import HashingEmbedder
from memfactory.recipe.build import build_agent
from memfactory.recipe.load import load_recipe
from memfactory.samplers.scripted import ScriptedSampler

PROMPTS = {"answer_from_text": "T={text}|Q={question}", "answer_without_text": "Q={question}"}
AROUND = len("user: T=|Q=who?\n")  # what the fake models' chat puts around the text, in bytes
CHUNKS = ["The dog barked all. ", "A violin was played.", "It rained and so on.", "The cat then slept. "]


def ask(agent: Any, task: Task, context: int = 1000) -> tuple[Outcome, list[Call]]:
    """The outcome, and the calls; a token is a byte."""
    calls: list[Call] = []
    make = models_of(ScriptedSampler(["\\boxed{x}"], max_model_len=context))
    outcome = asyncio.run(agent(task, make(phase="p", task=task, index=0, calls=calls)))
    return outcome, calls


def text_read(agent: Any, evidence: Any, question: str = "who?", context: int = 1000, **meta: Any) -> str:
    """What stood in the place of the text in the one call."""
    outcome, [call] = ask(agent, Task("t", question, evidence, meta=meta), context)
    assert (outcome.reply, call.module, call.role) == ("\\boxed{x}", "answer", "policy")
    head, _, tail = call.prompt_text.rpartition("|Q=")
    assert head.startswith("T=") and tail == question
    return head[2:]


def test_no_memory_sees_the_question_only() -> None:
    _, [call] = ask(NoMemory(9, PROMPTS), Task("t", "who?", "secret"))
    assert call.prompt_text == "Q=who?"
    assert ask(NoMemory(9, PROMPTS), Task("t", "who?", [1]))[0].reply == "\\boxed{x}"


def test_full_context_reads_a_text_that_fits_as_it_is() -> None:
    text = "a" * 50
    assert text_read(FullContext(10, PROMPTS), text, context=50 + 10 + AROUND) == text
    assert text_read(FullContext(10, PROMPTS), "") == ""


def test_full_context_cuts_the_middle_out_and_fills_the_context() -> None:
    text = "".join(chr(ord("a") + i % 26) for i in range(300))
    read = text_read(FullContext(10, PROMPTS), text, context=100 + 10 + AROUND)
    assert len(read) == 100
    head, tail = read.split(GAP)
    assert text.startswith(head) and text.endswith(tail) and abs(len(head) - len(tail)) <= 1


@given(st.text(max_size=80), st.integers(40, 120))
def test_full_context_fits_or_refuses_whatever_the_text(text: str, context: int) -> None:
    try:
        read = text_read(FullContext(10, PROMPTS), text, context=context)
    except TaskError:
        assert AROUND + 10 + len(text.encode(errors="replace")) > context
    else:
        assert read == text or GAP in read


def test_full_context_refuses_a_question_that_fills_the_context() -> None:
    with pytest.raises(TaskError, match=r"task 't'.*agent\.answer_tokens=10"):
        text_read(FullContext(10, PROMPTS), "a text", context=AROUND + 5)


def rag(kind: type, top_k: int = 2) -> Any:
    more = {"embedder": HashingEmbedder(256)} if kind is RagEmbedding else {}
    return kind(answer_tokens=9, chunk_tokens=20, top_k=top_k, prompts=PROMPTS, **more)


@pytest.mark.parametrize("kind", [RagBm25, RagEmbedding])
def test_retrieval_reads_the_best_chunks_in_the_order_of_the_text(kind: type) -> None:
    text = "".join(CHUNKS)
    question = "The cat then slept. The dog barked all. Who played the violin?"
    assert text_read(rag(kind), text, "The cat then slept and dog barked?") == CHUNKS[0] + GAP + CHUNKS[3]
    assert CHUNKS[1] in text_read(rag(kind, 1), text, "A violin was played by whom?")
    assert text_read(rag(kind, 3), text, question) == CHUNKS[0] + CHUNKS[1] + GAP + CHUNKS[3]
    assert text_read(rag(kind, 4), text, question) == text
    assert text_read(rag(kind), "", question) == ""


def test_bm25_takes_the_beginning_when_no_word_is_shared() -> None:
    assert text_read(rag(RagBm25), "".join(CHUNKS), "xyzzy") == CHUNKS[0] + CHUNKS[1]


def test_oracle_reads_the_gold_evidence_and_refuses_tasks_without() -> None:
    assert text_read(Oracle(9, PROMPTS), "long", gold_evidence="gold {question}") == "gold {question}"
    for meta in ({}, {"gold_evidence": " "}, {"gold_evidence": 3}):
        with pytest.raises(
            TaskError, match=r"task 't': oracle needs a text in meta 'gold_evidence'"
        ) as error:
            text_read(Oracle(9, PROMPTS), "long", **meta)
        assert "\n" not in str(error.value)


@pytest.mark.parametrize("agent", [FullContext(9, PROMPTS), rag(RagBm25)])
def test_evidence_that_is_no_text_is_refused(agent: Any) -> None:
    with pytest.raises(TaskError, match="reads a text or a dialogue, not list"):
        text_read(agent, ["a"])


def test_prompts_without_what_they_need_are_refused() -> None:
    with pytest.raises(BadInput, match=r"prompts\.answer_from_text is missing"):
        Oracle(9, {})
    with pytest.raises(BadInput, match=r"\{question\}"):
        NoMemory(9, {"answer_without_text": "?"})


@pytest.mark.parametrize("model", ["tiny", "smollm2", "qwen3_1.7b", "qwen3_4b", "qwen2.5_7b", "qwen2.5_14b"])
@pytest.mark.parametrize("name", ["no_memory", "full_context", "rag_bm25", "rag_embedding", "oracle"])
def test_recipes_take_a_baseline_in_place_of_the_agent(name: str, model: str) -> None:
    recipe = load_recipe("memagent", [f"model={model}", f"agent={name}", "prompts=baselines"])
    assert build_agent(recipe).answer_tokens == recipe.schema.agent["answer_tokens"]
    usual = load_recipe("memagent", [f"model={model}"]).schema
    assert recipe.schema.agent["answer_tokens"] == usual.agent["answer_tokens"]
    if "top_k" in recipe.schema.agent:
        agent = recipe.schema.agent
        window = recipe.schema.model.max_model_len
        assert window is not None
        assert agent["top_k"] * agent["chunk_tokens"] + agent["answer_tokens"] < window


def test_lengths_below_one_are_refused() -> None:
    with pytest.raises(BadInput, match=r"agent\.top_k: must be at least 1"):
        load_recipe("memagent", ["agent=rag_bm25", "prompts=baselines", "agent.top_k=0"])
