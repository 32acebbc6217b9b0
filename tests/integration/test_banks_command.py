"""`memfactory data banks`: an agent reads dialogues once, and its banks become what rollouts begin with."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from memfactory.cli.main import run
from memfactory.data.banks import read_banks
from memfactory.data.sources import dialogues
from memfactory.data.starting_banks import temporal_pairs

RECIPE = """
defaults:
  - sampler: scripted
  - learner: local
  - algorithm: grpo
  - agent: memory_r1
  - environment: memory_bank
  - data: dialogue_pairs
  - reward: exact_match
  - tracker: none
  - model: tiny
  - _self_
name: banks
agent: {extractor_tokens: 60, manager_tokens: 90, answer_tokens: 10, retriever: {type: bank, method: bm25}}
prompts: {extract: "{session}", manage: "{memories}{facts}", answer_from_memories: "{question}{memories}"}
sampler:
  replies:
    - '{"facts": ["Ana sings."]}'
    - '{"operations": [{"op": "ADD", "text": "Ana sings."}]}'
    - '{"facts": []}'
data: {train: {of: {size: 3, sessions: 2, small_talk: 0}}}
"""


@pytest.fixture
def recipe(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "banks.yaml"
    path.write_text(RECIPE)
    return str(path)


def test_banks_are_written_once_and_taken_up(recipe: str, capsys: pytest.CaptureFixture[str]) -> None:
    # One dialogue after the other, so that the script's replies fall to the sessions in order.
    command = ["data", "banks", recipe, "evaluation.concurrency=1", "--output", "banks.jsonl"]
    assert run([*command, "--limit", "2"]) == 0
    assert "session 2/2, 1 memories" in capsys.readouterr().err
    first = Path("banks.jsonl").read_bytes()
    banks = read_banks("banks.jsonl")
    tasks = dialogues(size=3, sessions=2, small_talk=0)
    assert list(banks) == [task.evidence.id for task in tasks[:2]]
    for name, bank in banks.items():
        whole = next(task.evidence for task in tasks if task.evidence.id == name)
        assert [[m.text for m in held] for held in bank.values()] == [["Ana sings."]] * 2
        assert bank["session_2"][0].time == whole.sessions[0].time
    assert run(command) == 0
    assert "2 dialogues are there already" in capsys.readouterr().err
    assert Path("banks.jsonl").read_bytes().startswith(first) and len(read_banks("banks.jsonl")) == 3
    made = temporal_pairs(tasks, banks="banks.jsonl")
    assert {len(task.evidence.memories) for task in made} == {0, 1}


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ("agent.related=3", "was begun with another recipe"),
        ("prompts.extract={session}{time}", "was begun with another recipe"),
        ("agent={type: memagent}", "keeps no memory bank"),
        ("data.train={type: facts, size: 2}", "has no dialogues"),
    ],
)
def test_what_cannot_be_written_is_one_line(
    recipe: str, change: str, named: str, capsys: pytest.CaptureFixture[str]
) -> None:
    header = {
        "format": "memfactory-banks",
        "version": 1,
        "agent": "memory_r1",
        "model": "tiny",
        "recipe": "x",
    }
    Path("banks.jsonl").write_text(json.dumps(header) + "\n")
    changes = [f"~{change.split('=')[0]}", change] if "{type" in change else [change]
    if change.startswith("agent={"):
        changes += [
            "prompts={update: '{question}{memory}{block}', answer: '{question}{memory}', empty_memory: no}"
        ]
    assert run(["data", "banks", recipe, *changes, "--output", "banks.jsonl"]) == 2
    assert named in capsys.readouterr().err
    assert Path("banks.jsonl").read_text() == json.dumps(header) + "\n"


def test_a_session_that_does_not_fit_is_told_and_the_others_are_kept(
    recipe: str, capsys: pytest.CaptureFixture[str]
) -> None:
    long = "data.train.of={type: dialogues, size: 1, sessions: 1, facts_per_session: 40}"
    assert run(["data", "banks", recipe, long, "--output", "b.jsonl"]) == 1
    assert "exceeds the context" in capsys.readouterr().err
    assert read_banks("b.jsonl") == {}
