"""Every metric against vectors worked out by hand (`why` says how)."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from memfactory.metrics import locomo, qa, retrieval, ruler
from memfactory.metrics.boxed import last_boxed

GOLDEN = Path(__file__).parents[2] / "golden"


def vectors(name: str) -> list[Any]:
    cases = json.loads((GOLDEN / f"{name}.json").read_text(encoding="utf-8"))
    return [pytest.param(case, id=f"{i}: {case['why']}") for i, case in enumerate(cases)]


@pytest.mark.parametrize("case", vectors("qa"))
def test_qa(case: dict[str, Any]) -> None:
    metric = getattr(qa, case["metric"])
    assert metric(case["prediction"], case["golds"]) == pytest.approx(case["score"], abs=1e-9)


@pytest.mark.parametrize("case", vectors("locomo"))
def test_locomo(case: dict[str, Any]) -> None:
    assert locomo.score(case["prediction"], case["gold"], case["category"]) == pytest.approx(case["score"])


@pytest.mark.parametrize("case", vectors("boxed"))
def test_boxed(case: dict[str, Any]) -> None:
    assert last_boxed(case["text"]) == case["boxed"]


@pytest.mark.parametrize("case", vectors("ruler"))
def test_ruler(case: dict[str, Any]) -> None:
    assert getattr(ruler, case["metric"])(case["prediction"], case["golds"]) == pytest.approx(case["score"])


@pytest.mark.parametrize("case", vectors("retrieval"))
def test_retrieval(case: dict[str, Any]) -> None:
    metric = getattr(retrieval, case["metric"])
    assert metric(case["ranked"], case["relevant"], case["k"]) == pytest.approx(case["score"])
