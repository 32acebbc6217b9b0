"""Texts in, answers out: what is read, what is written, and how an interrupted file is recognised."""

from __future__ import annotations

import io
import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from memfactory.commands.infer import _print
from memfactory.core.errors import BadInput, DiskError
from memfactory.inference.options import InferOptions
from memfactory.inference.reading import (
    answers_there,
    drop_answers,
    question_tasks,
    read_text,
    result_of,
    unique_ids,
    write_result,
)
from tests.unit.fakes import rollout, task

texts = st.text(alphabet=st.characters(), max_size=60)


@given(st.lists(texts, min_size=1, max_size=4), st.data())
def test_wherever_a_file_is_cut_what_is_whole_is_kept(
    tmp_path_factory: pytest.TempPathFactory, replies: list[str], data: st.DataObject
) -> None:
    path = tmp_path_factory.mktemp("out") / "answers.jsonl"
    with open(path, "a", encoding="utf-8") as file:
        for number, reply in enumerate(replies):
            write_result(file, {**result_of(rollout(reply), memories=True), "id": f"t{number}"}, path)
    whole = path.read_bytes()
    assert set(answers_there(path)) == {f"t{number}" for number in range(len(replies))}
    assert [json.loads(line)["reply"] for line in whole.splitlines()] == replies
    cut = data.draw(st.integers(0, len(whole)))
    path.write_bytes(whole[:cut])
    complete = whole[:cut].count(b"\n")
    assert set(answers_there(path)) == {f"t{number}" for number in range(complete)}
    assert path.read_bytes() == b"".join(whole.splitlines(keepends=True)[:complete])


@given(st.binary(max_size=60))
def test_a_file_of_anything_is_refused_and_left_as_it_is(
    tmp_path_factory: pytest.TempPathFactory, content: bytes
) -> None:
    path = tmp_path_factory.mktemp("out") / "notes"
    path.write_bytes(content)
    if b'{"id": '.startswith(content):
        assert answers_there(path) == {}
        return
    with pytest.raises(BadInput, match="choose another --output"):
        answers_there(path)
    assert path.read_bytes() == content


def test_the_last_line_without_its_line_break_is_done_again(tmp_path: Path) -> None:
    """Otherwise the next answer would be written on the same line."""
    path = tmp_path / "answers.jsonl"
    line = json.dumps(result_of(rollout("r"), memories=False))
    path.write_text(line)
    assert answers_there(path) == {}
    assert path.read_text() == ""


def test_answers_are_known_by_key_and_dropped_by_id(tmp_path: Path) -> None:
    path = tmp_path / "answers.jsonl"
    with open(path, "a", encoding="utf-8") as file:
        for name, key in (("a", "1"), ("b", ""), ("a", "2"), ("c", "3")):
            given = {"key": key} if key else {}
            write_result(
                file, {**result_of(rollout("r\u2028\x85"), memories=False), "id": name, **given}, path
            )
    assert answers_there(path) == {"a": "2", "b": "", "c": "3"}
    drop_answers(path, {"a"})
    assert answers_there(path) == {"b": "", "c": "3"} and path.read_bytes().count(b"\n") == 2


def test_a_result_says_the_boxed_text_else_the_reply_else_null() -> None:
    assert result_of(rollout("so \\boxed{ Rome }"), memories=False)["answer"].strip() == "Rome"
    assert result_of(rollout("Rome"), memories=False)["answer"] == "Rome"
    assert result_of(rollout("x \\boxed{}"), memories=False)["answer"] == ""
    failed = result_of(rollout(None, error="gone"), memories=True)
    assert (failed["answer"], failed["reply"], failed["error"]) == (None, None, "gone")
    assert "memories" not in failed
    assert result_of(rollout("r"), memories=True)["memories"] == ["r"]


def test_questions_get_ids_of_their_own() -> None:
    tasks = question_tasks("text", ["a", "a"], "book")
    assert [(t.id, t.question, t.evidence) for t in tasks] == [
        ("book#1", "a", "text"),
        ("book#2", "a", "text"),
    ]
    unique_ids(tasks, "book")
    with pytest.raises(BadInput, match="'t' comes twice"):
        unique_ids([task("t"), task("t")], "file")


def test_text_is_read_as_it_is(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes("é\r\n\u2028 \x00".encode())
    assert read_text(str(tmp_path / "a")) == "é\r\n\u2028 \x00"
    for bad in (tmp_path, tmp_path / "none"):
        with pytest.raises(BadInput, match=str(bad)):
            read_text(str(bad))


def test_a_full_disk_while_answers_are_written_is_one_line(tmp_path: Path) -> None:
    if not Path("/dev/full").exists():
        pytest.skip("needs /dev/full")
    with pytest.raises(DiskError, match="the disk is full"):
        file = open("/dev/full", "a")  # noqa: SIM115
        write_result(file, {"id": "t"}, tmp_path / "answers.jsonl")


@pytest.mark.parametrize("options", [InferOptions(), InferOptions(json=True), InferOptions(show_memory=True)])
@pytest.mark.parametrize("encoding", ["utf-8", "ascii"])
@pytest.mark.parametrize("reply", ["\ud800 broken", "é 😀", "[red]no markup[/red] [/]", "a\x00b\x1b[31m"])
def test_any_reply_can_be_printed(reply: str, encoding: str, options: InferOptions) -> None:
    raw = io.BytesIO()
    # As the console script sets its streams up.
    stream = io.TextIOWrapper(raw, encoding=encoding, errors="backslashreplace", write_through=True)
    _print([rollout(reply)], options, Console(file=stream), Console(file=stream))
    printed = raw.getvalue().decode(encoding)
    assert printed.endswith("\n")
    if options.json:
        assert json.loads(printed)["reply"] == reply
    else:
        assert "no markup" not in reply or "[red]no markup[/red] [/]" in printed
