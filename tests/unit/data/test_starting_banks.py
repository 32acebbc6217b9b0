"""Tasks that begin with memories: what the bank holds, what is left to read, and that the answer follows from both."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from memfactory.core.errors import BadInput
from memfactory.core.types import Task
from memfactory.data.banks import BankWriter, read_banks
from memfactory.data.dialogue import Dialogue, Memory, Session, Turn
from memfactory.data.readers.locomo import locomo, parse_dialogue
from memfactory.data.sources import dialogues
from memfactory.data.starting_banks import frozen_banks, temporal_pairs
from memfactory.data.synthetic.dialogues import NUMBERS, PET, REMEMBERED
from tests.unit.data.test_dialogues import heard

SIZE = 120
NOTES = [Memory(f"note {number}", f"s{number}", f"day {number}") for number in range(1, 5)]


def dialogue(*, annotated: bool = True) -> Dialogue:
    return Dialogue(
        "d",
        ("Ana", "Ben"),
        tuple(
            Session(
                f"s{number}",
                f"day {number}",
                (Turn(f"D{number}:1", "Ana", f"text {number}"),),
                tuple(NOTES[:number]) if annotated else None,
            )
            for number in range(1, 5)
        ),
    )


def task(*turns: str, annotated: bool = True) -> Task:
    return Task("q", "?", dialogue(annotated=annotated), ("a",), {"evidence_turns": turns, "kept": 1})


def parts(made: Task) -> tuple[list[str], list[str]]:
    assert isinstance(made.evidence, Dialogue)
    return [s.id for s in made.evidence.sessions], [memory.text for memory in made.evidence.memories]


@pytest.mark.parametrize(
    ("turns", "window", "read", "remembered"),
    [
        (("D3:1",), 1, ["s3"], ["note 1", "note 2"]),
        (
            ("D1:1", "D3:1"),
            1,
            ["s3"],
            ["note 1", "note 2"],
        ),  # the earlier part of the evidence is in the bank
        (("D3:1", "D1:1"), 2, ["s2", "s3"], ["note 1"]),
        (("D1:1",), 1, ["s1"], []),
        (("D2:1",), 9, ["s1", "s2"], []),
        ((), 1, ["s4"], ["note 1", "note 2", "note 3"]),
    ],
)
def test_a_pair_is_the_last_sessions_that_matter_and_the_bank_before(
    turns: tuple[str, ...], window: int, read: list[str], remembered: list[str]
) -> None:
    [made] = temporal_pairs([task(*turns)], window=window)
    assert parts(made) == (read, remembered)
    assert made.answers == ("a",) and made.meta["kept"] == 1
    assert made.meta["memories_before"] == len(remembered) and made.meta["dialogue"] == "d"
    assert made.id.startswith("q@") and made.evidence.id == made.id.replace("q", "d")


def test_a_frozen_bank_has_all_memories_and_no_session() -> None:
    [made] = frozen_banks([task("D2:1")])
    assert parts(made) == ([], ["note 1", "note 2", "note 3", "note 4"])
    assert (made.id, made.evidence.id) == ("q@bank", "d@bank")


def as_state(memories: tuple[Memory, ...]) -> dict[tuple[str, str], dict[str, str]]:
    """(name, kind) -> value -> day, read from the sentences alone."""
    state: dict[tuple[str, str], dict[str, str]] = {}
    for memory in memories:
        for kind, sentence in REMEMBERED["sentence"].items():
            shape = re.escape(sentence).replace(r"\{n\}", r"(\w+)").replace(r"\{v\}", r"(\w+)")
            if found := re.fullmatch(shape, memory.text):
                name, value = found.groups()
                state.setdefault((name, kind), {})[value] = memory.time
    return state


def follow(state: dict[tuple[str, str], dict[str, str]], sessions: tuple[Session, ...]) -> None:
    """Bring a state up to date by what is said."""
    for session in sessions:
        for turn in session.turns:
            if (told := heard(turn)) is None:
                continue
            kind, action, value, old = told
            held = state.setdefault((turn.speaker, kind), {})
            if action == "change" or (action == "retract" and kind != PET):
                held.clear()
            if action == "retract":
                held.pop(old, None)
            elif action in ("state", "change"):
                held[value] = session.time


def test_what_is_true_after_a_session_is_what_a_careful_reader_finds() -> None:
    for made in dialogues(size=SIZE, sessions=6):
        state: dict[tuple[str, str], dict[str, str]] = {}
        for session in made.evidence.sessions:
            follow(state, (session,))
            assert session.after is not None
            assert as_state(session.after) == {key: held for key, held in state.items() if held}


@pytest.mark.parametrize("window", [1, 2])
def test_the_answer_follows_from_the_bank_and_the_sessions_that_are_read(window: int) -> None:
    for made in temporal_pairs(dialogues(size=SIZE, sessions=6), window=window):
        state = as_state(made.evidence.memories)
        follow(state, made.evidence.sessions)
        held = state.get(made.meta["about"], {})
        found = {"count": NUMBERS[len(held)], "value": next(iter(held), "none")}
        if made.meta["question_kind"] == "when":
            [found["when"]] = [
                day for value, day in held.items() if re.search(rf"\b{value}\b", made.question)
            ]
        assert made.answers[0] == found[made.meta["question_kind"]], made.id


def test_the_answer_follows_from_a_frozen_bank_alone() -> None:
    for made in frozen_banks(dialogues(size=SIZE, sessions=6)):
        held = as_state(made.evidence.memories).get(made.meta["about"], {})
        found = {"count": NUMBERS[len(held)], "value": next(iter(held), "none")}
        if made.meta["question_kind"] == "when":
            [found["when"]] = [
                day for value, day in held.items() if re.search(rf"\b{value}\b", made.question)
            ]
        assert made.answers[0] == found[made.meta["question_kind"]], made.id


def test_memories_in_the_words_of_the_tiny_policy() -> None:
    for short, long in zip(dialogues(size=20, remembered="words"), dialogues(size=20), strict=True):
        words = [m.text for m in short.evidence.sessions[-1].after or ()]
        state = as_state(long.evidence.sessions[-1].after or ())
        assert sorted(words) == sorted(
            f"{name} {kind} {value}" for (name, kind), held in state.items() for value in held
        )
    with pytest.raises(BadInput, match="remembered must be sentence or words"):
        dialogues(size=1, remembered="poem")


def test_pairs_of_generated_dialogues_are_made_when_they_are_asked_for() -> None:
    many = temporal_pairs(dialogues(size=100_000))
    assert len(many) == 100_000
    assert many[99_999] == temporal_pairs(dialogues(size=1, offset=99_999))[0]
    assert len({made.id for made in many[:50]}) == 50


@pytest.mark.parametrize(
    ("tasks", "options", "named"),
    [
        ([Task("t", "?", "a text")], {}, "need a source of tasks about dialogues.*'t'"),
        ([task("D3:1", annotated=False)], {}, "dialogue 'd'.*memfactory data banks"),
        ([task("D3:1")], {"banks": "nowhere.jsonl"}, "nowhere.jsonl: no such file of banks; make it with"),
    ],
)
def test_what_cannot_begin_with_memories_is_one_line(
    tasks: list[Task], options: dict[str, str], named: str
) -> None:
    with pytest.raises(BadInput, match=named):
        temporal_pairs(tasks, **options)


BANK = {"s1": (Memory("a", "s1", "day 1", "k", "t", ("x",), ("D1:1",)),), "s2": (Memory("b \ufffd é"),)}


def test_a_file_of_banks_is_read_as_it_was_written_and_goes_on_after_a_kill(tmp_path: Path) -> None:
    path = tmp_path / "folder" / "banks.jsonl"
    BankWriter(path, {"model": "tiny"}).write("d", BANK)
    whole = path.read_bytes()
    assert read_banks(str(path)) == {"d": BANK}
    BankWriter(path, {"model": "tiny"}).write("e", {"s1": ()})
    after = path.read_bytes()
    for length in range(len(whole), len(after)):  # killed anywhere in the second dialogue
        path.write_bytes(after[:length])
        writer = BankWriter(path, {"model": "tiny"})
        assert writer.done == {"d"} and path.read_bytes() == whole
    writer.write("e", {"s1": ()})
    assert path.read_bytes() == after


def test_pairs_with_banks_of_a_file(tmp_path: Path) -> None:
    path = tmp_path / "banks.jsonl"
    BankWriter(path, {}).write("d", BANK)
    [made] = temporal_pairs([task("D3:1", annotated=False)], banks=str(path))
    assert made.evidence.memories == BANK["s2"]
    with pytest.raises(BadInput, match="has no bank of session 's3' of dialogue 'd'"):
        temporal_pairs([task("D4:1")], banks=str(path))
    other = tmp_path / "other.jsonl"
    BankWriter(other, {}).write("e", BANK)
    with pytest.raises(BadInput, match="has no bank of dialogue 'd'"):
        frozen_banks([task("D4:1")], banks=str(other))


@pytest.mark.parametrize(
    ("lines", "named"),
    [
        ([{"dialogue": "d", "sessions": {}}], "1: not a file of banks"),
        ([{"format": "memfactory-banks", "version": 9}], "1: version 9"),
        ([None, {"dialogue": "d", "sessions": []}], "2: field 'sessions' must be an object"),
        ([None, {"dialogue": "d", "sessions": {"s": {}}}], "2.s: must be a list"),
        ([None, {"dialogue": "d", "sessions": {"s": [{"text": " "}]}}], r"2.s\[0\]: field 'text' is empty"),
        ([None, {"dialogue": "d", "sessions": {"s": [{"text": "a", "tag": []}]}}], "did you mean 'tags'"),
        ([None, {"dialogue": "d", "sessions": {"s": [{"text": "a", "tags": [1]}]}}], "list of strings"),
        ([None, *[{"dialogue": "d", "sessions": {}}] * 2], "3: dialogue 'd' was there before"),
    ],
)
def test_a_file_that_is_wrong_is_one_line(lines: list[object], named: str, tmp_path: Path) -> None:
    header = {"format": "memfactory-banks", "version": 1}
    path = tmp_path / "b.jsonl"
    path.write_text("".join(json.dumps(line or header) + "\n" for line in lines))
    with pytest.raises(BadInput, match=named):
        read_banks(str(path))


def test_a_writer_leaves_what_is_not_its_own(tmp_path: Path) -> None:
    path = tmp_path / "b.jsonl"
    path.write_text("a diary\n")
    with pytest.raises(BadInput, match="is no file of banks"):
        BankWriter(path, {})
    assert path.read_text() == "a diary\n"
    path.unlink()
    BankWriter(path, {"model": "tiny"})
    with pytest.raises(BadInput, match="begun with another model"):
        BankWriter(path, {"model": "smollm2"})


RECORD = {
    "conversation": {
        "speaker_a": "Ana",
        "speaker_b": "Ben",
        **{f"session_{n}": [{"speaker": "Ana", "dia_id": f"D{n}:1", "text": "Hi"}] for n in (1, 2)},
        **{f"session_{n}_date_time": f"day {n}" for n in (1, 2)},
    },
    "observation": {
        "session_1_observation": {"Ana": [["Ana sings.", "D1:1"]], "Ben": [["Ben  runs.", ["D1:1", "D1:2"]]]},
        "session_2_observation": {"Ana": [["Ana sings.", "D2:1"], ["Ana moved.", "D2:1"]]},
    },
}


def test_locomos_observations_are_what_is_remembered_after_each_session() -> None:
    first, second = parse_dialogue(RECORD, "x", "d").sessions
    assert first.after == (
        Memory("Ana sings.", "session_1", "day 1", sources=("D1:1",)),
        Memory("Ben runs.", "session_1", "day 1", sources=("D1:1", "D1:2")),
    )
    assert second.after == (*first.after, Memory("Ana moved.", "session_2", "day 2", sources=("D2:1",)))


@pytest.mark.parametrize(
    ("observation", "named"),
    [
        ([], "x.observation: must be an object"),
        ({"session_1_observation": []}, None),
        ({"session_1_observation": {"Ana": "x"}}, "session_1_observation: must be an object of lists"),
        ({"session_2_observation": {"Ana": ["x"]}}, "session_2_observation: an observation must be"),
    ],
)
def test_observations_of_another_shape(observation: object, named: str | None) -> None:
    record = {**RECORD, "observation": observation}
    if named is None:
        assert [session.after for session in parse_dialogue(record, "x", "d").sessions] == [(), ()]
        return
    with pytest.raises(BadInput, match=named):
        parse_dialogue(record, "x", "d")


def test_the_public_sample(sample_data: Path) -> None:
    path = str(sample_data / "locomo" / "locomo_sample.json")
    made = temporal_pairs(locomo(path, split="train"))
    assert len(made) == 152
    for pair in made:
        assert len(pair.evidence.sessions) == 1
        number = int(pair.meta["part"].removeprefix("session_"))
        assert all(int(m.session.removeprefix("session_")) < number for m in pair.evidence.memories)
        assert bool(pair.evidence.memories) == (number > 1)
    banks = frozen_banks(locomo(path, split="validation"))
    assert len(banks) == 81 and len({len(bank.evidence.memories) for bank in banks}) == 1
