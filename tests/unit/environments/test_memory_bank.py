"""The environment of dialogues: which tasks it takes, how it scores, and that the shipped groups fit together."""

from __future__ import annotations

import asyncio

import pytest

from memfactory.agents.memory_r1 import MemoryR1
from memfactory.commands.graph import open_environment
from memfactory.core.errors import BadInput
from memfactory.core.types import Outcome, Rollout, Task
from memfactory.environments.memory_bank import MemoryBankEnvironment
from memfactory.recipe.build import build_agent
from memfactory.recipe.load import load_recipe
from memfactory.rewards.answer import ExactMatch
from memfactory.rewards.rubric import RewardComponent, Rubric

RUBRIC = Rubric({"answer": RewardComponent(ExactMatch())})
GROUPS = [
    "agent=memory_r1",
    "prompts=memory_r1",
    "environment=memory_bank",
    "data=dialogues",
    "reward=memory_r1",
    "sampler=scripted",
]


def test_tasks_about_texts_are_refused_by_the_name_of_their_set() -> None:
    with pytest.raises(BadInput, match=r"data\.eval\.heldout.*'t' has a str"):
        MemoryBankEnvironment(RUBRIC, (), {"heldout": [Task("t", "q", "text")]})


@pytest.mark.parametrize(
    "change", [[], ["agent.manager.operations=numbered", "agent.extractor.type=memory_list"]]
)
def test_the_shipped_groups_make_an_agent_and_tasks(change: list[str]) -> None:
    recipe = load_recipe("memagent", [*GROUPS, *change])
    assert isinstance(build_agent(recipe), MemoryR1)
    environment = open_environment(recipe, train=True, evaluate=True)
    assert isinstance(environment, MemoryBankEnvironment)
    assert list(environment.eval_tasks) == ["1x", "4x"]
    task = environment.train_tasks[0]
    outcome = Outcome(
        f"\\boxed{{{task.answers[0]}}}",
        info={"format": {"extractor": 1.0, "manager": 0.5}, "op_errors": 1, "manager_calls": 2},
    )
    scores = asyncio.run(environment.score(Rollout(task, 0, outcome=outcome)))
    assert scores == {"answer": 1.0, "format_extractor": 1.0, "format_manager": 0.5, "op_errors": -0.25}
