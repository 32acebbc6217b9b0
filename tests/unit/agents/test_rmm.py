"""RMM: what becomes of sessions, what each call sees, what a question is answered from, and how the reranker learns."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from pathlib import Path

import pytest
from tests.unit.fakes import models_of

from memfactory.agents.components import component_learners, load_components, save_components
from memfactory.agents.rmm import Rmm, RmmRoles, keep
from memfactory.core.errors import BadInput
from memfactory.core.types import Call, Rollout, Task
from memfactory.data.dialogue import Dialogue, Session, Turn
from memfactory.data.synthetic.reranking import make_reranking_task
from memfactory.learners.linear_reranker import LinearReranker
from memfactory.memory.bank import InMemoryBank
from memfactory.memory.embedders import HashingEmbedder
from memfactory.modules.citing_answerer import CitingAnswerer
from memfactory.modules.mergers import AddAlways, MergeOrAdd
from memfactory.modules.pattern_reader import PatternReader
from memfactory.modules.reflectors import Topic, TopicsReflector, TurnsReflector
from memfactory.modules.rerankers import PolicyReranker, Reranker, RetrievalOrder
from memfactory.modules.retrievers import BankRetriever
from memfactory.rewards.evidence import Evidence
from memfactory.rewards.operations import ModuleFormat
from memfactory.rollouts.collect import Collector
from memfactory.samplers.roles import RolloutModels
from memfactory.samplers.scripted import ScriptedSampler

PROMPTS = {
    "reflect": "REFLECT {time}\n{session}",
    "merge": "MERGE\n{memories}\nNEW {topic}",
    "rerank": "RERANK {question} {most}\n{memories}",
    "rerank_memory": "{id}) {text}",
    "answer_with_citations": "ANSWER {question}\n{memories}",
}


def session(number: int, *texts: str) -> Session:
    turns = tuple(Turn(f"D{number}:{place}", "Ana", text) for place, text in enumerate(texts, start=1))
    return Session(f"session_{number}", f"day {number}", turns)


TASK = Task(
    "t",
    "What pets does Ana have?",
    Dialogue(
        "d",
        ("Ana", "Ben"),
        (session(1, "Hi.", "I have a cat."), session(2, "I got a dog.", "I live in Rome.")),
    ),
    ("cat and dog",),
    {"evidence_turns": ("D1:2", "D2:1")},
)
FIRST = '{"topics": [{"topic": "pets", "summary": "Ana has a cat.", "turns": [2]}]}'
SECOND = json.dumps(
    {
        "topics": [
            {"topic": "pets", "summary": "Ana got a dog.", "turns": [1]},
            {"topic": "home", "summary": "Ana lives in Rome.", "turns": [2]},
        ]
    }
)
MERGE = '{"actions": [{"op": "MERGE", "id": "m1", "text": "Ana has a cat and a dog."}]}'
ADD = '{"actions": [{"op": "ADD"}]}'


def make_agent(
    reranker: Reranker | None = None, *, method: str = "embedding", plain: bool = False, m: int = 1
) -> Rmm:
    """With `plain`, turns are memories and no model is asked but by the reranker."""
    return Rmm(
        reflector_tokens=1000,
        merger_tokens=1000,
        reranker_tokens=1000,
        answer_tokens=1000,
        top_k=20,
        top_m=m,
        roles=RmmRoles(),
        reflector=TurnsReflector(speakers=False) if plain else TopicsReflector(PROMPTS),
        merger=AddAlways() if plain else MergeOrAdd(PROMPTS),
        retriever=BankRetriever(method, HashingEmbedder()),  # type: ignore[arg-type]
        reranker=reranker or RetrievalOrder(),
        answerer=PatternReader() if plain else CitingAnswerer(PROMPTS),
    )


def run(agent: Rmm, replies: Sequence[str], task: Task = TASK) -> tuple[Rollout, list[str]]:
    """The rollout, and every prompt."""
    sampler = ScriptedSampler(list(replies))
    rollout = asyncio.run(Collector(agent, models_of(sampler)).rollout(task, 0, "test"))
    assert rollout.error is None and rollout.outcome is not None
    return rollout, [request.messages[0].content for request in sampler.requests]


def test_topics_are_added_or_merged_reranked_and_cited() -> None:
    replies = [FIRST, SECOND, MERGE, ADD, "I take the first. [1]", "\\boxed{cat and dog} [m1]"]
    rollout, prompts = run(make_agent(PolicyReranker(PROMPTS)), replies)
    assert [call.module for call in rollout.calls] == [
        "reflector",
        "reflector",
        "merger",
        "merger",
        "reranker",
        "answerer",
    ]
    assert prompts == [
        "REFLECT day 1\n1. Ana: Hi.\n2. Ana: I have a cat.",
        "REFLECT day 2\n1. Ana: I got a dog.\n2. Ana: I live in Rome.",
        "MERGE\n[m1] Ana has a cat.\nNEW Ana got a dog.",
        "MERGE\n[m1] Ana has a cat and a dog.\nNEW Ana lives in Rome.",
        "RERANK What pets does Ana have? 1\n1) Ana has a cat and a dog.\n2) Ana lives in Rome.",
        "ANSWER What pets does Ana have?\n[m1] (day 2) Ana has a cat and a dog.",
    ]
    assert rollout.outcome is not None
    info = dict(rollout.outcome.info)
    assert info["operations"] == {"add": 2, "merge": 1}
    assert info["sources"] == {"m1": ["D1:2", "D2:1"], "m2": ["D2:2"]}  # those of both
    assert (info["reranked"], info["used"], info["errors"], info["bank_size"]) == (["m1"], ["m1"], [], 2)
    assert info["format"] == {"reflector": 1.0, "merger": 1.0, "reranker": 1.0, "answerer": 1.0}
    assert rollout.outcome.memories[0] == "[m1] (day 1) Ana has a cat."
    assert [asyncio.run(Evidence(of)(rollout)) for of in ("retrieved", "reranked", "cited")] == [
        1.0,
        1.0,
        1.0,
    ]  # type: ignore[arg-type]


def test_wrong_replies_lose_nothing_and_are_counted() -> None:
    replies = [FIRST, SECOND, "no", ADD, "[7]", "\\boxed{?} [m9]"]
    rollout, prompts = run(make_agent(PolicyReranker(PROMPTS)), replies)
    assert rollout.outcome is not None
    info = dict(rollout.outcome.info)
    assert info["operations"] == {"add": 3, "merge": 0} and info["reranked"] == [] and info["used"] == []
    assert info["format"] == {"reflector": 1.0, "merger": 0.5, "reranker": 0.0, "answerer": 0.0}
    assert prompts[-1] == "ANSWER What pets does Ana have?\n(none)"
    assert asyncio.run(ModuleFormat("reranker")(rollout)) == 0.0
    assert asyncio.run(Evidence("reranked")(rollout)) == 0.0
    assert asyncio.run(Evidence("retrieved", top=1)(rollout)) in (0.0, 0.5)


def test_no_text_comes_twice_and_sources_are_united() -> None:
    bank = InMemoryBank("e", 1)
    vectors: dict[str, list[float] | None] = {"A.": [1.0], "B.": [1.0], "C.": [1.0]}
    day = session(1)
    kinds = [
        keep(Topic("A.", "", ("D1:1",)), bank, vectors, day),
        keep(Topic("A.", "", ("D1:2",)), bank, vectors, day),
        keep(Topic("B.", "", ("D1:3",)), bank, vectors, day),
        keep(Topic("C.", "", ("D1:4",)), bank, vectors, day, into="m2", text="A."),  # B becomes what A says
    ]
    assert kinds == ["add", "merge", "add", "merge"]
    (item,) = bank.items()
    assert (item.id, item.text) == ("m1", "A.")
    assert item.sources == ("D1:1", "D1:2", "D1:3", "D1:4")


def test_the_chat_protocol_leaves_nothing_in_the_agent() -> None:
    agent = make_agent()
    models = models_of(ScriptedSampler([FIRST, "\\boxed{cat} [m1]"]))(
        phase="ask", task=TASK, index=0, calls=[]
    )
    bank = agent.new_bank()
    remembered = asyncio.run(agent.remember(session(1, "Hi.", "I have a cat."), bank, models))
    answer = asyncio.run(agent.answer("Which pet?", bank, models))
    assert dict(remembered.operations) == {"add": 1} and len(bank) == 1
    assert (answer.reply, answer.used, [item.id for item in answer.found]) == (
        "\\boxed{cat} [m1]",
        ("m1",),
        ["m1"],
    )


# -- the linear reranker ---------------------------------------------------------------------------------------------


def dialogue_task(index: int, split: str = "train") -> Task:
    return make_reranking_task(index, seed=0, split=split, sessions=2, turns_per_session=6, asides=5)


def rollouts_of(agent: Rmm, indices: Sequence[int], phase: str) -> list[Rollout]:
    def models(
        *, phase: str, task: Task, index: int, calls: list[Call], progress: object = None
    ) -> RolloutModels:
        model = models_of(ScriptedSampler([""]))(phase=phase, task=task, index=index, calls=calls)["policy"]
        return RolloutModels({"policy": model}, None, (phase, task.id, index) if phase != "eval" else None)

    groups = Collector(agent, models).collect([dialogue_task(i) for i in indices], 1, phase)
    return [rollout for group in groups for rollout in group]


def recall(agent: Rmm, indices: Sequence[int]) -> float:
    found = [asyncio.run(Evidence("reranked")(rollout)) for rollout in rollouts_of(agent, indices, "eval")]
    return sum(value or 0.0 for value in found) / len(found)


def test_an_untrained_one_keeps_the_order_of_retrieval_and_learns_to_do_better() -> None:
    reranker = LinearReranker(lr=1e-2)
    agent = make_agent(reranker, plain=True, m=3)
    (first,) = rollouts_of(agent, [0], "eval")
    assert first.outcome is not None
    assert first.outcome.info["reranked"] == first.outcome.info["retrieved"][:3]
    held_out = range(1000, 1040)
    before = recall(agent, held_out)
    figures = {}
    for step in range(30):
        figures = component_learners(agent)["reranker"].update(
            rollouts_of(agent, range(8 * step, 8 * step + 8), f"train-{step}")
        )
    assert recall(agent, held_out) > before + 0.3
    assert figures["reranker/draws"] == 8.0 and 0 < figures["reranker/cited"] <= 1 / 3


def test_a_saved_one_goes_on_bit_for_bit(tmp_path: Path) -> None:
    def steps(agent: Rmm, numbers: Sequence[int]) -> None:
        for step in numbers:
            reranker = component_learners(agent)["reranker"]
            reranker.update(rollouts_of(agent, range(4 * step, 4 * step + 4), f"train-{step}"))

    whole, half = (make_agent(LinearReranker(lr=1e-2), plain=True, m=3) for _ in range(2))
    steps(whole, range(6))
    steps(half, range(3))
    save_components(component_learners(half), tmp_path)
    resumed = make_agent(LinearReranker(lr=1e-2), plain=True, m=3)
    load_components(component_learners(resumed), tmp_path)
    steps(resumed, range(3, 6))
    for name, agent in (("whole", whole), ("resumed", resumed)):
        save_components(component_learners(agent), tmp_path / name)
    assert _maps(tmp_path / "whole") == _maps(tmp_path / "resumed")
    served = make_agent(LinearReranker(path=str(tmp_path / "whole" / "reranker")), plain=True, m=3)
    assert recall(served, range(50, 60)) == recall(whole, range(50, 60))


def test_maps_of_another_embedders_vectors_are_refused_though_the_dimension_fits(tmp_path: Path) -> None:
    agent = make_agent(reranker := LinearReranker(lr=1e-2), plain=True, m=3)
    reranker.update(rollouts_of(agent, range(4), "train-0"))
    reranker.embedder = "another"
    save_components(component_learners(agent), tmp_path)
    begun = make_agent(LinearReranker(path=str(tmp_path / "reranker")), plain=True, m=3)
    with pytest.raises(
        BadInput, match=r"reranker\.pt: .* of embedder 'another', the bank's are of '.*'; use"
    ):
        rollouts_of(begun, [0], "eval")


def test_online_it_learns_from_what_its_answers_cite_and_else_it_does_not() -> None:
    for online in (False, True):
        reranker = LinearReranker(online=online)
        agent = make_agent(reranker, plain=True, m=3)
        task = dialogue_task(0)
        models = models_of(ScriptedSampler([""]))(phase="ask", task=task, index=0, calls=[])
        bank = agent.new_bank()
        for held in task.evidence.sessions:
            asyncio.run(agent.remember(held, bank, models))
        answers = [asyncio.run(agent.answer(task.question, bank, models)) for _ in range(4)]
        assert reranker.updates == (4 if online else 0)
        assert all(len(answer.found) == 3 for answer in answers)


def test_bad_states_and_words_without_vectors_are_told(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="holds no trained reranker"):
        LinearReranker(path=str(tmp_path))
    (tmp_path / "reranker.pt").write_bytes(b"nothing")
    with pytest.raises(BadInput, match="not a readable state"):
        LinearReranker(path=str(tmp_path))
    agent = make_agent(LinearReranker(), plain=True, method="bm25")
    with pytest.raises(BadInput, match="not bm25"):
        rollouts_of(agent, [0], "eval")


def _maps(folder: Path) -> list[list[float]]:
    import torch

    state = torch.load(folder / "reranker" / "reranker.pt", weights_only=True)
    return [w.flatten().tolist() for w in state["maps"]]
