"""Checking values against dataclasses: nothing is guessed, everything wrong is named."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st
from omegaconf import OmegaConf

from memfactory.recipe.render import to_yaml
from memfactory.recipe.validate import Validator
from memfactory.recipe.values import Invalid, plain


@dataclass(frozen=True)
class Inner:
    size: int = 1
    names: tuple[str, ...] = ()


@dataclass(frozen=True)
class Outer:
    title: str
    rate: float = 0.5
    on: bool = False
    mode: Literal["fast", "slow", 3] = "fast"
    pair: tuple[int, float] = (1, 2.0)
    inner: Inner = Inner()
    maybe: Inner | None = None
    either: int | list[str] = 0
    free: dict[str, Any] = field(default_factory=dict)
    tables: dict[str, Inner] = field(default_factory=dict)


def check(**values: Any) -> Outer:
    outer: Outer = Validator().dataclass({"title": "t", **values}, Outer, "")
    return outer


def test_defaults_are_filled_in_and_values_get_their_types() -> None:
    found = check(rate=1, pair=[3, 4], maybe={"names": ["a"]}, tables={"x": {"size": 2}}, either=["b"])
    assert found.rate == 1.0
    assert isinstance(found.rate, float)
    assert found.pair == (3, 4.0)
    assert found.maybe == Inner(names=("a",))
    assert found.tables == {"x": Inner(size=2)}
    assert found.either == ["b"]
    assert plain(found)["inner"] == {"size": 1, "names": []}


@pytest.mark.parametrize(
    ("values", "key", "problem"),
    [
        ({"title": 3}, "title", "text"),
        ({"rate": "fast"}, "rate", "a number"),
        ({"rate": True}, "rate", "a number"),
        ({"rate": float("nan")}, "rate", "a finite number"),
        ({"rate": None}, "rate", "null"),
        ({"on": "yes"}, "on", "true or false"),
        ({"mode": "slwo"}, "mode", "did you mean 'slow'"),
        ({"mode": 3.0}, "mode", "one of"),
        ({"pair": [1]}, "pair", "a list of 2"),
        ({"pair": [1, "x"]}, "pair[1]", "a number"),
        ({"inner": {"sizes": 2}}, "inner.sizes", "did you mean 'size'"),
        ({"inner": {"names": "abc"}}, "inner.names", "a list"),
        ({"maybe": 3}, "maybe", "a mapping"),
        ({"either": "x"}, "either", "a whole number or a list"),
        ({"tables": {"x": {"size": "big"}}}, "tables.x.size", "a whole number"),
        ({"tables": {1: {}}}, "tables.1", "quotes"),
        ({"free": 3}, "free", "a mapping"),
    ],
)
def test_what_does_not_fit_is_named(values: dict[str, Any], key: str, problem: str) -> None:
    with pytest.raises(Invalid) as caught:
        check(**values)
    assert caught.value.key == key
    assert problem in caught.value.problem


@given(
    name=st.sampled_from(["title", "rate", "mode", "inner", "tables"]),
    at=st.integers(0, 20),
    kind=st.sampled_from(["drop", "double", "swap"]),
)
def test_a_misspelt_key_gets_the_nearest_name(name: str, at: int, kind: str) -> None:
    at %= len(name) - 1
    wrong = {
        "drop": name[:at] + name[at + 1 :],
        "double": name[:at] + name[at] + name[at:],
        "swap": name[:at] + name[at + 1] + name[at] + name[at + 2 :],
    }[kind]
    if wrong == name:
        return
    with pytest.raises(Invalid, match=f"unknown key; did you mean '{name}'"):
        check(**{wrong: "x"})


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


@given(st.dictionaries(st.sampled_from([*Outer.__dataclass_fields__, "other"]), JSON, max_size=4))
def test_nothing_but_invalid_is_ever_raised(values: dict[str, Any]) -> None:
    blamed = None
    try:
        Validator().dataclass(values, Outer, "")
    except Invalid as error:
        blamed = error.key.split(".")[0].split("[")[0]
    assert blamed in {None, "title", *values}


TEXT = st.text(
    st.characters(codec="utf-8", exclude_categories=["Cs", "Cc"]) | st.sampled_from("\n\t ${}\\#:'\"1e-")
)


@given(
    st.dictionaries(
        st.text("abc1e-", min_size=1), TEXT | st.lists(TEXT, max_size=2) | st.floats(allow_nan=False)
    )
)
def test_written_yaml_reads_back_the_same(values: dict[str, Any]) -> None:
    for text in (to_yaml(values), to_yaml(values, lambda key: "somewhere")):
        assert OmegaConf.to_container(OmegaConf.create(text), resolve=True) == values
