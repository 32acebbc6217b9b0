"""`memfactory data banks`: let the recipe's agent read every dialogue of its training data once, and keep its banks."""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console

from memfactory.agents.base import BankAgent, keeps_bank
from memfactory.commands.graph import make_collector, open_policy, open_sampler
from memfactory.core.errors import ServiceError, TaskError
from memfactory.core.types import Task
from memfactory.data.banks import BankWriter
from memfactory.data.dialogue import Dialogue, Memory
from memfactory.modules.bank_memories import memories_of
from memfactory.recipe.build import build_agent, build_tasks
from memfactory.recipe.load import Recipe
from memfactory.rollouts.collect import Collector, ModelsFactory

#: What a bank depends on: recipes that agree in these go on with each other's files.
_DEPENDS_ON = ("model", "agent", "prompts", "roles", "seed", "sampling")


def make_banks(recipe: Recipe, output: Path, console: Console, limit: int | None = None) -> int:
    """Write the banks of the dialogues of `data.train` (of its `of`, if it is a source of starting banks).

    Each dialogue is one line, written when its last session is read; a second start goes on with those that are
    missing. Returns 0, or 1 when a dialogue could not be read.
    """
    agent = build_agent(recipe)
    if not keeps_bank(agent):
        raise recipe.error(
            "agent.type", f"'{recipe.schema.agent['type']}' keeps no memory bank; memory_r1 does"
        )
    dialogues = _dialogues(recipe)[:limit]
    writer = BankWriter(output, _written_by(recipe))
    left = [dialogue for dialogue in dialogues if dialogue.id not in writer.done]
    if len(left) < len(dialogues):
        console.print(
            f"{output}: {len(dialogues) - len(left)} dialogues are there already",
            highlight=False,
            markup=False,
        )
    if not left:
        return 0
    policy = open_policy(recipe)
    cast = open_sampler(recipe, policy)
    try:
        collector = make_collector(recipe, policy, cast, agent, None, training=False)
        failed = asyncio.run(_read_all(agent, collector, left, writer, console))
    finally:
        cast.close()
    for line in failed:
        console.print(line, highlight=False, markup=False)
    console.print(f"{output}: {len(writer.done)} dialogues", highlight=False, markup=False)
    return 1 if failed else 0


async def read_banks_of(
    agent: BankAgent, make_models: ModelsFactory, dialogue: Dialogue, console: Console | None = None
) -> dict[str, tuple[Memory, ...]]:
    """What the agent's bank holds after each session. Raises `TaskError` for a session that it cannot read."""
    task = Task(id=f"reading of {dialogue.id}", question="", evidence=dialogue)
    models = make_models(phase="banks", task=task, index=0, calls=[])
    bank = agent.new_bank()
    held = {}
    for number, session in enumerate(dialogue.sessions, start=1):
        with bank.transaction():
            remembered = await agent.remember(session, bank, models)
        held[session.id] = memories_of(bank)
        if console is not None:
            for line in remembered.unread:
                console.print(
                    f"{session.id} of {dialogue.id}, not understood: {line}", highlight=False, markup=False
                )
            console.print(
                f"{dialogue.id}: session {number}/{len(dialogue.sessions)}, {len(bank)} memories",
                highlight=False,
                markup=False,
            )
    return held


async def _read_all(
    agent: BankAgent,
    collector: Collector,
    dialogues: Sequence[Dialogue],
    writer: BankWriter,
    console: Console,
) -> list[str]:
    """Read all dialogues, `evaluation.concurrency` at once; returns a line for each that could not be read."""
    gate = asyncio.Semaphore(collector.concurrency or len(dialogues))

    async def one(dialogue: Dialogue) -> str | None:
        async with gate:
            try:
                held = await read_banks_of(agent, collector.make_models, dialogue, console)
            except (TaskError, ServiceError) as error:
                return f"{dialogue.id}: {error}"
        writer.write(dialogue.id, held)
        return None

    return [line for line in await asyncio.gather(*map(one, dialogues)) if line is not None]


def _dialogues(recipe: Recipe) -> list[Dialogue]:
    """The whole dialogues of the training data, each once, in order."""
    fields: Mapping[str, Any] | None = recipe.schema.data.train
    if fields is None:
        raise recipe.error("data.train", "there are no dialogues to read; choose a data group (data=...)")
    while isinstance(fields.get("of"), Mapping):
        fields = fields["of"]
    found: dict[str, Dialogue] = {}
    for task in build_tasks(fields):
        if not isinstance(task, Task) or not isinstance(task.evidence, Dialogue):
            raise recipe.error("data.train", f"data '{fields['type']}' has no dialogues")
        found.setdefault(task.evidence.id, task.evidence)
    return list(found.values())


def _written_by(recipe: Recipe) -> dict[str, Any]:
    depends = {name: recipe.shown.get(name) for name in _DEPENDS_ON}
    digest = hashlib.sha256(json.dumps(depends, sort_keys=True, default=str).encode()).hexdigest()[:8]
    return {"agent": recipe.schema.agent["type"], "model": recipe.schema.model.path, "recipe": digest}
