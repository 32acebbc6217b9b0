"""A run killed at any moment, also while it writes, ends like one that was left alone."""

from __future__ import annotations

import json
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from tests.integration.launching import Launch, Strike, fingerprint, launch, two_at_a_time
from tests.integration.projects import write_project

STRIKES = [
    Strike("replace", "/recipe.yaml"),
    Strike("replace", "/recipe.yaml", after=True),
    Strike("rollout", "eval-1x", nth=2),
    Strike("replace", "evaluation/before.json"),
    Strike("replace", "evaluation/before.json", after=True),
    Strike("rollout", "train-0", nth=3),
    Strike("update"),
    Strike("replace", "rollouts/step-1.jsonl"),
    Strike("half-line", "step-1"),
    Strike("metrics", "step-1", after=True),
    Strike("metrics", "step-2", after=True),
    Strike("fsync", "step-2.*.partial/policy/model.safetensors"),
    Strike("replace", "checkpoints/step-2"),
    Strike("replace", "checkpoints/step-2", after=True),
    Strike("metrics", "step-3", after=True),
    Strike("replace", "checkpoints/step-3"),
    Strike("replace", "checkpoints/step-2.*.partial"),
    Strike("rmtree", "checkpoints/step-2.*.partial"),
    Strike("rollout", "eval-1x", nth=5),
    Strike("replace", "evaluation/after.json"),
    Strike("replace", "evaluation/after.json", after=True),
    Strike("fsync", "final.*.partial/model.safetensors"),
    Strike("replace", "/final"),
    Strike("replace", "/final", after=True),
    Strike("replace", "/report.md"),
    Strike("replace", "/summary.json"),
]


@pytest.fixture(scope="module")
def recipe(tmp_path_factory: pytest.TempPathFactory, policy_folder: Path) -> Path:
    return write_project(tmp_path_factory.mktemp("project"), policy_folder)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory, recipe: Path) -> dict[str, Any]:
    """What an uninterrupted run leaves."""
    folder = tmp_path_factory.mktemp("whole")
    ended = launch(["train", str(recipe), "-o", str(folder / "run")], folder)
    assert ended.code == 0, ended.err
    return fingerprint(folder / "run")


def test_the_small_recipe_learns_something(whole: dict[str, Any], policy_folder: Path) -> None:
    """Otherwise equal weights below would prove nothing."""
    from safetensors.torch import load_file

    assert [record["rows"] for record in whole["metrics"]] == [8, 8, 8]
    assert all(record["grad_norm"] > 0 for record in whole["metrics"])
    before, after = whole["evaluation"]["before.json"], whole["evaluation"]["after.json"]
    assert before["sets"]["1x"]["predictions"] != after["sets"]["1x"]["predictions"]
    assert load_file(policy_folder / "model.safetensors")


@pytest.fixture(scope="module")
def struck(
    request: pytest.FixtureRequest,
    recipe: Path,
    whole: dict[str, Any],
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[dict[Strike, Future[dict[str, Any]]]]:
    """By strike, what a run leaves that it killed and that was started again."""

    def kill_and_start_again(strike: Strike, folder: Path) -> dict[str, Any]:
        command = ["train", str(recipe), "-o", str(folder / "run")]
        killed = launch(command, folder, strike)
        assert killed.code == -9, f"the run was not killed:\n{killed.out}{killed.err}"
        again = launch(command, folder)
        assert again.code == 0, again.err
        return fingerprint(folder / "run")

    yield from two_at_a_time(request, "strike", kill_and_start_again, tmp_path_factory)


@pytest.mark.parametrize("strike", STRIKES, ids=str)
def test_killed_and_started_again_it_ends_the_same(
    strike: Strike, struck: dict[Strike, Future[dict[str, Any]]], whole: dict[str, Any]
) -> None:
    assert struck[strike].result() == whole


def test_killed_at_every_start_it_still_gets_there(
    recipe: Path, whole: dict[str, Any], tmp_path: Path
) -> None:
    """One run folder, killed again and again, once while it goes on from a checkpoint."""
    command = ["train", str(recipe), "-o", str(tmp_path / "run")]
    for strike in (
        Strike("rollout", "eval-2x", nth=2),
        Strike("metrics", "step-2", after=True),
        Strike("replace", "checkpoints/step-2", after=True),
        Strike("metrics", "step-3", after=True),
        Strike("replace", "/metrics.jsonl"),
        Strike("fsync", "final.*.partial/config.json"),
    ):
        killed = launch(command, tmp_path, strike)
        assert killed.code == -9, f"{strike}: {killed.out}{killed.err}"
    ended = launch(command, tmp_path)
    assert ended.code == 0, ended.err
    assert fingerprint(tmp_path / "run") == whole


def test_the_same_seed_gives_the_same_run_and_another_seed_another(
    recipe: Path, whole: dict[str, Any], tmp_path: Path
) -> None:
    runs = [
        Launch(["train", str(recipe), "-o", str(tmp_path / str(seed)), f"seed={seed}"], tmp_path)
        for seed in (1, 2)
    ]
    for ended in [run.end() for run in runs]:
        assert ended.code == 0, ended.err
    assert fingerprint(tmp_path / "1") == whole
    other = fingerprint(tmp_path / "2")
    assert other["weights"] != whole["weights"]
    assert other["rollouts"] != whole["rollouts"]


def whole_and_killed(recipe: Path, folder: Path, options: list[str]) -> None:
    """Two runs at once, `whole` and `killed`; the latter is killed in its third step and then gone on with."""
    command = ["train", str(recipe), *options, "-o"]
    whole = Launch([*command, str(folder / "whole")], folder)
    killed = Launch([*command, str(folder / "killed")], folder, Strike("metrics", "step-3"))
    for ended, code in (
        (killed.end(), -9),
        (launch([*command, str(folder / "killed")], folder), 0),
        (whole.end(), 0),
    ):
        assert ended.code == code, ended.err


def test_a_step_without_an_update_in_the_middle_resumes_the_same(recipe: Path, tmp_path: Path) -> None:
    """Such a step leaves the sampler as it was; a resumed run must not differ in anything either."""
    options = ["reward.letters.weight=0.0", "algorithm.drop_zero_variance=true"]
    whole_and_killed(recipe, tmp_path, options)
    whole = fingerprint(tmp_path / "whole")
    assert [record["rows"] for record in whole["metrics"]] == [0, 0, 0]
    assert fingerprint(tmp_path / "killed") == whole


def test_evaluations_in_between_change_nothing_and_resume(
    recipe: Path, whole: dict[str, Any], tmp_path: Path
) -> None:
    command = ["train", str(recipe), "-o", str(tmp_path / "run"), "trainer.eval_every=1"]
    killed = launch(command, tmp_path, Strike("replace", "evaluation/step-2.json", after=True))
    assert killed.code == -9
    ended = launch(command, tmp_path)
    assert ended.code == 0, ended.err
    run = fingerprint(tmp_path / "run")
    assert sorted(run["evaluation"]) == ["after.json", "before.json", "step-1.json", "step-2.json"]
    assert run["weights"] == whole["weights"]
    assert run["metrics"] == whole["metrics"]


def test_lora_resumes_bit_for_bit(recipe: Path, tmp_path: Path) -> None:
    options = ["learner.lora_rank=4", "learner.lora_dropout=0.1", "algorithm.kl_coef=0.01"]
    whole_and_killed(recipe, tmp_path, options)
    assert fingerprint(tmp_path / "killed") == fingerprint(tmp_path / "whole")


@pytest.mark.vllm
def test_with_vllm_from_a_trained_folder_killed_and_the_same(
    recipe: Path, tmp_path: Path, policy_folder: Path
) -> None:
    """`final/` of one run loads in transformers, and in vLLM as the start of the next, which is killed."""
    pytest.importorskip("vllm")
    from transformers import AutoModelForCausalLM, AutoTokenizer

    first = tmp_path / "first"
    assert launch(["train", str(recipe), "-o", str(first), "trainer.steps=1"], tmp_path).code == 0
    model = AutoModelForCausalLM.from_pretrained(first / "final")
    tokenizer = AutoTokenizer.from_pretrained(first / "final")
    assert tokenizer.chat_template
    assert model.num_parameters() > 0
    options = [
        "sampler=vllm",
        "sampler.kv_cache_gb=0.1",
        f"model.path={first / 'final'}",
        "trainer.save_every=1",
    ]

    def start(name: str, strike: Strike | None = None) -> int | None:
        ended = launch(
            ["train", str(recipe), "-o", str(tmp_path / name), *options], tmp_path / "log" / name, strike
        )
        assert "Traceback" not in ended.err, ended.err
        return ended.code

    strike = Strike("metrics", "step-1", after=True)
    with ThreadPoolExecutor() as pool:  # two engines start in the time of one
        assert list(pool.map(start, ("whole", "killed"), (None, strike))) == [0, -9]
    assert not (tmp_path / "killed" / "final").exists()
    assert start("killed") == 0
    assert fingerprint(tmp_path / "killed") == fingerprint(tmp_path / "whole")
    parity = [
        json.loads(line)["sync/parity_max"]
        for line in (tmp_path / "whole" / "metrics.jsonl").read_text().splitlines()
    ]
    assert max(parity) < 0.01
