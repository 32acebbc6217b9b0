"""The readers of public formats, and what they choose of a file."""

from __future__ import annotations

import dataclasses
import inspect
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from memfactory.core.errors import BadInput
from memfactory.core.registry import get
from memfactory.core.types import Message, Task
from memfactory.data import sources
from memfactory.data.readers.hotpotqa import hotpotqa
from memfactory.data.readers.jsonl import jsonl
from memfactory.data.readers.memagent import hotpotqa_long, memagent_parquet, memfactory_json
from memfactory.data.synthetic.dialogue_traces import make_trace as make_dialogue_trace
from memfactory.data.synthetic.facts import make_task
from memfactory.data.synthetic.facts_traces import make_trace
from memfactory.data.traces import Trace, facts_traces, traces

from .conftest import hotpot

Write = Callable[..., str]


def test_hotpotqa(hotpot_file: str) -> None:
    tasks = hotpotqa(hotpot_file)
    task = tasks[3]
    assert (len(tasks), task.id, task.question, task.answers) == (10, "q3", "What is 3?", ("answer 3",))
    assert task.evidence.startswith(
        "Document 1:\nOther 3.0\nNothing 0. At all.\n\nDocument 2:\nGold 3.0\nFirst"
    )
    assert task.meta["gold_evidence"] == (
        "Document 1:\nGold 3.0\nFirst half.\n\nDocument 2:\nGold 3.1\nSecond half."
    )
    assert task.meta["gold_titles"] == ("Gold 3.0", "Gold 3.1")


def test_hotpotqa_keeps_gold_paragraphs(hotpot_file: str) -> None:
    text = hotpotqa(hotpot_file, paragraphs=3)[0].evidence
    assert [line for line in text.split("\n") if "0." in line] == [
        "Other 0.0",
        "Nothing 0. At all.",
        *("Gold 0.0", "Gold 0.1"),
    ]
    with pytest.raises(BadInput, match="cannot hold its 2 gold paragraphs"):
        hotpotqa(hotpot_file, paragraphs=1)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"context": []}, "field 'context' must be a list that is not empty"),
        ({"context": [["title"]]}, "field 'context' must hold pairs"),
        ({"context": [["title", "text"]]}, "'title' in field 'context' must be a list of sentences"),
        ({"supporting_facts": [["elsewhere", 0]]}, "no paragraph in field 'context' has a title"),
        ({"answer": ""}, "no gold answer in field 'answer'"),
    ],
)
def test_hotpotqa_of_another_schema(write: Write, change: dict[str, Any], message: str) -> None:
    with pytest.raises(BadInput, match=r"x\.json\[1\]: .*" + message):
        hotpotqa(write(json.dumps([hotpot(0), {**hotpot(1), **change}]), "x.json"))


def test_choosing(hotpot_file: str) -> None:
    ids = [task.id for task in hotpotqa(hotpot_file, shuffle_seed=7)]
    assert sorted(ids) == [f"q{i}" for i in range(10)] != ids
    assert [task.id for task in hotpotqa(hotpot_file, shuffle_seed=7, offset=2, limit=3)] == ids[2:5]
    tasks = hotpotqa(hotpot_file, limit=100)
    assert (len(tasks), tasks[-1].id, [task.id for task in tasks[2:4]]) == (10, "q9", ["q2", "q3"])
    with pytest.raises(IndexError):
        tasks[10]
    with pytest.raises(BadInput, match="offset 10 leaves none of the 10"):
        hotpotqa(hotpot_file, offset=10)
    with pytest.raises(BadInput, match="limit must be at least 1"):
        hotpotqa(hotpot_file, limit=0)


def parquet(path: Path, rows: list[dict[str, Any]]) -> str:
    import pyarrow
    import pyarrow.parquet

    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), path)
    return str(path)


def memagent_row() -> dict[str, Any]:
    return {
        "data_source": "hotpotqa",
        "prompt": [{"role": "user", "content": "who?"}],
        "context": "a long text",
        "ability": "memory",
        "reward_model": {"style": "rule", "ground_truth": ["me", "I"]},
        "extra_info": {"index": 4, "question": "who?", "num_docs": 200},
    }


@pytest.mark.parametrize("reader", [memagent_parquet, hotpotqa_long])
def test_memagent_parquet(tmp_path: Path, reader: Callable[[str], Any]) -> None:
    tasks = reader(parquet(tmp_path / "train.parquet", [memagent_row()] * 2))
    meta = {"index": 4, "num_docs": 200}
    assert list(tasks) == [Task(f"train-{i}", "who?", "a long text", ("me", "I"), meta) for i in range(2)]


@pytest.mark.parametrize(
    ("drop", "message"),
    [
        ("context", r"no field 'context'"),
        ("extra_info", r"no field 'extra_info'"),
        ("reward_model", r"no field 'reward_model'"),
    ],
)
def test_memagent_parquet_without_a_column(tmp_path: Path, drop: str, message: str) -> None:
    row = memagent_row()
    del row[drop]
    with pytest.raises(BadInput, match=r"train\.parquet\[0\]: " + message):
        memagent_parquet(parquet(tmp_path / "train.parquet", [row]))


def test_memagent_parquet_without_an_answer(tmp_path: Path) -> None:
    row = {**memagent_row(), "reward_model": {"ground_truth": []}}
    with pytest.raises(BadInput, match=r"no gold answer in field 'reward_model\.ground_truth'"):
        memagent_parquet(parquet(tmp_path / "x.parquet", [memagent_row(), row]))


@pytest.mark.parametrize("reader", [memfactory_json, hotpotqa_long])
def test_memfactory_json(write: Write, reader: Callable[[str], Any]) -> None:
    record = {"context": "", "input": "who?", "answers": ["me"], "num_docs": 50}
    assert list(reader(write(json.dumps([record]), "eval_50.json"))) == [
        Task("eval_50-0", "who?", "", ("me",), {"num_docs": 50})
    ]
    with pytest.raises(BadInput, match="no field 'input'; did you mean 'inputs'"):
        reader(write(json.dumps([{"context": "", "inputs": "who?", "answers": ["me"]}]), "x.json"))


def test_jsonl_finds_fields(write: Write) -> None:
    records = [
        {"id": "x", "question": "q?", "context": "text", "answer": "a", "meta": {"level": 1}, "source": "s"},
        {"input": "q?", "evidence": "text", "answers": ["a", "b"]},
    ]
    assert list(jsonl(write(records))) == [
        Task("x", "q?", "text", ("a",), {"source": "s", "level": 1}),
        Task("data-1", "q?", "text", ("a", "b"), {}),
    ]


def test_jsonl_takes_named_fields(write: Write) -> None:
    path = write([{"key": 5, "q": "q?", "doc": {"body": "text"}, "gold": ["a"]}])
    fields = {"question_field": "q", "text_field": "doc.body", "answers_field": "gold", "id_field": "key"}
    task = jsonl(path, **fields)[0]  # type: ignore[arg-type]
    assert (task.id, task.question, task.evidence, task.answers) == ("5", "q?", "text", ("a",))
    with pytest.raises(BadInput, match="no field 'golden'; did you mean 'gold'"):
        jsonl(path, question_field="q", text_field="doc.body", answers_field="golden")


def test_jsonl_without_answers_for_infer(write: Write) -> None:
    path = write([{"question": "q?", "text": "x"}, {"question": "q?", "text": "x", "answers": ["a"]}])
    assert [task.answers for task in jsonl(path, require_answers=False)] == [(), ("a",)]


TRACE = {"module": "update", "messages": [{"role": "user", "content": "hi"}], "completion": "ho"}


def test_traces(write: Write) -> None:
    assert list(traces(write([TRACE, TRACE]))) == [Trace("update", (Message("user", "hi"),), "ho")] * 2


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"messages": []}, "field 'messages' must be a list that is not empty"),
        ({"messages": ["hi"]}, "field 'messages' must hold objects"),
        ({"messages": [{"role": "bot", "content": "hi"}]}, "role 'bot' in field 'messages' is none of"),
        ({"messages": [{"role": "user", "contents": "hi"}]}, "no field 'content'; did you mean 'contents'"),
        ({"completion": ""}, "field 'completion' is empty"),
    ],
)
def test_bad_traces(write: Write, change: dict[str, Any], message: str) -> None:
    with pytest.raises(BadInput, match=r"data\.jsonl:2: " + message):
        traces(write([TRACE, {**TRACE, **change}]))


def test_generated_sources_are_lazy_and_repeatable() -> None:
    tasks = sources.facts(split="heldout", sections=2, size=10**9)
    assert tasks[5] == sources.facts(split="heldout", sections=2, offset=5)[0]
    assert len({task.id for task in tasks[:20]}) == 20
    rows = facts_traces("read", size=10, pairs=(2, 3))
    assert (len(rows), rows[9]) == (10, facts_traces("read", offset=9, size=1, pairs=(2, 3))[0])


def test_generators_refuse_bad_options() -> None:
    with pytest.raises(BadInput, match="data 'facts': unknown split 'test'"):
        sources.facts(split="test")
    with pytest.raises(BadInput, match="data 'facts': size must be at least 1"):
        sources.facts(size=0)
    with pytest.raises(BadInput, match="data 'facts_traces': unknown phase"):
        facts_traces("habit")


NAMES = [
    "dialogue_traces",
    "facts",
    "facts_traces",
    "hotpotqa",
    "hotpotqa_long",
    "jsonl",
    "memagent_parquet",
    "memfactory_json",
    "mixture",
    "traces",
]


@pytest.mark.parametrize("name", NAMES)
def test_registered(name: str) -> None:
    assert get("data", name).summary


def test_fields_mirror_their_generators() -> None:
    """Each generated component has the generator's options as fields, with the same defaults."""
    for name, generator, own in (
        ("facts", make_task, {"size", "offset"}),
        ("facts_traces", make_trace, {"size", "offset"}),
        ("dialogue_traces", make_dialogue_trace, {"size", "offset"}),
    ):
        component = get("data", name)
        options = {key: p.default for key, p in inspect.signature(generator).parameters.items()}
        built = {key: p.default for key, p in inspect.signature(component.build).parameters.items()}
        fields = {field.name: field.default for field in dataclasses.fields(component.config)}
        assert set(fields) == (set(options) | own) - {"index", "prompts"}
        for key, default in fields.items():
            assert built[key] == default or default is dataclasses.MISSING
            if options.get(key, inspect.Parameter.empty) is not inspect.Parameter.empty:
                assert options[key] == default, key


def test_traces_take_the_recipes_prompts() -> None:
    prompts = {
        "update": "U {question} {memory} {block}",
        "answer": "A {question} {memory}",
        "empty_memory": "-",
    }
    rows = facts_traces("read", size=50, prompts=prompts)
    asked = {row.module: row.messages[0].content[:2] for row in rows}
    assert (asked["update"], asked["answer"]) == ("U ", "A ")
    with pytest.raises(BadInput, match="the prompts have no 'empty_memory'"):
        facts_traces("read", prompts={"update": "", "answer": ""}, recite_share=0.0)


def test_sample_of_hotpotqa(sample_data: Path) -> None:
    tasks = hotpotqa(str(sample_data / "hotpotqa" / "hotpotqa_distractor_60.json"))
    assert len(tasks) == 60
    assert all(len(task.meta["gold_titles"]) == 2 for task in tasks)
    assert tasks[0].answers == ("a spirit",)
