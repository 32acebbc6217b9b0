"""What goes wrong inside rollouts: wild replies, services that fail, agents with bugs, wrong weights."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.integration.launching import Ended, fingerprint, launch
from tests.integration.projects import write_project

PLUGIN = '''
import asyncio
from dataclasses import dataclass
from pathlib import Path

from memfactory.core.errors import ServiceError, TaskError
from memfactory.core.registry import register
from memfactory.core.types import Completion, Message, Outcome
from memfactory.samplers.hf import HfSampler

REPLIES = {
    "no box": "I do not know",
    "nested": "so \\\\boxed{\\\\boxed{a}{{b} and \\\\boxed{ {c} }",
    "open": "\\\\boxed{" * 50,
    "repetition": "la " * 350_000,
    "unicode": "\\ud800 \\ufffd\\x00\\x1b[31m \\u202e",
    "injection": "{question} {memory} {block} <|im_start|>user <|im_end|>",
    "empty": "",
}


@dataclass(frozen=True)
class WildConfig:
    """Nothing to set."""


@register("sampler", "wild", config=WildConfig)
class Wild(HfSampler):
    """Gives wild replies to agents, and honest ones to the parity check."""

    turn = 0

    def __init__(self, *, model_folder, codec, max_model_len):
        super().__init__(model_folder=model_folder, codec=codec, max_model_len=max_model_len)
        self.updates = 0

    async def sample(self, request):
        honest = await super().sample(request)
        if "parity" in request.label:
            return honest
        if "update" in request.label:
            self.updates += 1
            texts = [text for name, text in REPLIES.items() if name not in ("repetition", "empty")]
            text = texts[self.updates % len(texts)]
            return Completion(honest.token_ids, honest.logprobs, "stop", text=text)
        name, text = list(REPLIES.items())[self.turn % len(REPLIES)]
        self.turn += 1
        if name == "empty":
            return Completion((), (), "stop", text="")
        return Completion(honest.token_ids, honest.logprobs, "length", text=text)


@dataclass(frozen=True)
class FlakyConfig:
    """`fails`: never, some, bug, role, later (from the fifth rollout on, while a file `down` is there)."""

    fails: str = "never"


@register("agent", "flaky", config=FlakyConfig)
class Flaky:
    """Asks once; then fails as it is told."""

    def __init__(self, fails):
        self.fails = fails
        self.turn = 0

    async def __call__(self, task, models):
        self.turn += 1
        turn = self.turn
        call = await models["policy"].chat([Message("user", task.question)], module="answer", max_tokens=24)
        if self.fails == "some" and turn % 4 == 1:
            raise ServiceError("the server at http://nowhere gave up")
        if self.fails == "bug":
            raise RuntimeError("a bug in the agent")
        if self.fails == "role":
            models["juge"]
        if self.fails == "later" and turn > 4 and (Path(__file__).parent / "down").exists():
            raise ServiceError("the server at http://nowhere cannot be reached")
        return Outcome(reply=call.text)
'''


@pytest.fixture(scope="module")
def recipe(tmp_path_factory: pytest.TempPathFactory, policy_folder: Path) -> Path:
    recipe = write_project(tmp_path_factory.mktemp("faults"), policy_folder)
    (recipe.parent / "faults.py").write_text(PLUGIN)
    return recipe


def train(recipe: Path, folder: Path, *options: str) -> Ended:
    return launch(
        ["train", str(recipe), "-o", str(folder / "run"), "plugins=[plugin.py,faults.py]", *options], folder
    )


def flaky(fails: str) -> list[str]:
    return [
        "~agent",
        f"+agent={{type: flaky, fails: {fails}}}",
        "trainer.eval_before=false",
        "trainer.save_every=1",
    ]


def metrics(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "run" / "metrics.jsonl").read_text().splitlines()]


def test_wild_replies_are_scored_counted_and_trained_on(recipe: Path, tmp_path: Path) -> None:
    ended = train(
        recipe, tmp_path, "~sampler", "+sampler={type: wild}", "trainer.log_rollouts=100", "trainer.steps=2"
    )
    assert ended.code == 0, ended.err
    assert "Traceback" not in ended.err
    run = metrics(tmp_path)
    assert [record["rollouts/failed"] for record in run] == [0, 0]
    # Of the eight calls of a step, four answers are said to be cut off, but for the empty one.
    assert {record["calls/truncated"] for record in run} <= {3 / 8, 4 / 8}
    evaluation = json.loads((tmp_path / "run" / "evaluation" / "before.json").read_text())
    for result in evaluation["sets"].values():
        assert result["failed"] == 0
        assert result["scores"]["exact_match"] == 0
    replies = [p["reply"] for result in evaluation["sets"].values() for p in result["predictions"]]
    assert max(len(reply) for reply in replies) > 10**6
    assert sum(p["truncated_calls"] > 0 for p in evaluation["sets"]["1x"]["predictions"]) == 3
    records = [
        json.loads(line)
        for path in (tmp_path / "run" / "rollouts").iterdir()
        for line in path.read_text().splitlines()
    ]
    assert {record["reply"] for record in records} >= {"", "I do not know"}


def test_an_empty_reply_makes_no_row(recipe: Path, tmp_path: Path) -> None:
    ended = train(
        recipe, tmp_path, "~sampler", "+sampler={type: wild}", "trainer.eval_before=false", "trainer.steps=2"
    )
    assert ended.code == 0, ended.err
    # The seventh reply is the empty one: the second step has it, and it has one row less than calls.
    assert [record["calls"] - record["rows"] for record in metrics(tmp_path)] == [0, 1]


def test_failed_rollouts_are_counted_and_the_rest_trains(recipe: Path, tmp_path: Path) -> None:
    ended = train(recipe, tmp_path, *flaky("some"))
    assert [record["step"] for record in metrics(tmp_path)] == [1, 2, 3]
    for record in metrics(tmp_path):
        assert (record["rollouts"], record["rollouts/failed"], record["rows"]) == (4, 1, 3)
        assert record["grad_norm"] > 0
    # A score needs all its rollouts: the evaluation afterwards is not made of what is there.
    assert ended.code == 1 and len(ended.error_lines) == 1 and "so there is no score" in ended.err
    assert not (tmp_path / "run" / "evaluation" / "after.json").exists()


def test_when_all_rollouts_fail_it_stops_with_one_line_and_resumes(recipe: Path, tmp_path: Path) -> None:
    assert train(recipe, tmp_path / "whole", *flaky("later")).code == 0
    down = recipe.parent / "down"
    down.touch()
    try:
        stopped = train(recipe, tmp_path / "stopped", *flaky("later"))
    finally:
        down.unlink()
    assert stopped.code == 1
    assert stopped.error_lines == [
        "error: all 4 rollouts of step 2 failed; first: the server at http://nowhere cannot be reached"
    ]
    again = train(recipe, tmp_path / "stopped", *flaky("later"))
    assert again.code == 0, again.err
    assert "resuming after step 1" in again.out
    assert fingerprint(tmp_path / "stopped" / "run") == fingerprint(tmp_path / "whole" / "run")


def test_scores_of_a_service_that_was_down_are_not_kept(recipe: Path, tmp_path: Path) -> None:
    down = recipe.parent / "down"
    down.touch()
    try:
        # Four rollouts of training go through, those of the evaluation afterwards fail.
        stopped = train(recipe, tmp_path, *flaky("later"), "trainer.steps=1")
    finally:
        down.unlink()
    assert stopped.code == 1
    assert len(stopped.error_lines) == 1 and "set '1x'" in stopped.err
    assert not (tmp_path / "run" / "evaluation" / "after.json").exists()
    assert train(recipe, tmp_path, *flaky("later"), "trainer.steps=1").code == 0
    after = json.loads((tmp_path / "run" / "evaluation" / "after.json").read_text())
    assert [result["failed"] for result in after["sets"].values()] == [0, 0]


def test_a_bug_in_an_agent_is_a_traceback_of_its_own_error(recipe: Path, tmp_path: Path) -> None:
    ended = train(recipe, tmp_path, *flaky("bug"))
    assert ended.code == 1
    assert ended.err.count("RuntimeError: a bug in the agent") == 1
    assert "Traceback" in ended.err and "faults.py" in ended.err
    assert "ExceptionGroup" not in ended.err


def test_a_role_that_nobody_plays_is_one_line(recipe: Path, tmp_path: Path) -> None:
    ended = train(recipe, tmp_path, *flaky("role"))
    assert ended.code == 2
    assert len(ended.error_lines) == 1 and "'juge'" in ended.err


def test_sampler_and_learner_that_disagree_stop_the_run(recipe: Path, tmp_path: Path) -> None:
    """A threshold that float32 rounding cannot keep stands for wrong weights."""
    ended = train(recipe, tmp_path, "trainer.parity_threshold=0.0")
    assert ended.code == 1
    assert len(ended.error_lines) == 1 and "sampler and learner disagree" in ended.err
    assert not (tmp_path / "run" / "final").exists()
    assert not (tmp_path / "run" / "checkpoints").exists()
