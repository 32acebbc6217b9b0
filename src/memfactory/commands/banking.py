"""From a recipe to an agent at work on its memory bank: what the chat, dialogue files and `MemoryAgent` start from."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from memfactory.agents.base import keeps_bank
from memfactory.commands.graph import make_collector, open_policy, open_sampler
from memfactory.core.errors import BadInput
from memfactory.inference.keeper import Keeper
from memfactory.inference.pending import something_waits
from memfactory.memory.bank_folder import no_bank
from memfactory.memory.lance import LanceBank
from memfactory.recipe.build import build_agent
from memfactory.recipe.load import Recipe


def bank_path(recipe: Recipe, given: str | Path | None) -> Path:
    """The bank that was asked for, else the recipe's own: `banks/<name>` in the working folder."""
    return Path("banks") / recipe.schema.name if given is None else Path(given)


@contextmanager
def open_keeper(
    recipe: Recipe,
    bank: str | Path | None = None,
    *,
    make: bool = True,
    say: Callable[[str], None] = lambda line: None,
) -> Iterator[Keeper]:
    """Open (or, with `make`, make) the bank, then start the sampler; both are closed at the end.

    `say` is told what the recipe leaves to the model. A bank that was made and into which nothing came is gone again
    then. Raises `BadInput` for an agent that keeps no bank, and for a bank that is not there, locked, damaged, of a
    newer version or of another embedder, before any weights of the policy are loaded.
    """
    agent = build_agent(recipe)
    if not keeps_bank(agent):
        raise recipe.error("agent.type", f"'{recipe.schema.agent['type']}' keeps no memory bank")
    path = bank_path(recipe, bank)
    empty = agent.new_bank()
    if not str(path).strip():
        raise BadInput("--bank needs a folder")
    if not make and not path.expanduser().exists():
        raise no_bank(path, "--input FILE reads a dialogue into a new one, and a chat begins one")
    with LanceBank(path, embedder=empty.embedder, dim=empty.dim) as held:
        try:
            policy = open_policy(recipe)
            for remark in policy.remarks(recipe):
                say(remark)
            sampler = open_sampler(recipe, policy)
            try:
                collector = make_collector(recipe, policy, sampler, agent, None, training=False)
                yield Keeper(agent, held, collector.make_models)
            finally:
                sampler.close()
        finally:
            if not something_waits(held):
                held.discard()
