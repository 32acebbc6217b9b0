"""One command line, many evaluations: combinations, their names, and what a benchmark does to a recipe."""

from __future__ import annotations

from pathlib import Path

import pytest

from memfactory.commands.cells import make_cells
from memfactory.core.errors import BadInput
from memfactory.evaluation.options import EvalOptions
from memfactory.recipe.load import load_recipe

BENCHMARK = "sets:\n  mine: {type: jsonl, path: mine.jsonl}\nmetrics: [rouge_l]\n"


@pytest.fixture
def benchmark(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.chdir(tmp_path)
    Path("mine.yaml").write_text(BENCHMARK)
    return "mine.yaml"


def test_every_combination_is_a_cell_and_those_of_one_engine_follow_each_other(benchmark: str) -> None:
    cells = make_cells(
        EvalOptions(
            models=("tiny", "smollm2"), agents=("memagent", "oracle"), benchmarks=(benchmark, "ruler")
        )
    )
    assert [(c.model, c.agent, c.benchmark) for c in cells] == [
        (model, agent, name)
        for model in ("tiny", "smollm2")
        for agent in ("memagent", "oracle")
        for name in ("mine", "ruler")
    ]
    assert len({cell.engine for cell in cells}) == 2
    assert cells[-1].recipe.schema.agent["answer_tokens"] == 128, "lengths follow the model"
    assert "answer_from_text" in cells[-1].recipe.schema.prompts
    assert "update" in cells[0].recipe.schema.prompts


def test_rewards_of_single_modules_are_for_the_recipes_own_agent() -> None:
    options = EvalOptions(
        recipes=("memory_r1",), agents=("memory_r1", "no_memory"), overrides=("~reward.op_errors",)
    )
    own, other = make_cells(options)
    assert set(own.recipe.schema.reward) == {"answer", "format_extractor", "format_manager"}
    assert set(other.recipe.schema.reward) == {"answer"}
    [other] = make_cells(EvalOptions(recipes=("rmm_policy",), agents=("oracle",)))
    assert set(other.recipe.schema.reward) == {"answer"}


def test_without_names_the_recipe_is_run_as_it_is() -> None:
    [cell] = make_cells(EvalOptions(overrides=("seed=3",)))
    assert (cell.model, cell.agent, cell.benchmark) == ("tiny", "memagent", None)
    assert cell.recipe.schema.seed == 3
    assert str(cell.recipe.output_dir) == "runs/memagent"


def test_a_folder_is_a_model_path_and_several_recipes_share_a_folder() -> None:
    cells = make_cells(EvalOptions(recipes=("memagent", "gpu/memagent_qwen3_4b"), models=("a,'b/c",)))
    assert [cell.recipe.schema.model.path for cell in cells] == ["a,'b/c"] * 2
    assert {str(cell.recipe.output_dir) for cell in cells} == {"runs/eval"}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (EvalOptions(agents=("memagnt",)), "no option 'memagnt'; did you mean 'memagent'"),
        (EvalOptions(benchmarks=("rulr",)), "no benchmark 'rulr'; did you mean 'ruler'"),
        (EvalOptions(benchmarks=("gone.yaml",)), "no benchmark 'gone.yaml'"),
        (EvalOptions(agents=("oracle", "oracle")), "asked for twice: memagent, tiny, oracle"),
        (EvalOptions(overrides=("evaluation.metrics=[bleu]",)), "did you mean 'bleu1'"),
        (EvalOptions(overrides=("evaluation.metrics=[]",)), "must name at least one"),
    ],
)
def test_unknown_names_are_one_line(options: EvalOptions, message: str) -> None:
    with pytest.raises(BadInput, match=message):
        make_cells(options)


def test_a_benchmark_takes_the_place_of_the_recipes_own_sets(benchmark: str) -> None:
    recipe = load_recipe("memagent", ["data.eval.mine.limit=5"], command="eval", benchmark=Path(benchmark))
    schema = recipe.schema
    assert list(schema.data.eval) == ["mine"] and schema.data.eval["mine"]["limit"] == 5
    assert schema.evaluation.metrics == ("rouge_l",) and schema.benchmark == "mine"
    assert recipe.origin("data.eval.mine.path") == "mine.yaml"
    assert schema.data.train is not None, "what is trained on stays"


def test_a_recipe_that_chose_a_benchmark_composes_to_the_same_again(tmp_path: Path) -> None:
    recipe = load_recipe("memagent", ["benchmark=ruler"], command="eval")
    (tmp_path / "again.yaml").write_text(recipe.to_yaml())
    assert load_recipe(str(tmp_path / "again.yaml"), command="eval").plain == recipe.plain


def test_a_benchmark_that_builds_upon_another_has_its_own_name_and_length() -> None:
    schema = load_recipe("memagent", ["benchmark=ruler_16k"], command="eval").schema
    assert schema.benchmark == "ruler_16k"
    assert len(schema.data.eval) == 13
    assert {fields["length"] for fields in schema.data.eval.values()} == {16384}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("metrics: [f1]\n", "mine.yaml: sets: a benchmark needs"),
        ("sets: {}\n", "mine.yaml: sets: a benchmark needs"),
        ("sets: {a: {type: jsonl, path: x}}\nmetric: [f1]\n", "mine.yaml: metric: unknown key.*'metrics'"),
        ("sets: {a: {type: jsnl, path: x}}\n", "mine.yaml: data.eval.a.type.*did you mean 'jsonl'"),
        (
            "sets: {a: {type: jsonl, path: x}}\nmetrics: f1\n",
            "mine.yaml: evaluation.metrics: expected a list",
        ),
        ("- sets\n", "mine.yaml: expected a mapping of keys, got a list"),
    ],
)
def test_a_wrong_benchmark_file_is_one_line_with_its_name(text: str, message: str, benchmark: str) -> None:
    Path(benchmark).write_text(text)
    with pytest.raises(BadInput, match=message):
        make_cells(EvalOptions(benchmarks=(benchmark,)))
