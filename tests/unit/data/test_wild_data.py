"""Whatever stands in a data file, a reader reads it or refuses it in one line that names file, record and field."""

from __future__ import annotations

import copy
import gzip
import json
import os
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from memfactory.core.errors import BadInput
from memfactory.core.types import Rollout, Task
from memfactory.data import contents
from memfactory.data.banks import read_banks
from memfactory.data.check import FORMATS, check_file
from memfactory.data.fields import answer_text
from memfactory.data.files import open_records
from memfactory.data.readers.dialogues import read_dialogues
from memfactory.data.readers.jsonl import jsonl
from memfactory.data.readers.memagent import memagent_parquet
from memfactory.data.readers.squad import read_squad
from memfactory.evaluation.metrics import METRICS
from memfactory.evaluation.predictions import finish, score, whole_digest
from memfactory.memory.transfer import check_lines, read_header
from tests.unit.data.conftest import hotpot

Write = Callable[..., str]

TURN = {"speaker": "Ann", "dia_id": "D1:1", "text": "I have a cat.", "blip_caption": "a cat"}
CONVERSATION = {
    "speaker_a": "Ann",
    "speaker_b": "Bob",
    "session_1": [TURN, {"speaker": "Bob", "dia_id": "D1:2", "text": "Nice."}],
    "session_1_date_time": "1:56 pm on 8 May, 2023",
}
QUESTION = {"question": "What has Ann?", "answer": "a cat", "evidence": ["D1:1"], "category": 4}
LONG = {
    "id": "a",
    "input": "Who?",
    "context": "Ann.",
    "answers": ["Ann"],
    "metric": "f1",
    "evidence_turns": ["t"],
}
HOTPOT_COLUMNS = {
    "id": "h",
    "question": "Who?",
    "answer": "Ann",
    "supporting_facts": {"title": ["T"], "sent_id": [0]},
    "context": {"title": ["T"], "sentences": [["Ann."]]},
    "type": "bridge",
}
VALID: dict[str, dict[str, Any]] = {
    "2wikimultihopqa": HOTPOT_COLUMNS,
    "hotpotqa": hotpot(1, 1),
    "hotpotqa_long": LONG,
    "jsonl": {**LONG, "text": "Ann.", "question": "Who?", "meta": {"metric": "babilong", "labels": ["Ann"]}},
    "locomo": {
        "sample_id": "conv-1",
        "conversation": CONVERSATION,
        "qa": [QUESTION],
        "observation": {"session_1_observation": {"Ann": [["Ann has a cat.", "D1:1"]]}},
    },
    "longmemeval": {
        "question_id": "q",
        "question_type": "multi-session",
        "question": "How many?",
        "answer": 3,
        "question_date": "2023/05/30 (Tue) 23:40",
        "haystack_session_ids": ["a", "b"],
        "haystack_dates": ["2023/05/25 (Thu) 10:00", "2023/05/20 (Sat) 02:21"],
        "haystack_sessions": [[{"role": "user", "content": "Two.", "has_answer": True}], []],
        "answer_session_ids": ["a"],
    },
    "memagent_parquet": {
        "context": "Ann.",
        "reward_model": {"ground_truth": ["Ann"]},
        "extra_info": {"question": "Who?", "id": 4, "metric": "ruler"},
    },
    "memfactory_json": LONG,
    "msc": {
        "metadata": {"initial_data_id": "x", "session_id": 2},
        "dialog": [{"id": "Speaker 1", "text": "Hi."}, {"id": "Speaker 2", "text": "Hello."}],
        "previous_dialogs": [
            {"dialog": [{"text": "I ski."}], "time_num": 3, "time_unit": "days", "time_back": None}
        ],
        "personas": [["I ski."], []],
    },
    "musique": {
        "id": "m",
        "question": "Who?",
        "answer": "Ann",
        "answer_aliases": ["Anna"],
        "answerable": True,
        "paragraphs": [{"title": "T", "paragraph_text": "Ann.", "is_supporting": True}],
    },
    "traces": {"module": "m", "messages": [{"role": "user", "content": "Hi"}], "completion": "Hello"},
}
WILD = (
    st.sampled_from(
        [
            {},
            [],
            None,
            True,
            "",
            " ",
            0,
            -1,
            5.0,
            float("nan"),
            float("inf"),
            10**400,
            1e308,
            "\ud800",
            "\x00",
        ]
    )
    | st.sampled_from([[[]], [[[1]]], {"": {}}, [None], [{}], ["a", 1], "1:2", "D1:1", "e\u0301", 10**18])
    | st.text(max_size=4)
)


def places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The ways to every value inside."""
    yield path
    if isinstance(value, dict | list):
        for key, inner in value.items() if isinstance(value, dict) else enumerate(value):
            yield from places(inner, (*path, key))


@st.composite
def broken(draw: st.DrawFn, record: Any) -> Any:
    """A record in which one value, or a key, is something else."""
    way = draw(st.sampled_from([way for way in places(record) if way]))
    changed = copy.deepcopy(record)
    inside = changed
    for key in way[:-1]:
        inside = inside[key]
    if isinstance(inside, dict) and draw(st.integers(0, 9)) == 0:
        inside[draw(st.sampled_from(["session_01", "session_٣", "x"]))] = inside.pop(way[-1])
    else:
        inside[way[-1]] = draw(WILD)
    return changed


@pytest.mark.parametrize("name", sorted(FORMATS))
def test_a_record_with_any_value_changed_is_read_or_refused_in_one_line(name: str) -> None:
    assert set(VALID) == set(FORMATS)
    FORMATS[name](VALID[name], "f.json[7]", "d")

    @settings(max_examples=120, deadline=None, suppress_health_check=list(HealthCheck))
    @given(broken(VALID[name]))
    def read(record: Any) -> None:
        item, problem = outcome(lambda: FORMATS[name](record, "f.json[7]", "d"))
        assert problem.startswith("f.json[7]") == (item is None and problem != "") and "\n" not in problem
        for task in getattr(item, "tasks", (item,)):
            if isinstance(task, Task):
                score(task, 0, finish(Rollout(task, 0)), [name for name in METRICS if name != "bertscore"])
                assert len(whole_digest(task, "")) == 16 and all(task.answers or ("",))

    read()


FILES: dict[str, tuple[Any, Callable[[str], Any]]] = {
    "dialogues": ([{"speaker": "A", "text": "hi", "time": "t", "session": "s1", "id": "1"}], read_dialogues),
    "conversation": ([CONVERSATION], read_dialogues),
    "squad": (
        {
            "data": [
                {"paragraphs": [{"context": "c", "qas": [{"question": "q", "answers": [{"text": "a"}]}]}]}
            ]
        },
        read_squad,
    ),
    "banks": (
        [
            {"format": "memfactory-banks", "version": 1},
            {"dialogue": "d", "sessions": {"s": [{"text": "t", "time": "x", "tags": ["a"]}]}},
        ],
        read_banks,
    ),
    "memories": (
        [
            {"format": "memfactory-memories", "version": 1, "embedder": "e", "dim": 2, "meta": {"a": "b"}},
            {"id": "m1", "text": "t", "embedding": [1.0, 0.5], "tags": ["a"]},
        ],
        lambda path: check_lines(records := open_records(path), read_header(records)),
    ),
}


@pytest.mark.parametrize("name", sorted(FILES))
def test_a_file_with_any_value_changed_is_read_or_refused_in_one_line(name: str, write: Write) -> None:
    content, reader = FILES[name]
    text = json.dumps if isinstance(content, dict) else lambda lines: "\n".join(map(json.dumps, lines))
    reader(write(text(content)))

    @settings(max_examples=120, deadline=None, suppress_health_check=list(HealthCheck))
    @given(broken(content))
    def read(changed: Any) -> None:
        path = write(text(changed))
        _, problem = outcome(lambda: reader(path))
        assert problem == "" or (problem.startswith(path) and "\n" not in problem)

    read()


def outcome(read: Callable[[], Any]) -> tuple[Any, str]:
    """What was read and nothing, or nothing and what is wrong."""
    try:
        return read(), ""
    except BadInput as error:
        return None, str(error)


GOOD = {"question": "Who?", "text": "Ann.", "answers": ["Ann"]}
LINE = json.dumps(GOOD)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (json.dumps(GOOD, indent=1), r"is one JSON object; .*; to make it the only record: jq -c \. "),
        ("\ufeff\n" + json.dumps(GOOD, indent=4), "the file is one JSON object"),
        (json.dumps({"data": [GOOD, GOOD]}, indent=1), r"the list is under 'data', take it out: jq '\.data'"),
        (json.dumps({"data": [GOOD]}), "the list is under 'data'"),
        (json.dumps({"my tasks": [GOOD]}) + "\n", r"""under 'my tasks', take it out: jq '\["my tasks"\]'"""),
        (json.dumps({"data": {"train": [GOOD]}}, indent=1), r"under 'data\.train'"),
        (json.dumps({"train": [GOOD], "test": [GOOD]}, indent=1), "lists under 'train', 'test'"),
        (json.dumps(GOOD, indent=1) + "\n" + json.dumps(GOOD, indent=1), "data.jsonl:8: another value after"),
        (json.dumps(GOOD, indent=1)[:-1], "data.jsonl:7: not valid JSON"),
        ('{\n"a": ' + "[" * 100_000, "nested too deeply"),
        ('{"question": "q?",\n' + LINE, "data.jsonl:1: not valid JSON"),
        (LINE.encode("utf-16"), "is UTF-16 text; convert it first .iconv -f UTF-16"),
        (LINE.encode("utf-16-le"), "is UTF-16 or UTF-32 text"),
        ('{"question": "é?"}'.encode("latin-1"), "data.jsonl:1: not UTF-8 text .byte 14.; convert"),
        (b"PK\x03\x04...", "is a zip archive; unpack it first"),
        (b"\x28\xb5\x2f\xfd...", "is packed with zstd; unpack it first"),
        (gzip.compress(gzip.compress(b"x", mtime=0), mtime=0), "is packed twice"),
        (gzip.compress(LINE.encode(), mtime=0)[:-9], "not a readable gzip file"),
        (
            '{"question": "q", "question": "r"}',
            "data.jsonl:1: not valid JSON .the key 'question' comes twice",
        ),
        ('[{"question": "q", "question": "r"}]', r"data.jsonl:1: not valid JSON .the key 'question' comes"),
        ('{"question": ' + "9" * 5000 + "}", "data.jsonl:1: not valid JSON .Exceeds the limit"),
        (LINE[:-1] + ', "deep": ' + "[" * 100_000 + "]" * 100_000 + "}", "nested too deeply"),
        ('{"question": "q", "text": "x", "answers": [NaN]}', "must hold answers, not nan .a gap in a table"),
        ('{"question": "q", "text": "x", "answers": 1e999}', "data.jsonl:1: field 'answers' .* not inf"),
    ],
)
def test_a_file_of_another_kind_is_one_line(write: Write, content: str | bytes, message: str) -> None:
    path = write(content)
    _, read = outcome(lambda: jsonl(path))
    report, checked = outcome(lambda: check_file("jsonl", path))
    for problem in (read, checked or report.problems[0]):
        assert re.search(message, problem) and "\n" not in problem and problem.startswith(path)


def test_packed_files_are_told_by_their_content_and_crlf_is_white_space(write: Write) -> None:
    assert len(jsonl(write(gzip.compress(f"{LINE}\n{LINE}".encode()), "no_suffix"))) == 2
    assert len(jsonl(write(f"\ufeff{LINE}\r\n{LINE}\r\n"))) == 2


def test_half_a_character_becomes_the_sign_for_it(write: Write) -> None:
    [task] = jsonl(write('{"question": "q\\ud83d?", "text": "\\ud83d\\ude00", "answers": ["a"]}'))
    assert (task.question, task.evidence) == ("q\ufffd?", "\U0001f600")


def test_a_bomb_is_not_unpacked(write: Write, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(contents, "ALWAYS_UNPACKED", 1 << 20)
    with pytest.raises(BadInput, match="unpacks to more than 1 MiB; if that is right, unpack it yourself"):
        jsonl(write(gzip.compress(b" " * (3 << 20)), "bomb.jsonl.gz"))
    path = str(tmp_path / "bomb.parquet")
    table = pyarrow.table({"context": pyarrow.array(["x" * 100_000] * 400).dictionary_encode()})
    pyarrow.parquet.write_table(table.cast(pyarrow.schema([("context", pyarrow.string())])), path)
    with pytest.raises(BadInput, match="unpacks to more than"):
        memagent_parquet(path)
    monkeypatch.setattr(contents, "LARGEST", 30)
    with pytest.raises(BadInput, match=r"data\.jsonl:1: a record of 0 MiB; at most"):
        jsonl(write(LINE))


def test_what_is_no_file_is_one_line(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.jsonl")
    for path, message in (
        (str(tmp_path / "pipe.jsonl"), "is a pipe or a device"),
        (str(tmp_path / ("x" * 300)), "File name too long"),
        ("a\0b", "no such data file"),
        ("", "is a folder"),
    ):
        with pytest.raises(BadInput, match=message) as caught:
            open_records(path)
        assert "\n" not in str(caught.value)


def test_parquet_that_is_wrong_names_row_and_column(tmp_path: Path) -> None:
    path = str(tmp_path / "t.parquet")
    good = VALID["memagent_parquet"]
    latin = pyarrow.array([b"caf\xe9"]).cast(pyarrow.binary()).view(pyarrow.string())
    for columns, message in (
        ({"context": latin}, r"t\.parquet\[0\]: column 'context' is not UTF-8 text \(byte 3\)"),
        ({"context": pyarrow.array([3])}, r"t\.parquet\[0\]: field 'context' must be a string, not a number"),
        ({"context": pyarrow.array([b"x"])}, "must be a string, not a bytes"),
        ({"extra_info": pyarrow.array([[1]])}, "no field 'extra_info.question'"),
        ({"reward_model": pyarrow.array([{"ground_truth": [float("nan")]}])}, "must hold answers, not nan"),
    ):
        table = pyarrow.table({**pyarrow.Table.from_pylist([good]).to_pydict(), **columns})
        pyarrow.parquet.write_table(table, path)
        with pytest.raises(BadInput, match=message):
            memagent_parquet(path)
    whole = Path(path).read_bytes()
    for cut in (whole[:-20], whole[:40] + bytes(60) + whole[100:]):
        Path(path).write_bytes(cut)
        with pytest.raises(BadInput, match=r"t\.parquet"):
            memagent_parquet(path)


def test_a_file_that_is_one_conversation_is_read(write: Write) -> None:
    for content, id in ((CONVERSATION, "26"), ({"sample_id": "c", "conversation": CONVERSATION}, "c")):
        path = write(json.dumps(content, indent=2), "26.json")
        [dialogue] = read_dialogues(path).dialogues
        assert (dialogue.id, [turn.text for turn in dialogue.turns()]) == (id, ["I have a cat.", "Nice."])
    report = check_file("locomo", write(json.dumps(CONVERSATION, indent=2), "26.json"))
    assert (report.records, report.bad) == (1, 0) and "no questions; infer --input" in report.notes[0]
    report = check_file("locomo", write(json.dumps(VALID["locomo"], indent=2), "one.json"))
    assert (report.records, report.bad) == (1, 0)
    with pytest.raises(BadInput, match="the list is under 'data'"):
        check_file("locomo", write(json.dumps({"data": [VALID["locomo"]]}, indent=2), "w.json"))
    assert check_file("msc", write(json.dumps(VALID["msc"], indent=2), "m.json")).ok


@pytest.mark.parametrize(
    ("gold", "text"),
    [
        ("5.0", "5.0"),
        (5.0, "5"),
        (-0.0, "0"),
        (3, "3"),
        (2.5, "2.5"),
        (0.1, "0.1"),
        (1e22, "1e+22"),
        (1e-7, "1e-07"),
    ],
)
def test_how_a_gold_answer_becomes_text(gold: Any, text: str) -> None:
    assert answer_text(gold, "answer", "here") == text
