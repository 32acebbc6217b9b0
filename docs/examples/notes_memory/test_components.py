"""What the notes memory keeps and drops, with a model that replies from a list."""

import asyncio
from pathlib import Path

from memfactory.core.registry import get
from memfactory.core.types import Call, Outcome, Rollout, Task
from memfactory.recipe.components import load_components

load_components([Path(__file__).resolve().parent / "components.py"])


class Model:
    """Counts words as tokens and replies from a list."""

    def __init__(self, *replies: str) -> None:
        self.replies = list(replies)

    async def chat(self, messages, *, module, max_tokens):
        return Call(module, "policy", (1,), (2,), (-0.1,), self.replies.pop(0), "stop", 0, True)

    def count_tokens(self, text):
        return len(text.split())

    def truncate_text(self, text, max_tokens):
        return text if self.count_tokens(text) <= max_tokens else " ".join(text.split()[:max_tokens])


def test_old_notes_go_when_the_memory_is_full() -> None:
    memory = get("module", "notes").build(
        note_tokens=8, prompts={"note": "{question} {block}", "empty_memory": "nothing yet."}
    )
    model, held = Model("one two", "", "three four", "five six"), memory.empty
    seen = []
    for _ in range(4):
        held = asyncio.run(memory.update("q", held, "block", model, max_tokens=4))
        seen.append(held)
    assert seen == ["one two", "one two", "one two\nthree four", "three four\nfive six"]


def test_the_reward_reads_the_last_memory() -> None:
    task = Task("t", "Where?", "text", ("New York",))
    rollout = Rollout(task, 0, outcome=Outcome("", memories=("York", "Anna lives in York.")))
    assert asyncio.run(get("reward", "kept_answer").build()(rollout)) == 0.5
