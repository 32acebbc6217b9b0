"""MemAgent: reads a text of any length block by block, keeping a memory of fixed size.

Cost grows linearly with the text and every prompt is bounded. The calls of one rollout are
independent conversations: only the memory is carried from one to the next.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from memfactory.agents.evidence import text_of
from memfactory.core.bounds import AtLeastOne
from memfactory.core.chat import ChatModel, Models
from memfactory.core.errors import TaskError
from memfactory.core.registry import component_field, register
from memfactory.core.types import Outcome, Task
from memfactory.modules.answerers import Answerer
from memfactory.modules.recurrent import RecurrentMemory

_TEXTS_KEPT = 256


@dataclass(frozen=True)
class MemAgentRoles:
    """Which role plays which module; `policy` is the model being trained."""

    memory: str = "policy"
    answerer: str = "policy"


@dataclass(frozen=True)
class MemAgentConfig:
    """Lengths in tokens of the memory's model. `max_blocks` refuses longer texts (null: any length)."""

    block_tokens: AtLeastOne = 5000
    memory_tokens: AtLeastOne = 1024
    answer_tokens: AtLeastOne = 1024
    max_blocks: AtLeastOne | None = None
    roles: MemAgentRoles = MemAgentRoles()
    memory: dict = component_field("module", "rewrite")
    answerer: dict = component_field("module", "direct")


@register("agent", "memagent", config=MemAgentConfig, source="MemAgent, arXiv 2507.02259")
class MemAgent:
    """Reads a long text block by block into a memory of fixed size, then answers from the memory."""

    def __init__(
        self,
        block_tokens: int,
        memory_tokens: int,
        answer_tokens: int,
        max_blocks: int | None,
        memory: RecurrentMemory,
        answerer: Answerer,
        roles: MemAgentRoles | None = None,
    ) -> None:
        self.block_tokens = block_tokens
        self.memory_tokens = memory_tokens
        self.answer_tokens = answer_tokens
        self.max_blocks = max_blocks
        self.memory = memory
        self.answerer = answerer
        self.roles = roles or MemAgentRoles()
        self._blocks: OrderedDict[str, list[str]] = OrderedDict()

    async def __call__(self, task: Task, models: Models) -> Outcome:
        """Read `task.evidence` (a text, or a dialogue as text), then answer `task.question`.

        An empty text is answered from the empty memory. Raises `TaskError` for a question longer
        than a block, evidence that is neither, or more blocks than `max_blocks`.
        """
        reader, speaker = models[self.roles.memory], models[self.roles.answerer]
        blocks = self._split(task, reader)
        memory, memories = self.memory.empty, []
        models.report(0, len(blocks), memory)
        for number, block in enumerate(blocks, start=1):
            memory = await self.memory.update(task.question, memory, block, reader, self.memory_tokens)
            memories.append(memory)
            models.report(number, len(blocks), memory)
        reply = await self.answerer.answer(task.question, memory, speaker, self.answer_tokens)
        return Outcome(reply=reply, memories=tuple(memories))

    @staticmethod
    def longest_calls(fields: Mapping[str, Any], count: Callable[[str], int]) -> dict[str, int]:
        """Tokens of prompt and reply that each module needs for a full block; `count` is of a named prompt."""
        memory = int(fields["memory_tokens"])
        rewritten = memory if fields["memory"]["type"] == "rewrite" else 1  # others may ask for less
        return {
            "memory": count("update") + int(fields["block_tokens"]) + memory + rewritten,
            "answerer": count("answer") + memory + int(fields["answer_tokens"]),
        }

    def _split(self, task: Task, reader: ChatModel) -> list[str]:
        """Blocks of the task's text; tokenised once for all rollouts of the group."""
        text = text_of(task)
        asked = reader.count_tokens(task.question)
        if asked > self.block_tokens:
            raise TaskError(
                f"task '{task.id}': the question has {asked} tokens, more than a block "
                f"(agent.block_tokens={self.block_tokens}); shorten it or raise agent.block_tokens"
            )
        blocks = self._blocks.get(text)
        if blocks is None:
            blocks = reader.split_text(text, self.block_tokens)
            self._blocks[text] = blocks
            if len(self._blocks) > _TEXTS_KEPT:
                self._blocks.popitem(last=False)
        if self.max_blocks is not None and len(blocks) > self.max_blocks:
            raise TaskError(
                f"task '{task.id}': the text has {len(blocks)} blocks, "
                f"agent.max_blocks allows {self.max_blocks}; shorten it or raise agent.max_blocks"
            )
        return blocks
