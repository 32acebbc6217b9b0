"""`memfactory data banks`: an agent reads dialogues once, and its banks become what rollouts begin with."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest

from memfactory.cli.main import run
from memfactory.commands import banks
from memfactory.core.errors import BadInput
from memfactory.core.types import Completion, SamplingRequest
from memfactory.data.banks import BankWriter, read_banks
from memfactory.data.dialogue import Memory
from memfactory.data.sources import dialogues
from memfactory.data.starting_banks import temporal_pairs
from memfactory.samplers.roles import Cast
from memfactory.samplers.scripted import ScriptedSampler

RECIPE = r"""
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
prompts:
  extract: "EXTRACT\n{session}"
  manage: "{memories}\n{facts}"
  answer_from_memories: "{question}{memories}"
data: {train: {of: {size: 3, sessions: 2, small_talk: 0}}}
"""


def reply(request: SamplingRequest) -> Completion:
    """The session's first turn is a fact, and every fact is added; as text, as the tiny tokenizer has no such words."""
    prompt = request.messages[0].content
    if prompt.startswith("EXTRACT"):
        text = json.dumps({"facts": [prompt.splitlines()[1]]})
    else:
        text = json.dumps({"operations": [{"op": "ADD", "text": prompt.split("- ")[-1]}]})
    return Completion((1,), (0.0,), "stop", text=text)


@pytest.fixture
def recipe(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(
        banks, "open_sampler", lambda recipe, policy: Cast(ScriptedSampler(reply, max_model_len=256))
    )
    path = tmp_path / "banks.yaml"
    path.write_text(RECIPE)
    return str(path)


def test_banks_are_written_once_and_taken_up(recipe: str, capsys: pytest.CaptureFixture[str]) -> None:
    command = ["data", "banks", recipe, "--output", "banks.jsonl"]
    assert run([*command, "--limit", "2"]) == 0
    assert "session 2/2, 2 memories" in capsys.readouterr().err
    first = Path("banks.jsonl").read_bytes()
    found = read_banks("banks.jsonl")
    tasks = dialogues(size=3, sessions=2, small_talk=0)
    assert set(found) == {task.evidence.id for task in tasks[:2]}
    for task in tasks[:2]:
        one, two = task.evidence.sessions
        memories = [Memory(str(session.turns[0]), session.id, session.time) for session in (one, two)]
        for session, held in zip((one, two), (memories[:1], memories), strict=True):
            kept = [dataclasses.replace(m, sources=()) for m in found[task.evidence.id][session.id]]
            assert kept == held
    assert run(command) == 0
    assert "2 dialogues are there already" in capsys.readouterr().err
    assert Path("banks.jsonl").read_bytes().startswith(first) and len(read_banks("banks.jsonl")) == 3
    whole = Path("banks.jsonl").read_text()
    Path("banks.jsonl").write_text(whole.replace('"text": "', '"text": "x', 1))
    for reading in (lambda: read_banks("banks.jsonl"), lambda: BankWriter(Path("banks.jsonl"), {})):
        with pytest.raises(BadInput, match=r"banks\.jsonl:2: is not as it was written"):
            reading()
    Path("banks.jsonl").write_text(whole)
    made = temporal_pairs(tasks, banks="banks.jsonl")
    assert [len(t.evidence.memories) for t in made] == [int(t.meta["part"] == "session_2") for t in made]


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
