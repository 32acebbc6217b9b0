"""What a recipe takes from the environment stays there, wherever the recipe is printed, kept or sent."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from memfactory.cli.main import run
from memfactory.commands.train import _require_same_recipe
from memfactory.core.errors import BadInput
from memfactory.recipe.load import load_recipe
from memfactory.recipe.render import to_yaml
from memfactory.training.run_folder import RunFolder

KEY, PASSWORD = "sk-0123456789abcdef", "pass word/9"
RECIPE = """
defaults: [memagent, override sampler: openai, _self_]
sampler:
  base_url: https://ann:${oc.env:PW}@example.org/v1
  extra_body: {user: "${oc.env:MY_KEY}", again: "${..base_url}", both: ["a ${oc.env:MY_KEY} b"]}
seed: ${oc.decode:${oc.env:SEED}}
data: {eval: {x: {type: jsonl, path: "http://u:plainpw@h/x.jsonl"}}}
"""


@pytest.fixture
def recipe(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name, value in (("MY_KEY", KEY), ("PW", "secretpw1"), ("SEED", "5")):
        monkeypatch.setenv(name, value)
    path = tmp_path / "mine.yaml"
    path.write_text(RECIPE)
    return path


def test_what_is_kept_has_no_secret_and_composes_to_the_same_recipe(
    recipe: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    loaded = load_recipe(str(recipe))
    assert loaded.schema.sampler["base_url"] == "https://ann:secretpw1@example.org/v1"
    assert loaded.schema.sampler["extra_body"]["user"] == KEY and loaded.schema.seed == 5
    for text in (loaded.to_yaml(), loaded.annotated_yaml(), str(loaded.shown), repr(loaded.environment)):
        assert not any(secret in text for secret in (KEY, "secretpw1", "plainpw"))
    assert "user: '${oc.env:MY_KEY}'" in loaded.to_yaml() and "http://***@h/x.jsonl" in loaded.to_yaml()
    kept = recipe.with_name("recipe.yaml")
    kept.write_text(loaded.to_yaml())
    monkeypatch.setenv("MY_KEY", "sk-another-key-0123")
    again = load_recipe(str(kept))
    assert again.schema.sampler["extra_body"]["user"] == "sk-another-key-0123" and again.schema.seed == 5
    assert again.to_yaml() == loaded.to_yaml()


def test_a_run_goes_on_when_a_key_was_renewed_and_when_it_was_kept_by_an_older_version(
    recipe: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = RunFolder(tmp_path / "run")
    folder.path.mkdir()
    loaded = load_recipe(str(recipe))
    for text in (loaded.to_yaml(), to_yaml(loaded.plain)):
        folder.recipe_path.write_text(text)
        _require_same_recipe(folder, load_recipe(str(recipe)))
    folder.recipe_path.write_text(to_yaml(loaded.plain))
    monkeypatch.setenv("MY_KEY", "sk-another-key-0123")
    with pytest.raises(BadInput, match=r"started with sampler\.extra_body\.user=another value") as caught:
        _require_same_recipe(folder, load_recipe(str(recipe)))
    assert KEY not in str(caught.value) and "sk-another" not in str(caught.value)


def test_print_config_and_errors_show_no_secret(recipe: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["eval", str(recipe), "--print-config"]) == 0
    assert run(["eval", str(recipe), "seed=${oc.env:MY_KEY}"]) == 2
    assert run(["eval", str(recipe), "sampler.base_url=ftp://bob:${oc.env:MY_KEY}@h"]) == 2
    assert run(["eval", str(recipe), "sampler.timeout_s=https://bob:plainpw@h"]) == 2
    said = "".join(capsys.readouterr())
    assert yaml.safe_load(said.split("error:")[0])["seed"] == "${oc.decode:${oc.env:SEED}}"
    assert "seed: expected a whole number, got the value of ${oc.env:MY_KEY}" in said
    assert not any(secret in said for secret in (KEY, "secretpw1", "plainpw"))


@pytest.mark.parametrize("name", ["api_key", "Authorization", "x-api-key", "hf_token", "db_password"])
def test_a_secret_in_plain_text_is_refused_without_showing_it(recipe: Path, name: str) -> None:
    plain = "sk-written-down"
    text = RECIPE.replace("{user:", f'{{{name}: "{plain}", user:')
    recipe.write_text(text)
    with pytest.raises(
        BadInput, match=rf"sampler\.extra_body\.{name}: a secret would be kept .*\$.oc\.env"
    ) as caught:
        load_recipe(str(recipe))
    assert plain not in str(caught.value)
    recipe.write_text(text.replace(plain, "${oc.env:MY_KEY}"))
    assert load_recipe(str(recipe)).schema.sampler["extra_body"][name] == KEY


def test_what_is_called_like_a_token_is_no_secret(recipe: Path) -> None:
    recipe.write_text(RECIPE.replace("{user:", '{eos_token: "<eos>", max_tokens: "9", key: "k", user:'))
    assert load_recipe(str(recipe)).shown["sampler"]["extra_body"]["eos_token"] == "<eos>"
