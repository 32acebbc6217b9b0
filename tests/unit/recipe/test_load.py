"""Composing recipes: layers, overrides, origins, and the one line that every mistake gets."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from memfactory import assets
from memfactory.core.errors import BadInput
from memfactory.recipe.load import load_recipe


def mistake(name: str, *overrides: str, command: str | None = "train") -> str:
    """The message that a wrong recipe or command line gets; always one line."""
    with pytest.raises(BadInput) as caught:
        load_recipe(name, overrides, command=command)  # type: ignore[arg-type]
    message = str(caught.value)
    assert "\n" not in message
    return message


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of the user's own, far from the checkout, as the working folder."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize("name", assets.recipe_names())
def test_every_shipped_recipe_is_valid(name: str) -> None:
    recipe = load_recipe(name)
    assert recipe.schema.name == name.removeprefix("gpu/")
    assert recipe.schema.output_dir == f"runs/{recipe.schema.name}"


def _options() -> list[tuple[str, str]]:
    folders = [folder for folder in sorted(assets.configs().iterdir()) if folder.is_dir()]
    return [(folder.name, path.stem) for folder in folders for path in sorted(folder.glob("*.yaml"))]


@pytest.mark.parametrize(("group", "option"), _options())
def test_every_option_fits_a_recipe_that_ships(group: str, option: str) -> None:
    overrides = [f"{group}={option}"]
    if (group, option) == ("model", "custom"):
        overrides.append("model.path=/some/model")
    # No learner has no rate either, so it goes with recipes that name none.
    recipe = "rmm" if (group, option) == ("learner", "none") else "memagent"
    assert load_recipe(recipe, overrides).schema.name == recipe


def test_scaling_up_takes_lengths_prompts_and_precision_of_the_model() -> None:
    small = load_recipe("memagent").schema
    large = load_recipe("memagent", ["model=qwen3_1.7b", "data=hotpotqa_long", "learner.lr=5e-6"]).schema
    assert small.model.path == "tiny"
    assert large.model.path == "Qwen/Qwen3-1.7B"
    assert large.agent["block_tokens"] == 2500 > small.agent["block_tokens"]
    assert "\\boxed{}" in large.prompts["answer"]
    assert large.learner["lr"] == 5e-6
    assert large.learner["dtype"] == "bfloat16"
    assert large.data.train is not None
    assert large.data.train["type"] == "hotpotqa_long"
    assert set(large.data.eval) == {"eval_50", "eval_100"}


def test_prompts_chosen_by_hand_win_over_those_of_the_model() -> None:
    chosen = load_recipe("memagent", ["model=qwen3_1.7b", "prompts=memagent_tiny"]).schema
    assert chosen.prompts == load_recipe("memagent").schema.prompts


def test_of_two_options_for_one_group_the_last_counts() -> None:
    assert load_recipe("memagent", ["model=qwen3_4b", "model=smollm2"]).schema.model.path == "smollm2"


def test_origins_name_the_file_the_command_line_or_default() -> None:
    recipe = load_recipe("memagent", ["trainer.steps=3", "data.eval.1x.size=7"], output_dir="elsewhere")
    assert recipe.origin("trainer.steps") == "command line"
    assert recipe.origin("data.eval.1x.size") == "command line"
    assert recipe.origin("output_dir") == "command line"
    assert recipe.origin("model.path") == "configs/model/tiny.yaml"
    assert recipe.origin("agent.block_tokens") == "configs/agent/memagent/tiny.yaml"
    assert recipe.origin("learner.lr") == "recipes/memagent.yaml"
    assert recipe.origin("evaluation.repeats") == "default"
    assert "steps: 3  # from command line" in recipe.annotated_yaml()
    assert recipe.schema.output_dir == "elsewhere"


@pytest.mark.parametrize(
    ("override", "parts"),
    [
        ("learner.lrr=1", ["command line", "learner.lrr", "did you mean 'lr'"]),
        ("leaner.lr=1", ["command line", "leaner", "did you mean 'learner'"]),
        ("trainer.stesp=1", ["trainer.stesp", "did you mean 'steps'"]),
        ("reward.answer.boxd=true", ["reward.answer.boxd", "did you mean 'boxed'"]),
        ("agent.answerer.tpye=direct", ["agent.answerer.tpye", "did you mean 'type'"]),
        ("trainer.steps=abc", ["trainer.steps", "a whole number", "'abc'"]),
        ("trainer.steps=1.5", ["trainer.steps", "a whole number", "1.5"]),
        ("trainer.steps=true", ["trainer.steps", "a whole number", "true"]),
        ("trainer.steps=0", ["trainer.steps", "at least 1"]),
        ("trainer.eval_before=1", ["trainer.eval_before", "true or false"]),
        ("trainer=3", ["trainer", "a mapping", "3"]),
        ("model.path=3", ["model.path", "text", "quotes"]),
        ("learner.betas=0.9", ["learner.betas", "a list"]),
        ("learner.betas=[0.9,x]", ["learner.betas[1]", "a number", "'x'"]),
        ("sampling.train.top_p=1.5", ["sampling.train.top_p", "at most 1"]),
        ("algorithm.loss=ppo", ["algorithm.loss", "one of", "did you mean 'ppo_clip'"]),
        ("algorithm.denominator=constant", ["algorithm.constant_length", "is needed"]),
        ("agent.block_tokens=0", ["agent.block_tokens", "at least 1"]),
        ("reward.answer.type=fl", ["reward.answer.type", "did you mean 'f1'"]),
        ("sampler.type=vlm", ["sampler.type", "unknown sampler 'vlm'", "did you mean 'vllm'"]),
        ("sampler.type=null", ["sampler.type", "name of a sampler", "null"]),
        ("agent.memory.type=rewrit", ["agent.memory.type", "did you mean 'rewrite'"]),
        ("data=hotpot", ["data=hotpot", "did you mean 'hotpotqa'"]),
        ("model=qwen3_17b", ["did you mean 'qwen3_1.7b'"]),
        ("prompts.update=[1]", ["prompts.update", "text"]),
        ("model.path=???", ["model.path", "a value is needed"]),
        ("name=${nam}", ["name", "nam"]),
        ("plugins=[nowhere.py]", ["plugins", "'nowhere.py' does not exist"]),
        ("trainer.steps", ["trainer.steps", "neither key=value"]),
        ("=3", ["neither key=value"]),
        ("a..b=3", ["not a dotted key"]),
        ("~trainer.stepz", ["trainer.stepz", "did you mean 'steps'"]),
        ("name.x=3", ["name: expected text, got a mapping"]),
        ("hydra.run.dir=x", ["hydra", "unknown key"]),
    ],
)
def test_a_mistake_on_the_command_line_is_one_line(override: str, parts: Sequence[str]) -> None:
    message = mistake("memagent", override)
    for part in parts:
        assert part in message


def test_values_are_read_as_one_expects() -> None:
    schema = load_recipe(
        "memagent",
        [
            "learner.betas=[0.8,0.9]",
            "+trainer.keep_last=4",
            "++model.max_model_len=null",
            "prompts.update={question} a, b (c) {memory} {block}",
            "data.train={type: facts, sections: 5}",
            "learner.lr=1",
            "~data.eval.16x",
            "tracker=null",
            "seed=7",
            "name=$x",
        ],
    ).schema
    assert list(schema.learner["betas"]) == [0.8, 0.9]
    assert schema.trainer.keep_last == 4
    assert schema.model.max_model_len is None
    assert schema.prompts["update"] == "{question} a, b (c) {memory} {block}"
    assert schema.data.train is not None
    assert schema.data.train["sections"] == 5
    assert isinstance(schema.learner["lr"], float)
    assert set(schema.data.eval) == {"1x", "2x", "4x"}
    assert schema.tracker == {"type": "none"}


def test_a_value_to_be_given_is_asked_for_only_by_commands_that_read_it() -> None:
    assert "data.train.path" in mistake("memagent_smollm2", command="train")
    assert "configs/data/hotpotqa.yaml: data.eval.heldout.path: a value is needed" in mistake(
        "memagent_smollm2", command="eval"
    )
    assert load_recipe("memagent_smollm2", command="infer").schema.model.path == "smollm2"
    given = load_recipe("memagent_smollm2", ["data.train.path=x.json"], command="train").schema
    assert given.data.eval["heldout"]["path"] == "x.json"


def test_a_command_says_what_it_lacks() -> None:
    assert "data.train" in mistake("memagent", "data={train: null}", command="train")
    assert "data.eval" in mistake("memagent", "~data.eval", command="eval")
    assert "reward" in mistake("memagent", "~reward", command="train")


def test_a_resolved_recipe_composes_to_the_same_again(project: Path) -> None:
    (project / "part.py").write_text("")
    text = "a ${name} \\${x} {b}\nsecond line: # not a comment\n  indented"
    (project / "mine.yaml").write_text("defaults: [memagent]\nplugins: [part.py]\nprompts:\n  odd: '1e-3'\n")
    recipe = load_recipe(
        "mine.yaml",
        ["model=smollm2", f"prompts.update={text}", "+model.chat_template_kwargs.x={a: [1, {b: null}]}"],
    )
    for written in (recipe.to_yaml(), recipe.annotated_yaml()):
        folder = project / "run"
        folder.mkdir(exist_ok=True)
        (folder / "recipe.yaml").write_text(written)
        again = load_recipe("run/recipe.yaml")
        assert again.schema == recipe.schema
        assert again.plain == recipe.plain
    assert recipe.schema.prompts["odd"] == "1e-3"


def test_a_group_is_swapped_in_a_resolved_recipe_too(project: Path) -> None:
    (project / "recipe.yaml").write_text(load_recipe("memagent").to_yaml())
    assert load_recipe("recipe.yaml", ["model=smollm2"]).schema.model.path == "smollm2"


def test_a_users_recipe_extends_one_that_ships_with_groups_of_its_own(project: Path) -> None:
    (project / "configs" / "reward").mkdir(parents=True)
    (project / "configs" / "reward" / "mine.yaml").write_text("first: {type: f1, weight: 2}\n")
    (project / "my recipe.yaml").write_text(
        "defaults:\n  - memagent\n  - override model: smollm2\n  - override reward: mine\n  - _self_\nseed: 9\n"
    )
    recipe = load_recipe("my recipe.yaml")
    assert recipe.schema.name == "memagent"
    assert recipe.schema.model.path == "smollm2"
    assert recipe.schema.agent["block_tokens"] == 1024
    assert recipe.schema.reward["first"].weight == 2.0
    assert recipe.schema.reward["first"].modules is None
    assert recipe.origin("seed") == "my recipe.yaml"
    assert recipe.origin("reward.first.weight") == "configs/reward/mine.yaml"


def test_a_recipe_without_any_group_is_complete(project: Path) -> None:
    (project / "own.yaml").write_text(
        "model: {path: /m}\nreward: {answer: {type: f1}}\ndata: {train: {type: jsonl, path: x.jsonl}}\n"
    )
    schema = load_recipe("own.yaml", command="train").schema
    assert (schema.name, schema.output_dir, schema.sampler["type"]) == ("own", "runs/own", "vllm")


def test_options_that_follow_the_model_work_without_a_model_group(project: Path) -> None:
    (project / "own.yaml").write_text(
        "defaults: [{agent: memagent}, {prompts: memagent}]\nmodel: {path: /m}\n"
    )
    schema = load_recipe("own.yaml").schema
    assert (schema.model.path, schema.agent["block_tokens"]) == ("/m", 5000)


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("model: {path: /m}\nlerner: {lr: 1}\n", ["bad.yaml: lerner: unknown key", "did you mean 'learner'"]),
        ("model: {pth: /m}\n", ["bad.yaml: model.pth: unknown key", "did you mean 'path'"]),
        ("name: x\n", ["bad.yaml: model"]),
        ("model:\n", ["bad.yaml: model: expected a mapping of keys, got null"]),
        ("model: {path: /m}\ntrainer:\n  steps: [1\n", ["bad.yaml:", "not valid YAML"]),
        ("model: {path: /m}\nmodel: {path: /n}\n", ["bad.yaml:2", "duplicate key"]),
        ("- a\n- b\n", ["bad.yaml", "a mapping of keys"]),
        ("just text", ["bad.yaml"]),
        ("model: {path: \xff}\x00", ["bad.yaml"]),
        ("defaults: [{model: tinny}]\n", ["bad.yaml: defaults", "'tinny'", "did you mean 'tiny'"]),
        ("defaults: [{modle: tiny}]\n", ["bad.yaml: defaults", "no group 'modle'", "did you mean 'model'"]),
        ("defaults: [memagnt]\n", ["bad.yaml: defaults", "did you mean 'memagent'"]),
        ("defaults: [bad]\n", ["bad.yaml"]),
        ("defaults: 3\n", ["bad.yaml"]),
        ("defaults: [[3]]\n", ["bad.yaml"]),
        ("model: {path: /m}\ndata: {eval: {3: {type: facts}}}\n", ["data.eval.3", "quotes"]),
        ("model: {path: /m}\ndata: {eval: {x: {size: 3}}}\n", ["data.eval.x.type", "which data", "facts"]),
        ("model: {path: /m}\ndata: {eval: {x: {typ: facts}}}\n", ["is 'typ' a misspelt 'type'?"]),
        ("model: {path: /m}\nname: [\n", ["bad.yaml:3", "not valid YAML"]),
    ],
)
def test_a_mistake_in_a_file_is_one_line_that_names_it(
    project: Path, text: str, parts: Sequence[str]
) -> None:
    (project / "bad.yaml").write_text(text, encoding="latin-1")
    message = mistake("bad.yaml")
    for part in parts:
        assert part in message


def test_a_mistake_in_a_group_file_names_that_file(project: Path) -> None:
    (project / "configs" / "model").mkdir(parents=True)
    (project / "configs" / "model" / "mine.yaml").write_text("path: /m\ndtpye: float32\n")
    (project / "own.yaml").write_text("defaults: [{model: mine}]\n")
    assert "configs/model/mine.yaml: model.dtpye: unknown key; did you mean 'dtype'" in mistake("own.yaml")
    (project / "configs" / "model" / "mine.yaml").write_text("path: [\n")
    assert "configs/model/mine.yaml:2: not valid YAML" in mistake("own.yaml")


@pytest.mark.parametrize(
    ("name", "parts"),
    [
        ("memagnt", ["'memagnt'", "did you mean 'memagent'"]),
        ("nowhere/at/all.yaml", ["neither a file nor"]),
        ("folder", ["is a folder"]),
        ("text.txt", ["must end in .yaml"]),
    ],
)
def test_a_recipe_that_is_not_there(project: Path, name: str, parts: Sequence[str]) -> None:
    (project / "folder").mkdir()
    (project / "text.txt").write_text("name: x\n")
    message = mistake(name)
    for part in parts:
        assert part in message


def test_recipes_are_checked_without_anything_heavy() -> None:
    code = (
        "import sys; from memfactory.recipe.load import load_recipe; load_recipe('memagent');"
        "print([m for m in ('torch', 'transformers', 'vllm', 'datasets', 'deepspeed') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_a_sampler_cannot_sleep_while_it_works() -> None:
    ahead = ("trainer.max_staleness=1", "algorithm.tis_cap=2")
    assert "sampler.sleep: with trainer.max_staleness" in mistake("memagent", "sampler.sleep=true", *ahead)
    assert load_recipe("memagent", ("sampler.sleep=true",), command="train").schema.sampler["sleep"] is True


def test_what_only_adapters_can_have_is_refused_without_them() -> None:
    assert "sampler.adapter_sync: there are no adapters" in mistake("memagent", "sampler.adapter_sync=true")
    lora = ("learner=local_lora", "sampler.adapter_sync=true")
    assert load_recipe("memagent", lora, command="train").schema.sampler["adapter_sync"] is True
    assert "leave one of the two out" in mistake("memagent", *lora, "learner.quantization=nf4")
    assert "learner.quantization needs adapters" in mistake("memagent", "learner.quantization=nf4")
    server = load_recipe("memagent", ("sampler=vllm_server", *lora), command="train")
    assert server.schema.sampler["adapter_sync"] is True
    other = mistake("memagent", "sampler=hf", *lora)
    assert "sampler 'hf' has no such key, 'vllm' has" in other
