"""How MEM1 behaves, without a model: replies come from a list, or from a reader who never errs."""

import asyncio
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st

from memfactory.core.registry import get
from memfactory.core.types import Call, Task
from memfactory.recipe.build import build_agent
from memfactory.recipe.components import load_components
from memfactory.recipe.load import load_recipe

HERE = Path(__file__).resolve().parent
load_components([HERE / "agent.py", HERE / "traces.py"])
RECIPE = load_recipe(str(HERE / "recipe.yaml"), ["model.path=tiny"])
PROMPTS = RECIPE.schema.prompts  # those of the tiny policy
AGENT = build_agent(RECIPE)


class Model:
    """Replies from a list or by a function of the prompt, and keeps the prompts; a token is a word."""

    def __init__(self, *replies, think=None):
        self.replies, self.think, self.prompts = list(replies), think, []

    async def chat(self, messages, *, module, max_tokens):
        self.prompts.append(messages[0].content)
        reply = self.think(self.prompts[-1]) if self.think else self.replies.pop(0)
        return Call(module, "policy", (1,), (2,), (-0.1,), reply, "stop", 0, True)

    def split_text(self, text, block_tokens):
        return [f"{line}\n" for line in text.splitlines()]

    def truncate_text(self, text, max_tokens):
        return " ".join(text.split()[:max_tokens])


class Models(dict):
    """One role; nobody watches."""

    def report(self, done, total, memory=None):
        pass


def play(task, model):
    return asyncio.run(AGENT(task, Models(policy=model)))


TEXT = "Anna lives in Paris.\nBen keeps a goat.\nIt rained."
TASK = Task("t", "Where does Anna live and what pet does Ben keep?", TEXT, ("Paris and goat",))


def test_only_the_state_is_carried_from_turn_to_turn():
    model = Model(
        "<memory>Anna ?</memory><ask>Anna</ask>",
        "<memory>Anna Paris.</memory><ask>Ben</ask>",
        "<memory>Anna Paris. Ben goat.</memory><answer>Paris and goat</answer>",
    )
    outcome = play(TASK, model)
    ask = f"{TASK.question} Memory: {{}} Text: {{}} Update memory."
    assert [" ".join(prompt.split()) for prompt in model.prompts] == [
        ask.format("nothing yet.", "nothing yet."),
        ask.format("Anna ?", "Anna lives in Paris."),
        ask.format("Anna Paris.", "Ben keeps a goat."),
    ]
    assert outcome.reply == "Paris and goat"
    assert outcome.memories == ("Anna ?", "Anna Paris.", "Anna Paris. Ben goat.")
    assert outcome.info == {"turns": 3, "format": {"step": 1.0}}


def test_the_context_stays_small_however_much_is_written():
    long = "<memory>" + "Anna " * 50 + "</memory><ask>Anna</ask>"
    model = Model(long, long, long, long)
    outcome = play(TASK, model)
    assert outcome.reply == ""  # four turns, no answer
    most = len(f"{TASK.question} Memory: Text: Update memory.".split()) + 8 + 4  # state_tokens, chunk
    assert max(len(prompt.split()) for prompt in model.prompts) == most


def test_broken_replies_have_one_meaning():
    def read(text):
        step = AGENT.read(text)
        return step.state, step.query, step.answer

    assert read("Anna.") == (None, None, None)
    assert read("< memory > a < / memory > < ask > b") == (
        "a",
        "b",
        None,
    )  # cut off, and spaces of a tokenizer
    assert read("<answer>x</answer><ask>y</ask>") == (None, None, "x")  # the first act counts
    assert read("<ask>y</ask><memory>late</memory>") == ("late", "y", None)
    assert read("<memory>one</memory><memory>two</memory>") == ("one", None, None)
    model = Model("no tags", "<memory>kept</memory>", "<ask>Anna</ask>", "<answer>Paris</answer>")
    outcome = play(TASK, model)
    assert outcome.memories == ("nothing yet.", "kept", "kept", "kept")
    assert outcome.info["format"]["step"] == 0.0
    assert "Anna lives in Paris." in model.prompts[3]


@settings(max_examples=200, deadline=None)
@given(
    st.lists(st.sampled_from(["<", ">", "/", "memory", "ask", "answer", "<memory>", "</ask>", " ", "x\n"]))
)
def test_no_reply_makes_it_raise(pieces):
    AGENT.read("".join(pieces))


def test_a_reader_who_never_errs_answers_every_task_at_any_length():
    for sections in (6, 96):
        tasks = get("data", "facts").build(split="heldout", sections=sections, two_fact_share=0.5, size=30)
        for task in tasks:
            outcome = play(_as_lines(task), Model(think=lambda prompt, task=task: _right(prompt, task)))
            assert outcome.reply == task.answers[0]
            assert outcome.info["turns"] <= 3


def test_traces_are_replies_that_the_agent_understands():
    for habit in (0.0, 1.0):
        for trace in get("data", "mem1_traces").build(size=200, seed=0, habit=habit, prompts=PROMPTS):
            step = AGENT.read(trace.completion)
            assert step.state
            assert (step.query is None) != (step.answer is None)
            prompt = trace.messages[0].content
            if habit and not prompt.endswith("Text: nothing yet. Update memory."):
                assert step.answer in step.state
                assert step.answer in prompt
            elif step.query:
                assert f"{step.query} unknown." in step.state
            else:
                assert all(value in prompt and value in step.state for value in step.answer.split(" and "))
                assert "unknown" not in step.state


def _as_lines(task):
    """The task with one sentence a line, which is a chunk of `Model`."""
    return Task(task.id, task.question, task.evidence.replace(". ", ".\n"), task.answers, task.meta)


def _right(prompt, task):
    """What a perfect policy says: it knows a person once the name was read outside of the question."""
    read = prompt.partition("Memory:")[2].replace(" unknown", "")
    notes = {name: value if value in read else "unknown" for name, _, value in task.meta["needed"]}
    state = " ".join(f"{name} {value}." for name, value in notes.items())
    missing = [name for name, value in notes.items() if value == "unknown"]
    act = f"<ask>{missing[0]}</ask>" if missing else f"<answer>{' and '.join(notes.values())}</answer>"
    return f"<memory>{state}</memory>{act}"
