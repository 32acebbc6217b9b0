"""Sources mixed by share: repeatable, in proportion, and refused when the shares make no sense."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from memfactory.core.errors import BadInput
from memfactory.data.mixture import mixture
from memfactory.recipe.build import build_tasks
from memfactory.recipe.load import load_recipe

PARTS = {"a": [("a", i) for i in range(10)], "b": [("b", i) for i in range(1000)]}


def test_shares_decide_how_often_a_part_is_drawn() -> None:
    items = mixture(PARTS, {"a": 3.0, "b": 1.0}, size=4000)
    counts = Counter(name for name, _ in items)
    assert 2850 < counts["a"] < 3150
    assert list(items) == list(mixture(PARTS, {"a": 3.0, "b": 1.0}, size=4000))
    assert list(items) != list(mixture(PARTS, {"a": 3.0, "b": 1.0}, size=4000, seed=1))
    assert {number for name, number in items if name == "a"} == set(range(10))


def test_without_shares_all_parts_are_alike_and_the_size_is_their_sum() -> None:
    items = mixture(PARTS)
    assert len(items) == 1010
    assert 400 < Counter(name for name, _ in items)["a"] < 610


@pytest.mark.parametrize(
    ("parts", "shares", "message"),
    [
        ({}, {}, "parts names no source"),
        (PARTS, {"c": 1.0}, "shares names 'c', parts has a, b"),
        (PARTS, {"a": -1.0}, r"shares\.a must not be negative"),
        (PARTS, {"a": 0.0}, "shares are all 0"),
    ],
)
def test_bad_shares(parts: dict[str, list[object]], shares: dict[str, float], message: str) -> None:
    with pytest.raises(BadInput, match=message):
        mixture(parts, shares)


def test_parts_are_checked_and_built_as_sources_of_a_recipe(tmp_path: Path) -> None:
    path = tmp_path / "mixed.yaml"
    path.write_text(
        "defaults: [sft_tiny]\nname: mixed\n"
        "data: {eval: {both: {type: mixture, size: 20, parts: {x: {type: facts, size: 3}, y: {type: dialogues}}}}}\n"
    )
    fields = load_recipe(str(path)).schema.data.eval["both"]
    assert {task.id.split("-")[0] for task in build_tasks(fields)} == {"facts", "dialogues"}
    with pytest.raises(BadInput, match=r"data\.eval\.both\.parts\.x\.sise"):
        load_recipe(str(path), ["+data.eval.both.parts.x.sise=3"])
