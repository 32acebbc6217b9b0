"""The order in which the loop updates, syncs, evaluates and saves; and how a step refills its groups."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from memfactory.algorithms.objective import Objective
from memfactory.core.chat import Models
from memfactory.core.errors import BadInput, ServiceError, TaskError, UserError
from memfactory.core.stopping import Stopped
from memfactory.core.types import Completion, Message, Outcome, Rollout, Row, SamplingRequest, Task
from memfactory.data.sampling import TaskOrder
from memfactory.environments.long_context import LongContext
from memfactory.evaluation.runner import SetResult, evaluate_set
from memfactory.rewards.rubric import RewardComponent, Rubric
from memfactory.rollouts.collect import Collector
from memfactory.samplers.scripted import ScriptedSampler
from memfactory.training.rl import GroupSettings, RolloutSource
from memfactory.training.run_folder import RunFolder
from memfactory.training.trainer import Batch, Schedule, Trainer
from tests.unit.fakes import FakeLearner, models_of, task

ROW = Row((1,), (2,), (-0.1,), 1.0, 0)


class FakeSource:
    """Makes `rows_at(step)` rows, takes two tasks a step, and notes what it is asked."""

    def __init__(self, events: list[str], rows: Mapping[int, int] | None = None) -> None:
        self.events = events
        self.rows_at = rows or {}
        self.signal_at: int | None = None

    def rows(self, step: int, position: int) -> Batch:
        self.events.append(f"rows {step}@{position}")
        if self.signal_at == step:
            os.kill(os.getpid(), signal.SIGINT)
        return Batch([ROW] * self.rows_at.get(step, 1), position + 2, {"reward": 0.5}, [{"task": "t"}])

    def sync(self, learner: Any, version: int) -> Mapping[str, float]:
        self.events.append(f"sync {version}")
        return {"sync/parity_max": 0.0}

    def rest(self) -> None:
        self.events.append("rest")

    def evaluate(self, label: str, learner: Any) -> dict[str, Any]:
        self.events.append(f"evaluate {label}")
        return {"sets": {"1x": learner.updates}}


class Quiet:
    def start(self, step: int, steps: int) -> None: ...
    def step(self, record: Mapping[str, Any], seconds: float) -> None: ...
    def say(self, line: str) -> None: ...


def trainer(run: Path, events: list[str], schedule: Schedule, **rows: Any) -> Trainer:
    source = FakeSource(events, rows.get("rows"))
    return Trainer(source, FakeLearner(events), Objective(), schedule, RunFolder(run), Quiet())


def test_the_order_of_a_whole_run(tmp_path: Path) -> None:
    events: list[str] = []
    schedule = Schedule(steps=4, save_every=3, eval_every=2)
    assert trainer(tmp_path, events, schedule).train() == 0
    assert events == [
        *("sync 0", "evaluate before", "sync 0"),
        *("rows 0@0", "rest", "update 1", "sync 1"),
        *("rows 1@2", "rest", "update 1", "sync 2", "save", "evaluate step-2", "sync 2"),
        *("rows 2@4", "rest", "update 1", "sync 3", "save"),
        *("rows 3@6", "rest", "update 1", "sync 4", "save"),
        *("evaluate after", "sync 4"),
    ]
    assert (tmp_path / "final" / "weights").read_text() == "4"


def test_a_step_without_rows_counts_but_nothing_is_learned(tmp_path: Path) -> None:
    events: list[str] = []
    schedule = Schedule(steps=2, eval_before=False, eval_after=False)
    run = trainer(tmp_path, events, schedule, rows={0: 0})
    assert run.train() == 0
    assert [event for event in events if event.startswith("update")] == ["update 1"]
    records = RunFolder(tmp_path).metrics()
    assert [(record["step"], record["rows"]) for record in records] == [(1, 0), (2, 1)]
    assert "loss" not in records[0]
    assert run.state.position == 4


def test_a_resumed_run_goes_on_where_the_checkpoint_was(tmp_path: Path) -> None:
    schedule = Schedule(steps=5, save_every=2, eval_before=True, eval_after=False)
    first: list[str] = []
    broken = trainer(tmp_path, first, schedule)
    broken.source.rows = _fail_at(broken.source.rows, step=3)  # type: ignore[method-assign]
    with pytest.raises(RuntimeError):
        broken.train()
    broken.run.release()
    events: list[str] = []
    again = trainer(tmp_path, events, schedule)
    assert again.train() == 0
    # The evaluation before is not repeated, step 3 (lost with the kill) is.
    assert events[:3] == ["load 2", "sync 2", "rows 2@4"]
    assert [record["step"] for record in again.run.metrics()] == [1, 2, 3, 4, 5]
    assert (tmp_path / "final" / "weights").read_text() == "5"


def _fail_at(rows: Any, step: int) -> Any:
    def failing(number: int, position: int) -> Batch:
        if number == step:
            raise RuntimeError("killed")
        return rows(number, position)  # type: ignore[no-any-return]

    return failing


def test_ctrl_c_finishes_the_step_and_saves(tmp_path: Path) -> None:
    events: list[str] = []
    run = trainer(tmp_path, events, Schedule(steps=9, save_every=5, eval_before=False))
    run.source.signal_at = 1  # type: ignore[attr-defined]
    handler = signal.getsignal(signal.SIGINT)
    assert run.train() == 130
    assert signal.getsignal(signal.SIGINT) is handler
    assert events[-5:] == ["rows 1@2", "rest", "update 1", "sync 2", "save"]
    assert not (tmp_path / "final").exists()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize(("label", "saved"), [("before", []), ("step-2", [2]), ("after", [2, 4])])
def test_a_signal_in_an_evaluation_stops_at_once_and_loses_nothing(
    label: str, saved: list[int], number: int, tmp_path: Path
) -> None:
    schedule = Schedule(steps=4, save_every=9, eval_every=2)
    first: list[str] = []
    run = trainer(tmp_path / "stopped", first, schedule)
    evaluate = run.source.evaluate

    def strike(name: str, learner: Any) -> dict[str, Any]:
        if name == label:
            os.kill(os.getpid(), number)
            raise AssertionError("the evaluation went on")
        return evaluate(name, learner)

    run.source.evaluate = strike  # type: ignore[method-assign]
    handler = signal.getsignal(number)
    with pytest.raises(Stopped) as caught:
        run.train()
    assert caught.value.exit_code == 128 + number and signal.getsignal(number) is handler
    assert [step for step, _ in run.run.checkpoints.all()] == saved
    run.run.release()
    again = trainer(tmp_path / "stopped", events := list[str](), schedule)
    assert again.train() == 0
    whole = trainer(tmp_path / "whole", all_events := list[str](), schedule)
    assert whole.train() == 0
    done = {event for event in (*first, *events) if event.startswith("evaluate")}
    assert done == {event for event in all_events if event.startswith("evaluate")}
    assert len([event for event in (*first, *events) if event.startswith("rows")]) == 4
    assert (tmp_path / "stopped" / "final" / "weights").read_text() == "4"


def test_figures_that_are_no_number_are_null_in_the_metrics(tmp_path: Path) -> None:
    run = trainer(tmp_path, [], Schedule(steps=1, eval_before=False, eval_after=False), rows={0: 13})
    assert run.train() == 0
    (line,) = (tmp_path / "metrics.jsonl").read_text().splitlines()
    assert json.loads(line, parse_constant=lambda name: pytest.fail(name))["loss"] is None


@pytest.mark.parametrize("content", ["", "{}", '{"format": 0}', "[]", '{"format": 1, "stepp": 3}'])
def test_a_damaged_checkpoint_is_named(content: str, tmp_path: Path) -> None:
    folder = tmp_path / "checkpoints" / "step-3"
    folder.mkdir(parents=True)
    (folder / "trainer.json").write_text(content)
    with pytest.raises(BadInput, match=r"step-3: trainer\.json"):
        trainer(tmp_path, [], Schedule(steps=5)).train()


class Watched(FakeLearner):
    """Notes the place in the plan that each update gets; from step `broken` on its weights give no numbers."""

    def __init__(self, events: list[str], broken: int = 99) -> None:
        super().__init__(events)
        self.planned: list[int | None] = []
        self.broken = broken

    def update(self, rows: Sequence[Row], objective: Any, planned: int | None = None) -> dict[str, float]:
        self.planned.append(planned)
        return {**super().update(rows, objective), "steps": 1.0}

    def logprobs(self, rows: Sequence[Row], temperature: float = 1.0) -> list[list[float]]:
        value = float("nan") if self.updates >= self.broken else -1.0
        return [[value] * len(row.completion_ids) for row in rows]


@pytest.mark.parametrize("staleness", [0, 1])
def test_a_step_without_rows_keeps_its_place_in_the_plan(staleness: int, tmp_path: Path) -> None:
    schedule = Schedule(steps=5, save_every=2, eval_before=False, eval_after=False, max_staleness=staleness)
    run = trainer(tmp_path, [], schedule, rows={1: 0, 3: 0})
    run.learner = learner = Watched([])
    run.objective = Objective(epochs=2, minibatches=3)
    run.source.rows = _fail_at(run.source.rows, step=4)  # type: ignore[method-assign]
    with pytest.raises(RuntimeError):
        run.train()
    run.run.release()
    again = trainer(tmp_path, [], schedule, rows={1: 0, 3: 0})
    again.learner = resumed = Watched([])
    again.objective = run.objective
    assert again.train() == 0
    # With rows made ahead the kill came a step earlier, and the third step is done again.
    assert (learner.planned, resumed.planned) == ([0, 12], [12, 24] if staleness else [24])


def test_weights_that_give_no_numbers_are_not_saved(tmp_path: Path) -> None:
    schedule = Schedule(steps=6, save_every=2, eval_before=False, eval_after=False)
    run = trainer(tmp_path, [], schedule)
    run.learner = Watched([], broken=3)
    with pytest.raises(UserError, match="step 4: the new weights give no numbers") as caught:
        run.train()
    assert caught.value.exit_code != 0
    assert [step for step, _ in run.run.checkpoints.all()] == [2]
    assert not (tmp_path / "final").exists()


def test_steps_without_rows_are_said_while_it_happens(tmp_path: Path) -> None:
    said: list[str] = []

    class Heard(Quiet):
        def say(self, line: str) -> None:
            said.append(line)

    schedule = Schedule(steps=4, eval_before=False, eval_after=False)
    run = trainer(tmp_path, [], schedule, rows=dict.fromkeys(range(4), 0))
    run.view = Heard()
    assert run.train() == 0
    assert [line for line in said if line.startswith("warning: step 3: nothing to learn from")]
    assert len(said) == 1


# --- RolloutSource --------------------------------------------------------------------------------


class Chooser:
    """An agent that asks once; tasks named `flat...` get one reward for all copies, others differ.

    Tasks named `down...` fail by a service, `long...` by the task itself.
    """

    async def __call__(self, task: Task, models: Models) -> Outcome:
        call = await models["policy"].chat([Message("user", task.id)], module="answer", max_tokens=5)
        if task.id.startswith("down"):
            raise ServiceError("the judge is down")
        if task.id.startswith("long"):
            raise TaskError("too long")
        return Outcome(reply=call.text)


async def reward(rollout: Rollout) -> float:
    return 1.0 if rollout.task.id.startswith("flat") else float(rollout.index)


def rollout_source(names: list[str], settings: GroupSettings) -> tuple[RolloutSource, ScriptedSampler]:
    sampler = ScriptedSampler(["yes"], takes_weights=True)
    tasks = [task(name) for name in names]
    environment = LongContext(Rubric({"r": RewardComponent(reward)}), tasks, {"held": tasks[:1]})
    collector = Collector(Chooser(), models_of(sampler), environment.score)

    def evaluate(label: str) -> dict[str, SetResult]:
        return {
            name: evaluate_set(collector, name, held, repeats=2, phase="eval")
            for name, held in environment.eval_tasks.items()
        }

    order = TaskOrder(len(names), seed=0)
    order.at = lambda place: place % len(names)  # type: ignore[method-assign]
    return RolloutSource(settings, environment, collector, sampler, order, [(1, 2)], evaluate), sampler


def taken(sampler: ScriptedSampler) -> list[str]:
    return [request.messages[0].content for request in sampler.requests]


def test_groups_without_variance_are_replaced_by_the_next_tasks() -> None:
    names = ["flat0", "a", "flat1", "b", "flat2", "c", "d"]
    settings = GroupSettings(tasks_per_step=3, group_size=2, dynamic_sampling=True)
    source, sampler = rollout_source(names, settings)
    batch = source.rows(0, 0)
    # flat0 and flat1 are replaced by b and flat2, then flat2 by c.
    assert taken(sampler)[::2] == ["flat0", "a", "flat1", "b", "flat2", "c"]
    assert batch.position == 6
    assert batch.metrics["groups"] == 6 and batch.metrics["groups/flat"] == 0.5
    assert len({row.rollout_id for row in batch.rows}) == 6  # two rollouts each of a, b and c
    assert len(batch.rows) == 6
    seeds = [request.seed for request in sampler.requests]
    assert len(set(seeds)) == len(seeds)


def test_a_task_that_comes_again_in_a_refill_is_drawn_anew() -> None:
    settings = GroupSettings(tasks_per_step=1, group_size=2, dynamic_sampling=True, max_refills=3)
    source, sampler = rollout_source(["flat"], settings)
    batch = source.rows(5, 0)
    assert batch.position == 4, "three refills, then it has to do with what there is"
    assert len({request.seed for request in sampler.requests}) == 8
    assert batch.rows == [] and batch.metrics["groups/flat"] == 1


def test_without_dynamic_sampling_flat_groups_are_only_counted() -> None:
    source, _ = rollout_source(["flat0", "a"], GroupSettings(tasks_per_step=2, group_size=2))
    batch = source.rows(0, 0)
    assert batch.position == 2
    assert batch.metrics["groups/flat"] == 0.5
    assert len(batch.rows) == 2


def test_the_rows_of_a_step_depend_on_step_and_position_alone() -> None:
    settings = GroupSettings(tasks_per_step=2, group_size=2, dynamic_sampling=True)
    names = ["a", "flat", "b", "c"]
    source, sampler = rollout_source(names, settings)
    source.rows(0, 0)
    sampler.requests.clear()
    once = source.rows(1, 3)
    fresh, other = rollout_source(names, settings)
    assert fresh.rows(1, 3).rows == once.rows
    assert other.requests == sampler.requests


def test_failed_rollouts_are_counted_unless_all_fail() -> None:
    settings = GroupSettings(tasks_per_step=2, group_size=2)
    batch = rollout_source(["down", "a"], settings)[0].rows(0, 0)
    assert batch.metrics["rollouts/failed"] == 2
    assert len(batch.rows) == 2
    with pytest.raises(ServiceError, match=r"all 4 rollouts of step 1 failed; first: the judge is down"):
        rollout_source(["down1", "down2"], settings)[0].rows(0, 0)
    with pytest.raises(ServiceError, match="too long"):
        rollout_source(["long1", "long2"], settings)[0].rows(0, 0)


def test_scores_of_an_evaluation_in_which_everything_failed_are_refused() -> None:
    settings = GroupSettings(tasks_per_step=1, group_size=2)
    with pytest.raises(ServiceError, match="2 of 2 rollouts of set 'held' are not finished"):
        rollout_source(["down"], settings)[0].evaluate("before", FakeLearner([]))
    scores = rollout_source(["a"], settings)[0].evaluate("before", FakeLearner([]))
    assert scores["sets"]["held"]["failed"] == 0


def test_sync_gives_the_sampler_the_learners_weights_and_version() -> None:
    source, sampler = rollout_source(["a"], GroupSettings(tasks_per_step=1, group_size=2))
    metrics = source.sync(FakeLearner([]), 7)
    assert sampler.policy_version == 7
    assert metrics["sync/parity_max"] == 0
    batch = source.rows(0, 0)
    assert {call["policy_version"] for record in batch.records for call in record["calls"]} == {7}


def test_rollouts_kept_as_text_are_as_many_as_asked_for_in_whole_groups() -> None:
    for wanted, kept in ((0, 0), (1, 2), (2, 2), (3, 4), (9, 4)):
        source, _ = rollout_source(["a", "b"], GroupSettings(2, 2, log_rollouts=wanted))
        records = source.rows(0, 0).records
        assert len(records) == kept
        assert [(record["group"], record["index"]) for record in records] == [
            (number // 2, number % 2) for number in range(kept)
        ]


def test_of_a_recorded_group_only_the_first_rollout_has_long_prompts_whole() -> None:
    question = "w" * 5000
    source, _ = rollout_source([question], GroupSettings(1, 3, log_rollouts=3))
    first, *copies = (record["calls"][0]["prompt"] for record in source.rows(0, 0).records)
    assert first == question
    assert copies == [f"{question[:1000]}\n[… 3,000 characters left out …]\n{question[:1000]}"] * 2


def test_a_reply_function_sees_every_copy_with_a_seed_of_its_own() -> None:
    source, sampler = rollout_source(["a"], GroupSettings(tasks_per_step=1, group_size=8))

    def reply(request: SamplingRequest) -> Completion:
        return Completion((request.seed % 97,), (-1.0,), "stop")

    sampler._replies = reply
    rows = source.rows(0, 0).rows
    assert len({row.completion_ids for row in rows}) > 4
