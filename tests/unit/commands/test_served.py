"""A policy that a server answers for: only its tokenizer is needed here."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from memfactory.commands.graph import open_policy
from memfactory.commands.plan import plan
from memfactory.core.errors import BadInput
from memfactory.models.source import resolve_model
from memfactory.recipe.load import load_recipe

SERVED = ("sampler=openai", "sampler.leave_out=[temperature]", "sampler.extra_body={effort: low}")


@pytest.fixture
def tokenizer(tmp_path: Path) -> Path:
    """A folder with the tokenizer of the policy that ships, and nothing else."""
    for name in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja"):
        shutil.copy(resolve_model("tiny") / name, tmp_path / name)
    return tmp_path


def test_a_tokenizer_is_enough_where_a_server_has_the_weights(tokenizer: Path) -> None:
    recipe = load_recipe("memagent", [f"model.path={tokenizer}", *SERVED, "model.max_model_len=512"])
    policy = open_policy(recipe)
    assert policy.folder == tokenizer and policy.max_model_len == 512
    table = plan(recipe, "infer")
    rows = dict(zip(table.columns[0]._cells, table.columns[1]._cells, strict=True))
    assert rows["model"] == f"{tokenizer} (tokenizer)"
    assert (rows["sampler: leave_out"], rows["sampler: extra_body"]) == ("temperature", "effort")


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        (["sampler=hf"], "not a model folder: no config.json"),
        ([*SERVED, "agent.roles.memory=x", "roles.x={sampler: {type: hf}}"], "no config.json"),
        ([*SERVED, "model.max_model_len=null"], r"model\.max_model_len.*set one, or sampler\.context"),
    ],
)
def test_an_engine_here_needs_weights_and_a_ruler_its_length(
    tokenizer: Path, changes: list[str], told: str
) -> None:
    with pytest.raises(BadInput, match=told):
        open_policy(load_recipe("memagent", [f"model.path={tokenizer}", *changes]))
