"""Roles end to end: a frozen role beside a policy that learns, a served one, and a judge, with the HF sampler."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from memfactory.cli.main import run
from memfactory.commands.graph import make_collector, open_policy, open_sampler
from memfactory.core.types import Rollout, Task
from memfactory.recipe.build import build_agent
from memfactory.recipe.load import load_recipe
from tests.openai_server import Server, reply, serving
from tests.tiny_models import ScoringLearner, random_policy

SMALL = ["sampler=hf", "sampler.device=cpu", "learner.device=cpu", "learner.warmup_steps=0"]
TASKS = [Task(f"t{n}", "Where does Ana live?", f"Ana lives in city {n}. " * 6, ("Rome",)) for n in range(3)]


@pytest.fixture
def server() -> Iterator[Server]:
    with serving() as server:
        yield server


def calls(rollouts: list[list[Rollout]], module: str) -> list[Any]:
    assert [r.error for group in rollouts for r in group] == [None] * len(TASKS)
    return [call for group in rollouts for r in group for call in r.calls if call.module == module]


def test_a_frozen_role_replies_as_before_after_the_policy_has_changed(tmp_path: Path) -> None:
    folder = random_policy(tmp_path / "policy")
    changes = [*SMALL, "model=custom", f"model.path={folder}", "model.max_model_len=512"]
    changes += ["agent.block_tokens=32", "agent.memory_tokens=8", "agent.answer_tokens=8"]
    recipe = load_recipe("memagent", [*changes, "agent.roles.memory=frozen"], command="train")
    policy = open_policy(recipe)
    cast = open_sampler(recipe, policy, training=True)
    collector = make_collector(recipe, policy, cast, build_agent(recipe), None, training=True)
    learner = ScoringLearner(folder)
    before = collector.collect(TASKS, 1, "p")
    learner.perturb(1, scale=0.3)
    cast.load_weights(learner.named_weights(), 1)
    after = collector.collect(TASKS, 1, "p")
    assert calls(after, "update") == calls(before, "update")
    assert {(c.role, c.trainable, c.policy_version) for c in calls(after, "update")} == {("frozen", False, 0)}
    assert [c.text for c in calls(after, "answer")] != [c.text for c in calls(before, "answer")]
    assert {(c.role, c.trainable, c.policy_version) for c in calls(after, "answer")} == {("policy", True, 1)}
    cast.close()
    assert cast.policy._engine.model is None and cast.others["frozen"].sampler._engine.model is None  # type: ignore


def test_where_nothing_is_trained_the_frozen_role_shares_the_policys_engine() -> None:
    changes = [*SMALL, "agent.roles.answerer=frozen"]
    recipe = load_recipe("memagent", changes, command="eval")
    cast = open_sampler(recipe, open_policy(recipe))
    assert cast.others["frozen"].sampler is cast.policy
    cast.close()


def train(folder: Path, *changes: str) -> int:
    fixed = [
        *SMALL,
        "trainer.steps=2",
        "trainer.tasks_per_step=2",
        "algorithm.group_size=4",
        "trainer.save_every=1",
    ]
    fixed += ["trainer.eval_before=false", "trainer.eval_after=false", "trainer.keep_last=9"]
    fixed += [
        "algorithm.drop_zero_variance=false",
        "trainer.log_rollouts=8",
        "sampling.train.temperature=1.5",
    ]
    return run(["train", "memagent", *fixed, *changes, "--output-dir", str(folder)])


def test_training_with_a_frozen_answerer_and_going_on_with_it(tmp_path: Path) -> None:
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    assert train(whole, "agent.roles.answerer=frozen") == 0
    records = [json.loads(line) for line in (whole / "rollouts" / "step-2.jsonl").read_text().splitlines()]
    players = {(c["module"], c["role"]) for r in records for c in r["calls"]}
    assert players == {("update", "policy"), ("answer", "frozen")}
    assert {module for r in records for module in r["advantages"]} == {"update"}

    # As if killed in the second step: only the first checkpoint is there.
    shutil.copytree(whole, cut)
    for path in (cut / "checkpoints" / "step-2", cut / "final"):
        shutil.rmtree(path)
    (cut / "summary.json").unlink()
    text = (cut / "recipe.yaml").read_text().replace(str(whole), str(cut))
    (cut / "recipe.yaml").write_text(text)
    assert train(cut, "agent.roles.answerer=frozen") == 0
    for name in ("rollouts/step-2.jsonl", "final/model.safetensors"):
        assert (cut / name).read_bytes() == (whole / name).read_bytes(), name
    assert yaml.safe_load(text)["agent"]["roles"] == {"memory": "policy", "answerer": "frozen"}


def test_a_server_in_a_role_and_a_judge_in_an_evaluation(
    server: Server, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_BASE_URL", server.url)

    def answer(body: dict[str, Any]) -> Any:
        if body["model"] == "reader":
            return reply("\\boxed{somewhere}")
        asked = body["messages"][0]["content"]
        return reply("CORRECT") if is_judged(asked) else 401

    def is_judged(asked: str) -> bool:
        """About half of the questions, by their letters; for the others the judge fails."""
        return sum(map(ord, asked.split("Question: ")[1].split("\n")[0])) % 2 == 1

    server.script = [answer]
    changes = ["sampler=hf", "agent.roles.answerer=openai:reader", "evaluation.limit=6"]
    changes += ["~data.eval.2x", "~data.eval.4x", "~data.eval.16x", "reward=exact_match_and_judge"]
    changes += [
        "reward.judge.model=gpt-x",
        f"reward.judge.cache={tmp_path / 'cache'}",
        "reward.judge.max_retries=0",
    ]
    assert run(["eval", "memagent", *changes, "--output-dir", str(tmp_path / "run")]) == 0
    printed = capsys.readouterr().out
    [path] = (tmp_path / "run" / "eval").glob("*.json")
    [result] = json.loads(path.read_text())["results"]
    verdicts = [p["verdicts"]["judge"] for p in result["predictions"]]
    right = sum(v["value"] == 1.0 for v in verdicts)
    assert 0 < right < 6 and {v["judge"] for v in verdicts} == {"gpt-x"}
    assert result["judges"]["judge"] == {
        "judge": "gpt-x",
        "score": 1.0,
        "judged": right,
        "unjudged": 6 - right,
        "agreement": {"exact_match": 0.0},
        "problem": next(v["said"] for v in verdicts if v["value"] is None),
    }
    assert result["judges"]["judge"]["problem"].startswith(f"the server at {server.url} answered 401: ")
    assert (
        f"memagent 1x: judge by gpt-x: agrees with exact_match on 0.0 % of {right} replies; {6 - right} unjudged"
        in printed
    )
    assert {b["temperature"] for b in server.bodies if b["model"] == "reader"} == {0.0}
    assert {p["reply"] for p in result["predictions"]} == {"\\boxed{somewhere}"}


def test_training_stops_when_nothing_can_be_judged(
    server: Server, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    server.script = [401]
    judge = ["reward=judge", "reward.judge.model=gpt-x", f"reward.judge.base_url={server.url}"]
    assert (
        train(
            tmp_path / "run", *judge, f"reward.judge.cache={tmp_path / 'cache'}", "trainer.tasks_per_step=1"
        )
        == 1
    )
    told = capsys.readouterr().err
    assert "no rollout of step 1 could be judged by gpt-x" in told and "answered 401" in told
