"""Whatever a recipe file or a command line holds: a recipe, or one line that says what is wrong and where."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from memfactory.core.errors import BadInput
from memfactory.evaluation.options import EvalOptions
from memfactory.recipe.interpolations import grows_too_long
from memfactory.recipe.load import load_recipe
from memfactory.recipe.yaml_text import MOST_VALUES, NotYaml, parse

OWN = "model: {path: /m}\n"
BOMB = "a0: &a0 [x, x, x, x]\n" + "".join(
    f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]\n" for i in range(1, 30)
)
LONG_WAY = "a0: &a0 [x]\n" + "".join(f"a{i}: &a{i} [*a{i - 1}]\n" for i in range(1, 100))
DOUBLED = (
    OWN
    + "prompts:\n  a0: some text\n"
    + "".join(f"  a{i}: ${{prompts.a{i - 1}}}${{.a{i - 1}}}\n" for i in range(1, 60))
)
PAIRS = "".join(f"    a{i}: {{x: '${{..a{i - 1}}}', y: '${{..a{i - 1}}}'}}\n" for i in range(1, 60))


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def refused(name: str, *overrides: str) -> str:
    with pytest.raises(BadInput) as caught:
        load_recipe(name, overrides)
    line = str(caught.value)
    assert "\n" not in line and len(line) < 500
    return line


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ("a: " + "{a: " * 100 + "1" + "}" * 100, "bad.yaml:1: nested more than 50 levels deep"),
        ("a: " + "[" * 100_000, "bad.yaml:1: not valid YAML"),
        ("".join(" " * i + "a:\n" for i in range(300)), ": nested more than 50 levels deep"),
        ("x: &a [*a]\n", "bad.yaml:1: alias *a leads into itself"),
        ("name: x\nmodel: &a {path: {b: *a}}\n", "bad.yaml:2: alias *a leads into itself"),
        (BOMB, f"more than {MOST_VALUES:,} values, with aliases followed"),
        (LONG_WAY, "nested more than 50 levels deep, with aliases followed"),
        (OWN + "seed: " + "9" * 5001, "bad.yaml:2: not valid YAML: a number of 5001 digits"),
        (OWN + "seed: 0x" + "f" * 5001, "bad.yaml:2: not valid YAML: a number of 5003 digits"),
        (OWN + "seed: " + "9" * 300, "bad.yaml: seed: must be at most 9.2"),
        ("trainer:\n  steps: 3\n  steps: 4\n", "bad.yaml:3: not valid YAML: found duplicate key steps"),
        ("model:\n\tpath: /m\n", "bad.yaml:2: not valid YAML"),
        ("- a\n", "expected a mapping of keys, got a list"),
        ("3\n", "expected a mapping of keys, got the single value '3'"),
        ("", "the recipe is empty"),
        ("# nothing\n---\n", "the recipe is empty"),
        ("a: 1\n---\nb: 2\n", "bad.yaml:2: not valid YAML"),
        (b"model: {path: /m}\n# caf\xe9\n", "bad.yaml:2: not UTF-8 text"),
        ("model: {path: /m}".encode("utf-16"), "not UTF-8 text"),
        (b"model: {path: /m}\nname: a\x00b\n", "bad.yaml:2: not valid YAML: control characters"),
        (OWN + 'name: "\\ud800"\n', "bad.yaml:2: not valid YAML"),
        (OWN + "name: !!python/object/apply:os.system ['touch x']\n", "bad.yaml:2: the tag !!python/object"),
        (OWN + "name: !!bool maybe\n", "bad.yaml:2: the tag !!bool is not for recipes"),
        (OWN + "name: !mine x\n", "bad.yaml:2: the tag !mine"),
        (OWN + "name: =\n", "bad.yaml:2: not valid YAML"),
        ("model:\n  <<: 3\n", "bad.yaml:2: not valid YAML: expected a mapping"),
        ("? [a]\n: 3\n", "bad.yaml:1: not valid YAML: found unhashable key"),
        (OWN + "trainer: {steps: 1:30}\n", "trainer.steps: expected a whole number, got '1:30'"),
        (OWN + "trainer: {steps: 010}\n", "trainer.steps: expected a whole number, got '010'"),
        (OWN + "trainer: {steps: 2024-01-01}\n", "trainer.steps: expected a whole number, got '2024-01-01'"),
        (OWN + "learner: {lr: .nan}\n", "learner.lr: expected a finite number, got nan"),
        (OWN + "learner: {lr: .inf}\n", "learner.lr: expected a finite number, got inf"),
        ("model: {null: 3}\n", "bad.yaml: cannot be composed"),
        ("model: ???\n", "model: a value is needed"),
        (OWN + "trainer: ???\n", "trainer: a value is needed"),
        ("# @package a b c\n" + OWN, "bad.yaml:"),
        ("defaults: [bad]\n", "bad.yaml: defaults: recipes in a circle: bad.yaml extends bad.yaml"),
        ("defaults: [{null: b}]\n", "bad.yaml: cannot be composed: "),
        (OWN + "name: ${output_dir}\noutput_dir: ${name}\n", "name: Recursive interpolation"),
        (
            OWN + "name: '" + "${" * 300 + "}" * 300 + "'\n",
            "bad.yaml:2: ${...} nested more than 6 levels deep",
        ),
        (OWN + "name: '${'\n", "bad.yaml: cannot be composed"),
        (DOUBLED, "becomes endlessly long when its ${...} are filled in"),
        (
            "model:\n  path: /m\n  chat_template_kwargs:\n    a0: {x: 1, y: 2}\n" + PAIRS,
            "becomes endlessly long",
        ),
    ],
)
def test_a_file_that_is_no_recipe_is_one_line(project: Path, content: str | bytes, told: str) -> None:
    (project / "bad.yaml").write_bytes(content if isinstance(content, bytes) else content.encode())
    assert told in refused("bad.yaml")


def test_what_is_no_ordinary_file_is_not_opened(project: Path) -> None:
    os.mkfifo("pipe.yaml")
    os.mkdir("folder.yaml")
    with open("big.yaml", "wb") as file:
        file.truncate(100_000_000)
    assert "is no ordinary file" in refused("pipe.yaml")
    assert "is a folder" in refused("folder.yaml")
    assert "big.yaml: is larger than 1 MiB" in refused("big.yaml")
    for name in ("x" * 5000, "~nobody-here/x.yaml", "a\0b", "", "/dev/zero"):
        refused(name)


def test_numbers_as_people_write_them(project: Path) -> None:
    text = (
        OWN + "learner: {lr: 1e-6, weight_decay: 1_000.5}\nseed: 1_000\nname: 'on'\ntrainer: {steps: 0x10}\n"
    )
    (project / "own.yaml").write_bytes(b"\xef\xbb\xbf" + text.encode())
    schema = load_recipe("own.yaml").schema
    assert (schema.learner["lr"], schema.learner["weight_decay"]) == (1e-6, 1000.5)
    assert (schema.seed, schema.name, schema.trainer.steps) == (1000, "on", 16)


def test_either_ending_is_a_recipe(project: Path) -> None:
    """By its name, without its ending, as something to extend, as an option of a group, and as a benchmark."""
    (project / "configs" / "reward").mkdir(parents=True)
    (project / "configs" / "reward" / "mine.yml").write_text("first: {type: f1}\n")
    (project / "low.yml").write_text("defaults: [memagent, {override reward: mine}]\nname: low\nseed: 4\n")
    (project / "high.yaml").write_text("defaults: [low]\nname: high\n")
    (project / "bench.yml").write_text("sets: {mine: {type: facts, size: 3, split: heldout}}\n")
    assert load_recipe("low.yml").schema.name == load_recipe("low").schema.name == "low"
    high = load_recipe("high", ["trainer.steps=2"])
    assert (high.schema.name, high.schema.seed, high.origin("seed")) == ("high", 4, "low.yml")
    assert "first" in high.schema.reward

    from memfactory.commands.cells import make_cells

    (cell,) = make_cells(EvalOptions(recipes=("high",), benchmarks=("bench.yml",)))
    assert set(cell.recipe.schema.data.eval) == {"mine"}


def test_a_benchmark_is_read_within_the_same_limits(project: Path) -> None:
    from memfactory.commands.cells import make_cells

    (project / "bench.yaml").write_text("sets: &a [*a]\n")
    with pytest.raises(BadInput, match=r"bench\.yaml:1: alias \*a leads into itself"):
        make_cells(EvalOptions(recipes=("memagent",), benchmarks=("bench.yaml",)))


def test_a_chain_of_recipes_is_followed_to_its_end(project: Path) -> None:
    for number in range(100):
        (project / f"c{number}.yaml").write_text(f"defaults: [c{number + 1}]\n")
    (project / "c100.yaml").write_text(OWN)
    assert load_recipe("c0.yaml").schema.model.path == "/m"
    (project / "c100.yaml").write_text("defaults: [c40]\n")
    assert "recipes in a circle: c40.yaml extends c41.yaml" in refused("c40.yaml")[:200]


@pytest.mark.parametrize(
    "override",
    [
        "seed=" + "9" * 5001,
        "seed=" + "[" * 3000,
        "seed=" + "{a:" * 3000,
        "name=${a" * 40,
        "a[0]=3",
        "a]=3",
        "prompts.x=${prompts.x}",
        "${x}=3",
        "sampler=[vllm]",
        "~",
        "~~seed",
        "+=",
        "name=\ud800",
        "learner.lr=1:30",
        "trainer.steps=" + "1" * 400,
        "sampler.type[0]=x",
        "data.eval.1x.size.y.z=3",
    ],
    ids=lambda text: ascii(text)[:20],
)
def test_a_wild_override_is_one_line(override: str) -> None:
    refused("memagent", override)


SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(),
    st.text(max_size=8),
    st.sampled_from(["???", "${x}", "${"]),
)
KEYS = st.sampled_from(["model", "trainer", "defaults", "path", "steps", "sampler", "eval", "x", "${y}"])
TREES = st.recursive(
    SCALARS,
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(KEYS | st.text(max_size=5), inner, max_size=4)
    ),
    max_leaves=12,
)


@settings(max_examples=150, deadline=None)
@given(st.one_of(st.binary(max_size=60), st.text("&*a:[]{}-\n !?|>'\"#%@`,0.~", max_size=40).map(str.encode)))
@example(b"a: &a\n - *a")
@example(b"%YAML 9.9\n--- a")
def test_any_bytes_are_yaml_or_refused(content: bytes) -> None:
    with contextlib.suppress(NotYaml):
        parse(content)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(tree=st.dictionaries(KEYS, TREES, max_size=4), key=st.text(max_size=6), value=st.text(max_size=12))
def test_any_tree_and_any_override_is_a_recipe_or_bad_input(
    project: Path, tree: Any, key: str, value: str
) -> None:
    (project / "any.yaml").write_text(yaml.safe_dump(tree), encoding="utf-8", errors="replace")
    for overrides in ([], [f"{key}={value}"]):
        with contextlib.suppress(BadInput):
            load_recipe("any.yaml", overrides)


def test_how_long_a_value_becomes_by_hand() -> None:
    assert grows_too_long({"a": "x" * 100, "b": "${a}" * 100}) is None
    assert grows_too_long({"a": "x" * 6000, "b": "${a}" * 100}) == "b"
    assert grows_too_long({"a": "${b}", "b": "${a}"}) is None
    assert grows_too_long({"l": ["x" * 9000], "m": {"k": "${l[0]}" * 60}}) == "m.k"
