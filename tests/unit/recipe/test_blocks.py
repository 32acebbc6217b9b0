"""Blocks of a recipe: a block's own defaults survive, and leftovers of another component are explained."""

from __future__ import annotations

import pytest
import yaml

from memfactory.assets import configs
from memfactory.core.errors import BadInput
from memfactory.data.synthetic import dialogue_traces, facts_traces, reranking_traces
from memfactory.recipe.load import load_recipe


def test_setting_one_key_of_evaluation_sampling_keeps_it_greedy() -> None:
    recipe = load_recipe("memagent", ["sampling.eval.top_p=0.9"])
    assert recipe.schema.sampling.eval.temperature == 0.0
    assert recipe.schema.sampling.eval.top_p == 0.9
    assert recipe.schema.sampling.train.temperature == 1.0


def test_keys_left_over_from_another_component_name_the_way_out() -> None:
    with pytest.raises(BadInput, match=r"'jsonl' has no such key.*~data\.train"):
        load_recipe("memagent", ["data.train.type=jsonl", "data.train.path=tasks.jsonl"])


@pytest.mark.parametrize(
    ("name", "prompts"),
    [
        ("memagent_tiny", facts_traces.PROMPTS),
        ("memory_r1_tiny", dialogue_traces.PROMPTS),
        ("rmm/tiny", reranking_traces.PROMPTS),
    ],
)
def test_the_tiny_policy_was_trained_on_the_prompts_that_its_recipes_use(
    name: str, prompts: dict[str, str]
) -> None:
    shipped = yaml.safe_load((configs() / "prompts" / f"{name}.yaml").read_text())
    assert {key: shipped[key] for key in prompts} == dict(prompts)
