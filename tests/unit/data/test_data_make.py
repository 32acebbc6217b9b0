"""Made files: HotpotQA-long, the synthetic task, and the check of files against readers."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from memfactory.core.errors import BadInput, DiskError
from memfactory.data.check import check_file
from memfactory.data.make import make_facts, make_hotpotqa_long
from memfactory.data.readers.jsonl import jsonl
from memfactory.data.readers.memagent import hotpotqa_long
from memfactory.data.synthetic.vocabulary import words_of
from memfactory.data.write import write_jsonl

Write = Callable[..., str]


def titles(text: str) -> list[str]:
    return re.findall(r"^Document \d+:\n(.*)\n", text, flags=re.MULTILINE)


@pytest.mark.parametrize("suffix", ["jsonl", "json", "parquet"])
def test_hotpotqa_long(hotpot_file: str, tmp_path: Path, suffix: str) -> None:
    output = tmp_path / f"long.{suffix}"
    assert make_hotpotqa_long(hotpot_file, 20, str(output)) == 10
    tasks = hotpotqa_long(str(output))
    assert [task.id for task in tasks] == [f"q{i}" for i in range(10)]
    places = set()
    for number, task in enumerate(tasks):
        found = titles(task.evidence)
        assert len(found) == len(set(found)) == 20
        gold = [
            i
            for i, title in enumerate(found)
            if title.startswith("Gold") and title.split()[1][0] == str(number)
        ]
        assert len(gold) == 2
        assert list(task.meta["gold_places"]) == gold
        assert not any(title.startswith(f"Other {number}.") for title in found)
        places.add(tuple(gold))
    assert len(places) > 5
    again = tmp_path / f"again.{suffix}"
    make_hotpotqa_long(hotpot_file, 20, str(again))
    assert again.read_bytes() == output.read_bytes()
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(
        [output.name, again.name, "hotpot.json"]
    )


def test_a_question_does_not_depend_on_its_neighbours(hotpot_file: str, tmp_path: Path) -> None:
    one, all_of_them, other = (str(tmp_path / name) for name in ("1.jsonl", "10.jsonl", "other.jsonl"))
    make_hotpotqa_long(hotpot_file, 20, one, limit=1, offset=4)
    make_hotpotqa_long(hotpot_file, 20, all_of_them)
    make_hotpotqa_long(hotpot_file, 20, other, seed=1)
    assert hotpotqa_long(one)[0] == hotpotqa_long(all_of_them)[4] != hotpotqa_long(other)[4]


def test_too_small_a_pool_is_counted(hotpot_file: str, tmp_path: Path) -> None:
    output = tmp_path / "long.jsonl"
    assert (
        make_hotpotqa_long(hotpot_file, 56, str(output)) == 10
    )  # 2 gold and all 9 * 6 paragraphs of the others
    output.unlink()
    with pytest.raises(
        BadInput, match=r"57 paragraphs need 55 distractors for question q0, but .* have only 54"
    ):
        make_hotpotqa_long(hotpot_file, 57, str(output))
    with pytest.raises(BadInput, match="paragraphs=1 cannot hold the 2 gold"):
        make_hotpotqa_long(hotpot_file, 1, str(output))
    with pytest.raises(BadInput, match=r"must end in \.jsonl, \.json, \.parquet"):
        make_hotpotqa_long(hotpot_file, 20, str(tmp_path / "long.csv"))
    assert [path.name for path in tmp_path.iterdir()] == ["hotpot.json"]


def test_facts(tmp_path: Path) -> None:
    path = str(tmp_path / "deep" / "facts.jsonl")
    assert make_facts(path, sections=2, count=5, seed=3) == 5
    tasks = jsonl(path)
    assert [task.meta["sections"] for task in tasks] == [2] * 5
    assert (
        [task.meta["length"] for task in tasks]
        == [len(words_of(task.evidence)) for task in tasks]
        == [80] * 5
    )
    assert check_file("jsonl", path).ok
    with pytest.raises(BadInput, match="facts: unknown split"):
        make_facts(str(tmp_path / "x.jsonl"), sections=2, count=5, split="test")
    with pytest.raises(BadInput, match="count must be"):
        make_facts(path, sections=2, count=0)
    assert [file.name for file in tmp_path.iterdir()] == ["deep"]


def test_nothing_is_left_half_written(tmp_path: Path) -> None:
    path = tmp_path / "out.jsonl"
    write_jsonl(str(path), [{"old": 1}])

    def broken() -> Iterator[dict[str, Any]]:
        yield {"new": 1}
        raise OSError(28, "No space left on device")

    with pytest.raises(DiskError, match=r"out\.jsonl: the disk is full"):
        write_jsonl(str(path), broken())
    assert json.loads(path.read_text()) == {"old": 1}
    assert [file.name for file in tmp_path.iterdir()] == ["out.jsonl"]
    with pytest.raises(DiskError, match="cannot be written"):
        write_jsonl(str(path / "below.jsonl"), [{}])


def test_check_reports_the_first_bad_lines(write: Write) -> None:
    good = json.dumps({"id": "a", "question": "q?", "text": "x", "answers": ["a"]})
    path = write("\n".join([good, "{", good, "", '{"question": "q?", "text": "x"}']))
    report = check_file("jsonl", path, most=3)
    assert (report.records, report.bad, report.ok) == (5, 4, False)
    places = [problem.removeprefix(path) for problem in report.problems]
    assert places[0].startswith(":2: not valid JSON")
    assert places[1:] == [f":3: id 'a' was used before, at {path}:1", ":4: empty line"]
    with pytest.raises(BadInput, match="unknown data format 'jsnl'; did you mean 'jsonl'"):
        check_file("jsnl", path)


def test_check_knows_the_other_schema(hotpot_file: str) -> None:
    assert check_file("hotpotqa", hotpot_file).ok
    report = check_file("memfactory_json", hotpot_file)
    assert report.bad == 10
    assert "no field 'input'" in report.problems[0]


def test_sample_of_hotpotqa_made_long(sample_data: Path, tmp_path: Path) -> None:
    source = str(sample_data / "hotpotqa" / "hotpotqa_distractor_60.json")
    output = str(tmp_path / "long.jsonl")
    assert make_hotpotqa_long(source, 50, output, limit=8) == 8
    for task in hotpotqa_long(output):
        assert len(set(titles(task.evidence))) == 50
        assert task.meta["gold_evidence"].count("Document") == 2
