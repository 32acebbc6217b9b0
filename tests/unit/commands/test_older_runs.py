"""Runs that an older version began: what they keep means what it meant."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from memfactory.commands.train import _require_same_recipe
from memfactory.core.errors import BadInput
from memfactory.recipe.load import load_recipe
from memfactory.training.run_folder import RunFolder

LORA16 = ("learner=local_lora", "model.dtype=bfloat16")


def kept(folder: Path, *overrides: str, sampler: dict[str, object], parity: float | None = 0.01) -> RunFolder:
    """A run whose recipe has these values, as the defaults of its time were."""
    plain = yaml.safe_load(load_recipe("memagent", overrides, command="train").to_yaml())
    plain["sampler"].update(sampler)
    plain["trainer"]["parity_threshold"] = parity
    run = RunFolder(folder)
    run.recipe_path.write_text(yaml.safe_dump(plain))
    return run


@pytest.mark.parametrize(
    "overrides",
    [
        (),
        ("learner=local_lora",),
        ("model.dtype=bfloat16",),
        (*LORA16, "sampler=vllm_server", "sampler.transfer=nccl"),
    ],
)
def test_weights_that_were_handed_over_whole_still_are(tmp_path: Path, overrides: tuple[str, ...]) -> None:
    run = kept(tmp_path, *overrides, sampler={"adapter_sync": False})
    _require_same_recipe(run, load_recipe("memagent", overrides, command="train"))
    again = load_recipe(str(run.recipe_path), command="train").schema  # started from the run's own recipe
    assert again.sampler["adapter_sync"] is False and again.trainer.parity_threshold == 0.01


def test_a_key_that_an_older_version_did_not_have_is_its_default(tmp_path: Path) -> None:
    openai = ["sampler=openai", "sampler.base_url=http://h/v1", "sampler.model=m"]
    run = RunFolder(tmp_path)
    plain = yaml.safe_load(load_recipe("rmm", openai, command="train").to_yaml())
    for key in ("extra_body", "max_tokens_name", "leave_out"):
        del plain["sampler"][key]
    run.recipe_path.write_text(yaml.safe_dump(plain))
    _require_same_recipe(run, load_recipe("rmm", openai, command="train"))
    told = [*openai, "sampler.max_tokens_name=max_completion_tokens"]
    with pytest.raises(
        BadInput, match=r"sampler\.max_tokens_name=None, the recipe now says max_completion_tokens"
    ):
        _require_same_recipe(run, load_recipe("rmm", told, command="train"))


def test_where_the_default_now_means_adapters_the_run_says_what_it_had(tmp_path: Path) -> None:
    run = kept(tmp_path, *LORA16, sampler={"adapter_sync": False})
    with pytest.raises(BadInput, match=r"started with sampler\.adapter_sync=False, the recipe now says None"):
        _require_same_recipe(run, load_recipe("memagent", LORA16, command="train"))
    told = (*LORA16, "sampler.adapter_sync=false")
    _require_same_recipe(run, load_recipe("memagent", told, command="train"))


def test_runs_with_adapters_are_the_new_default_in_16_bits(tmp_path: Path) -> None:
    run = kept(tmp_path, *LORA16, sampler={"adapter_sync": True}, parity=0.2)
    _require_same_recipe(run, load_recipe("memagent", LORA16, command="train"))
    other = kept(tmp_path, "learner=local_lora", sampler={"adapter_sync": True})
    with pytest.raises(BadInput, match=r"sampler\.adapter_sync=True"):
        _require_same_recipe(other, load_recipe("memagent", ["learner=local_lora"], command="train"))
