"""Opening data files, and the one line that a bad one ends in."""

from __future__ import annotations

import contextlib
import gzip
import json
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from memfactory.core.errors import BadInput
from memfactory.data.fields import require_answers
from memfactory.data.files import open_records
from memfactory.data.json_array import ArrayPlaces
from memfactory.data.readers.jsonl import jsonl
from memfactory.data.readers.memagent import memagent_parquet

Write = Callable[..., str]
GOOD = {"question": "q?", "text": "some text", "answers": ["a"]}
LINE = json.dumps(GOOD)


@pytest.mark.parametrize("ending", ["\n", "", "\r\n"])
def test_lines(write: Write, ending: str) -> None:
    records = open_records(write(LINE + "\n" + LINE + ending))
    assert len(records) == 2
    assert records[1] == GOOD
    assert records.where(1).endswith("data.jsonl:2")


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("content", [f"\n [{LINE},\n {LINE}]", f"{LINE}\n{LINE}\n", f"\ufeff{LINE}\n{LINE}"])
def test_layouts_are_told_by_content(write: Write, content: str, packed: bool) -> None:
    data = content.encode()
    path = write(gzip.compress(data) if packed else data, "data.json" + ".gz" * packed)
    records = open_records(path)
    assert [records[0], records[1]] == [GOOD, GOOD]
    assert len(records) == 2


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "data.jsonl: the file is empty"),
        ("[]", "data.jsonl: the file is empty"),
        (LINE + "\n\n" + LINE, "data.jsonl:2: empty line"),
        (LINE + "\n" + LINE + "\n\n", "data.jsonl:3: empty line"),
        (LINE + "\n{oops", "data.jsonl:2: not valid JSON"),
        (LINE + "\n7\n", "data.jsonl:2: expected an object, found a number"),
        (LINE.encode() + b"\n\xff\n", "data.jsonl:2: not UTF-8"),
        ("[\n" + LINE + ",\n{oops]", "data.jsonl:3: not valid JSON"),
        ("[" + LINE + ", null]", r"data.jsonl\[1\]: expected an object, found null"),
        ("[" * 200_000, "not valid JSON"),
        ("[\n" + LINE + ",\n" + LINE + "\n", r"data.jsonl:4: not valid JSON \(the array does not end"),
        ("[" + LINE + ",]", r"data.jsonl:1: not valid JSON \(a value is missing before '\]'"),
        ("[" + LINE + ",," + LINE + "]", "a value is missing before ','"),
        ("[" + LINE + "]\n\n[", r"data.jsonl:3: not valid JSON \(something stands after"),
        ('[{"question": "q?\n"}]', r"data.jsonl:1: not valid JSON \(a control character in a string"),
        (
            "[" + LINE + ",\n{'q': 1}]",
            r"data.jsonl:2: not valid JSON \(Expecting property.* character 2 of record 1",
        ),
        ("[" + LINE + ' {"a": 1}]', "not valid JSON .Extra data"),
        ("[" + LINE + "}", "'}' closes what another bracket opened"),
        (b"[" + LINE.encode() + b',\n{"a": "\xff"}]', r"data.jsonl:2: not UTF-8 text .byte 7 of record 1"),
        ('{"question": "q?"}\n', "data.jsonl:1: no field 'text'"),
        ('{"question": "q?", "txt": "x", "answers": ["a"]}', "no field 'text'; did you mean 'txt'"),
        ('{"question": "q?", "text": "x"}', "no field 'answers'"),
        ('{"question": " ", "text": "x", "answers": ["a"]}', "field 'question' is empty"),
        ('{"question": 3, "text": "x", "answers": ["a"]}', "field 'question' must be a string, not a number"),
        ('{"question": "q?", "text": "x", "answers": []}', "data.jsonl:1: no gold answer in field 'answers'"),
        ('{"question": "q?", "text": "x", "answers": [""]}', "no gold answer"),
        ('{"question": "q?", "text": "x", "answers": null}', "must hold strings, not null"),
        ('{"question": "q?", "text": "x", "answers": [{}]}', "must hold strings, not an object"),
        (
            '{"id": 1, "question": "q", "text": "x", "answers": "a"}\n' * 2,
            "data.jsonl:2: id '1' was used before",
        ),
    ],
)
def test_bad_files_name_the_place(write: Write, content: str | bytes, message: str) -> None:
    with pytest.raises(BadInput, match=message) as caught:
        jsonl(write(content))
    assert "\n" not in str(caught.value)


def test_missing_file_names_its_neighbour(write: Write) -> None:
    path = write([GOOD], "train.jsonl")
    with pytest.raises(BadInput, match=r"no such data file; did you mean 'train\.jsonl'"):
        jsonl(path.replace("train", "trian"))
    with pytest.raises(BadInput, match="is a folder"):
        jsonl(path.removesuffix("/train.jsonl"))
    with pytest.raises(BadInput, match="no such data file"):
        jsonl(path + "/deeper/file.jsonl")


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=6),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=12,
)


@settings(max_examples=150, deadline=None)
@given(
    items=st.lists(JSON, max_size=5),
    chunk=st.integers(1, 9),
    ascii_only=st.booleans(),
    indent=st.none() | st.just(1),
)
def test_elements_of_an_array_are_found_in_chunks_of_any_size(
    items: list[Any], chunk: int, ascii_only: bool, indent: int | None
) -> None:
    text = json.dumps(items, ensure_ascii=ascii_only, indent=indent)
    data = text.encode()
    places = ArrayPlaces("f", [data[i : i + chunk] for i in range(0, len(data), chunk)])
    found = [data[start:stop] for start, stop in zip(places.starts, places.stops, strict=True)]
    assert [json.loads(one) for one in found] == items
    assert list(places.lines) == [1 + data.count(b"\n", 0, start) for start in places.starts]


@pytest.mark.parametrize("name", ["x.parquet", "x.jsonl.gz"])
def test_broken_containers(write: Write, name: str) -> None:
    with pytest.raises(BadInput, match=f"{name}: not a readable"):
        memagent_parquet(write(b"PAR1 no", name))


def test_answers_may_be_numbers() -> None:
    assert require_answers({"answers": [2022, "x"]}, "answers", "here") == ("2022", "x")
    assert require_answers({"answers": "x"}, "answers", "here") == ("x",)


@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(st.binary(max_size=60) | st.text(st.sampled_from('{}[]":,\n q1'), max_size=60))
def test_any_bytes_are_tasks_or_bad_input(write: Write, content: bytes | str) -> None:
    with contextlib.suppress(BadInput):
        jsonl(write(content))
