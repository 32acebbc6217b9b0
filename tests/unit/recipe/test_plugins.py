"""Components of the user's own: from a file that the recipe names, or from an installed package."""

from __future__ import annotations

from importlib.metadata import EntryPoint, EntryPoints
from pathlib import Path

import pytest

from memfactory.core.errors import BadInput
from memfactory.recipe import components
from memfactory.recipe.build import build_agent, build_component, build_rubric, build_tasks
from memfactory.recipe.load import load_recipe

PLUGIN = '''
from dataclasses import dataclass

from memfactory.core.registry import component_field, register


@register("reward", "short_{tag}")
@dataclass(frozen=True)
class Short:
    """Short is good."""

    most: int = 3

    def __post_init__(self):
        if self.most < 1:
            raise ValueError("most must be at least 1")

    async def __call__(self, rollout):
        return 1.0


@dataclass(frozen=True)
class OwnerConfig:
    size: int
    part: dict = component_field("reward", "short_{tag}")


@register("environment", "owner_{tag}", config=OwnerConfig)
class Owner:
    """Holds a part."""

    def __init__(self, size, part, rubric=None):
        self.size, self.part, self.rubric = size, part, rubric
'''


@pytest.fixture
def recipe(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> Path:
    """A recipe with a plugin beside it; the working folder is another. Names carry a tag for each test."""
    tag = str(abs(hash(request.node.name)))
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    (tmp_path / "part.py").write_text(PLUGIN.replace("{tag}", tag))
    path = tmp_path / "own.yaml"
    path.write_text(
        "defaults: [memagent]\nplugins: [part.py]\n"
        f"reward: {{brief: {{type: short_{tag}, weight: 0.5, modules: [answer]}}}}\n"
    )
    return path


def test_a_component_of_a_plugin_file_is_checked_and_built(recipe: Path) -> None:
    loaded = load_recipe(str(recipe))
    rubric = build_rubric(loaded)
    brief = rubric.components["brief"]
    assert (brief.weight, brief.modules, brief.reward.most) == (0.5, ("answer",), 3)  # type: ignore[attr-defined]
    assert loaded.schema.plugins == (str(recipe.parent / "part.py"),)


def test_fields_of_a_plugin_are_checked_like_any_other(recipe: Path) -> None:
    for override, problem in (
        ("reward.brief.mots=2", "did you mean 'most'"),
        ("reward.brief.most=x", "a whole number"),
        ("reward.brief.most=0", "reward.brief.most: most must be at least 1"),
    ):
        with pytest.raises(BadInput, match=problem):
            load_recipe(str(recipe), [override])


def test_nested_components_are_built_first_and_dependencies_go_where_they_are_named(recipe: Path) -> None:
    name = load_recipe(str(recipe)).schema.reward["brief"].component["type"].replace("short", "owner")
    loaded = load_recipe(str(recipe), [f"environment={{type: {name}, size: 2, part: {{most: 5}}}}"])
    built = build_component("environment", loaded.schema.environment, rubric="R", unasked_for=1)
    assert (built.size, built.part.most, built.rubric) == (2, 5, "R")
    with pytest.raises(BadInput, match=r"environment\.size: a value is needed"):
        load_recipe(str(recipe), [f"environment={{type: {name}}}"], command="infer")


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("x = 1\ny = = 2\n", ":2: SyntaxError"),
        ("import nothing_like_this\n", ":1: ModuleNotFoundError"),
        ("\n\nraise RuntimeError('two\\nlines')\n", ":3: RuntimeError: two lines"),
        ("import sys\nsys.exit(3)\n", ":2: SystemExit"),
        (
            "from memfactory.core.registry import register\n"
            "from dataclasses import dataclass\n"
            "@register('reward', 'f1')\n@dataclass\nclass Mine: ...\n",
            "'f1' is registered twice",
        ),
    ],
)
def test_a_broken_plugin_is_one_line_that_names_file_and_line(recipe: Path, text: str, problem: str) -> None:
    (recipe.parent / "part.py").write_text(text)
    with pytest.raises(BadInput) as caught:
        load_recipe(str(recipe))
    assert problem in " ".join(str(caught.value).split())
    assert str(recipe.parent / "part.py") in str(caught.value)


def test_a_plugin_that_is_not_there(recipe: Path) -> None:
    recipe.write_text("defaults: [memagent]\nplugins: [prt.py]\n")
    with pytest.raises(
        BadInput, match=r"own\.yaml: plugins: .*'prt\.py' does not exist; did you mean 'part\.py'"
    ):
        load_recipe(str(recipe))


def test_a_broken_installed_plugin_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    point = EntryPoint("broken", "nothing_like_this:x", components.ENTRY_POINT_GROUP)
    monkeypatch.setattr(components, "entry_points", lambda group: EntryPoints([point]))
    monkeypatch.setattr(components, "_entry_points_loaded", False)
    with pytest.raises(BadInput, match="installed plugin 'broken'"):
        load_recipe("memagent")


def test_building_what_ships() -> None:
    recipe = load_recipe("memagent")
    agent = build_agent(recipe)
    assert agent.block_tokens == recipe.schema.agent["block_tokens"]
    assert len(build_tasks(recipe.schema.data.eval["1x"])) == 200
    with pytest.raises(BadInput, match="path"):
        build_tasks({"type": "jsonl", "path": "???"})
