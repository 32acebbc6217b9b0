"""A journal gives back what was finished, forgets half a line, and touches nothing that is not its own."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from memfactory.core.chat import Models
from memfactory.core.errors import BadInput, ServiceError
from memfactory.core.types import Message, Outcome, Rollout, Task, Verdict
from memfactory.evaluation.journal import Journal, Key, Line
from memfactory.evaluation.predictions import Finished, digest
from memfactory.evaluation.runner import SetResult, Settings, evaluate_set
from memfactory.rollouts.collect import Collector
from memfactory.samplers.scripted import ScriptedSampler
from tests.unit.fakes import models_of, task

CONFIGURATION = {"recipe": {"seed": 1}}


class Run:
    """Evaluates tasks with an agent that counts its runs and can lose its service after some of them."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "journal.jsonl"
        self.made: list[tuple[str, int]] = []
        self.lose_after: int | None = None
        self.unjudged = ""

    async def agent(self, task: Task, models: Models) -> Outcome:
        if self.lose_after is not None and len(self.made) >= self.lose_after:
            raise ServiceError("the engine is lost")
        call = await models["policy"].chat([Message("user", task.question)], module="answer", max_tokens=40)
        self.made.append((task.id, len([name for name, _ in self.made if name == task.id])))
        return Outcome(reply=f"{call.text} {task.id}", memories=("a \ud800 memory",))

    async def score(self, rollout: Rollout) -> dict[str, float]:
        """A judge that cannot judge the tasks of `unjudged`."""
        value = None if rollout.task.id in self.unjudged else 1.0
        rollout.verdicts["judge"] = Verdict("gpt-x", value, "timed out" if value is None else "yes")
        return {} if value is None else {"judge": value}

    def __call__(self, tasks: list[Task], repeats: int = 1, set_name: str = "s") -> SetResult:
        sampler = ScriptedSampler(["gold"])
        collector = Collector(self.agent, models_of(sampler), self.score, concurrency=2)
        with Journal(self.path, CONFIGURATION) as journal:
            return evaluate_set(
                collector, set_name, tasks, phase="eval", settings=Settings(repeats=repeats), journal=journal
            )


@pytest.fixture
def run(tmp_path: Path) -> Run:
    return Run(tmp_path)


def tasks(*names: str) -> list[Task]:
    return [task(name) for name in names]


def test_what_a_lost_service_left_is_gone_on_with(run: Run) -> None:
    run.lose_after = 3
    with pytest.raises(ServiceError, match="2 of 5 rollouts"):
        run(tasks(*"abcde"))
    run.lose_after = None
    result = run(tasks(*"abcde"))
    assert sorted(run.made) == [(name, 0) for name in "abcde"], "each once, over both starts"
    assert [p.task_id for p in result.predictions] == list("abcde")
    whole = run(tasks(*"abcde"))
    assert len(run.made) == 5
    assert whole == result or whole.predictions == result.predictions


def test_the_second_start_scores_as_one_that_was_never_stopped(run: Run, tmp_path: Path) -> None:
    run.lose_after = 2
    with pytest.raises(ServiceError):
        run(tasks(*"abc"), repeats=2)
    run.lose_after = None
    resumed = run(tasks(*"abc"), repeats=2)
    (tmp_path / "other").mkdir()
    fresh = Run(tmp_path / "other")(tasks(*"abc"), repeats=2)

    def shown(result: SetResult) -> list[object]:
        return [(p.task_id, p.index, p.answer, p.scores, p.finished.memories) for p in result.predictions]

    assert shown(resumed) == shown(fresh)
    assert resumed.metrics == fresh.metrics
    assert resumed.cost.completion_tokens == fresh.cost.completion_tokens


def test_more_repeats_more_tasks_and_another_set_make_only_what_is_new(run: Run) -> None:
    run(tasks("a", "b"))
    run(tasks("a", "b", "c"), repeats=2)
    assert len(run.made) == 6
    run(tasks("a"), set_name="other")
    assert len(run.made) == 7


def test_what_a_judge_failed_on_is_judged_again_by_the_next_start(run: Run) -> None:
    run.unjudged = "b"
    first = run(tasks(*"abc"))
    assert (first.judges["judge"].judged, first.judges["judge"].unjudged) == (2, 1)
    assert (first.rewards["judge"].mean, first.rewards["judge"].unscored) == (1.0, 1)
    run.unjudged = ""
    again = run(tasks(*"abc"))
    assert (again.judges["judge"].judged, again.judges["judge"].unjudged) == (3, 0)
    assert len(run.made) == 4


def test_a_task_whose_text_changed_is_done_again(run: Run) -> None:
    run([task("a", evidence="one")])
    run([task("a", evidence="two")])
    assert len(run.made) == 2


def test_a_task_whose_gold_evidence_changed_is_done_again(run: Run) -> None:
    """An oracle reads it, though the text is the same."""
    one, two = (Task("a", "Who?", "", ("gold",), {"gold_evidence": text}) for text in ("one", "two"))
    for made in (one, two, one):
        run([made])
    assert len(run.made) == 2
    assert digest(one) == digest(two), "results on them can still be compared"


def test_half_a_line_is_forgotten(run: Run) -> None:
    run(tasks(*"abc"))
    whole = run.path.read_bytes()
    lines = whole.splitlines(keepends=True)
    for cut in (len(whole) - 1, len(whole) - 9, len(lines[0]) + 3, len(lines[0]) - 1, 5, 0):
        run.path.write_bytes(whole[:cut])
        run.made.clear()
        run(tasks(*"abc"))
        kept = max(0, whole[:cut].count(b"\n") - 1)
        assert len(run.made) == 3 - kept, cut
        assert run.path.read_bytes().count(b"\n") == 4


@pytest.mark.parametrize(
    "foreign", ["my notes", "my notes\nmore\n", "[]\n", '{"journal": 1, "configuration": {}}\n', "\n"]
)
def test_a_file_that_is_something_else_is_never_touched(foreign: str, run: Run) -> None:
    run.path.write_text(foreign)
    with pytest.raises(BadInput, match=r"journal\.jsonl:1: not a finished rollout"):
        run(tasks("a"))
    assert run.path.read_text() == foreign


def test_a_line_that_cannot_be_read_is_named(run: Run) -> None:
    run(tasks("a"))
    with run.path.open("a") as file:
        file.write("{}\n")
    with pytest.raises(BadInput, match=r"journal\.jsonl:3"):
        run(tasks("a"))


def test_two_processes_cannot_write_one_journal(run: Run) -> None:
    run(tasks("a"))
    with Journal(run.path, CONFIGURATION), pytest.raises(BadInput, match="another process"):
        Journal(run.path, CONFIGURATION)


def test_a_journal_without_a_line_is_no_file(run: Run) -> None:
    run.lose_after = 0
    with pytest.raises(ServiceError):
        run(tasks("a"))
    assert not run.path.exists()


@given(reply=st.text(), memory=st.text(), error=st.none() | st.text(), value=st.floats(0, 1))
def test_any_text_comes_back_as_it_was(
    reply: str, memory: str, error: str | None, value: float, tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = tmp_path_factory.mktemp("journal") / "j.jsonl"
    said = {"judge": Verdict("gpt-x", None, reply)}
    trace = ({"module": "m", "prompt": reply},)
    finished = Finished(reply, (memory,), {"r": value}, 1, 2, 3, 0, 0.5, error, {"add": 2}, said, trace)
    key = Key("s", "t", "d", 0)
    with Journal(path, CONFIGURATION) as journal:
        journal.add(key, Line(finished, "1", 0.25, 7, None))
    with Journal(path, CONFIGURATION) as journal:
        line = journal.get(key)
    assert line is not None and line.finished == finished
