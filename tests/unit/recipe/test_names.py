"""A run's name stays within its folder, and `~` is the home folder."""

from __future__ import annotations

from pathlib import Path

import pytest

from memfactory.core.errors import BadInput
from memfactory.recipe.load import load_recipe


@pytest.mark.parametrize(
    "name",
    ["../../x", "/tmp/x", ".", "..", "a/../b", "a//b", "a/", "-rf", "a/-x", "x" * 201, "é" * 101, "", "a\tb"],
)
def test_a_name_that_is_no_plain_name_is_one_line(name: str, tmp_path: Path) -> None:
    recipe = tmp_path / "mine.yaml"
    quoted = name.replace("\t", "\\t")
    recipe.write_text(f'defaults: [memagent, _self_]\nname: "{quoted}"\n')
    with pytest.raises(BadInput, match="name") as caught:
        load_recipe(str(recipe))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["mine", "mine 2", "lärm", "v1.2", "a/b", "x" * 200, "..."])
def test_other_names_are_folders_below_runs(name: str) -> None:
    recipe = load_recipe("memagent", [f"name='{name}'"])
    assert recipe.output_dir == Path("runs") / name


def test_the_home_folder_is_spelled_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/anna")
    assert load_recipe("memagent", output_dir="~/x").output_dir == Path("/home/anna/x")
    assert load_recipe("memagent", ["output_dir=~/x"]).output_dir == Path("/home/anna/x")
    for folder in ("~nobody-of-this-name/x", "", "a\0b"):
        with pytest.raises(BadInput, match="output_dir") as caught:
            load_recipe("memagent", output_dir=folder)
        assert "\n" not in str(caught.value)
