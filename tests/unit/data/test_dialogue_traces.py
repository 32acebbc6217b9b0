"""Calls to imitate for the memory bank: readable by the agent's own parsers, right for the bank they show."""

from __future__ import annotations

import re
from collections import Counter

import pytest

from memfactory.core.errors import BadInput
from memfactory.data.synthetic.dialogues import KINDS_SAID
from memfactory.data.synthetic.facts import split_of
from memfactory.data.synthetic.vocabulary import NAMES, VALUES
from memfactory.data.traces import Trace, dialogue_traces
from memfactory.modules.distilling_answerer import parse_distilled
from memfactory.modules.extractors import parse_facts
from memfactory.modules.operations import Plan, parse_addressed

SIZE = 400
EVERY_VALUE = {value for values in VALUES.values() for value in values}
_LINE = re.compile(rf"(\w+) ({'|'.join(KINDS_SAID)}) (\w+) (m\d+)")


def rows(phase: str, **options: object) -> list[Trace]:
    return list(dialogue_traces(phase, size=SIZE, **options))  # type: ignore[arg-type]


def plans(phase: str, **options: object) -> list[tuple[str, Plan]]:
    found = [row for row in rows(phase, **options) if row.module == "manager"]
    return [(row.messages[0].content, parse_addressed(row.completion)) for row in found]


def right(memories: dict[tuple[str, str, str], str], fact: str) -> tuple[str, str]:
    """Operation and id for a fact, worked out anew from the memories that the prompt shows."""
    name, kind, value, *gone = fact.split()
    same = memories.get((name, kind, value))
    others = [shown for (n, k, _), shown in memories.items() if (n, k) == (name, kind)]
    if gone:
        return ("delete", same) if same else ("noop", "")
    if same:
        return "noop", ""
    return ("update", others[-1]) if others and kind != "pet" else ("add", "")


@pytest.mark.parametrize("phase", ["lookup", "read"])
def test_operations_are_right_for_the_memories_shown(phase: str) -> None:
    seen: Counter[str] = Counter()
    for prompt, plan in plans(phase, stale=0.0):
        assert not plan.errors
        memories = {(n, k, v): shown for n, k, v, shown in _LINE.findall(prompt.split("Facts:")[0])}
        facts = re.findall(r"- ([\w ]+?)(?= Update\.|\n)", prompt.split("Facts:")[1])
        assert len(facts) == len(plan.operations)
        for fact, operation in zip(facts, plan.operations, strict=True):
            assert (operation.kind, operation.id) == right(memories, fact), prompt
            seen[operation.kind] += 1
    assert set(seen) == {"add", "update", "delete", "noop"}


def test_the_habit_is_to_add() -> None:
    def added(phase: str, **options: float) -> float:
        kinds = [operation.kind for _, plan in plans(phase, **options) for operation in plan.operations]
        return kinds.count("add") / len(kinds)

    assert added("read") < 0.75
    assert added("habits", habit=0.9) > 0.95
    assert added("habits", habit=1.0) == 1.0


def test_replies_of_all_modules_are_well_formed_and_fit_their_prompts() -> None:
    kinds: Counter[str] = Counter()
    for row in rows("read"):
        prompt = row.messages[0].content
        kinds[row.module] += 1
        if row.module == "extractor":
            extraction = parse_facts(row.completion)
            assert extraction.facts and not extraction.errors
            for fact in extraction.facts:
                assert f"{fact.text.split()[0]}: " in prompt and fact.text.split()[2] in prompt
        elif row.module == "answerer":
            shown = re.findall(r"\bm\d+\b", prompt)
            answer = parse_distilled(row.completion, shown)
            assert not answer.errors, row
            if "How many" in prompt:
                count = ["none", "one", "two", "three", "four", "five", "six"].index(
                    row.completion.split("{")[1].strip("}")
                )
                assert count == len(answer.used)
    assert min(kinds.values()) > SIZE // 6 and set(kinds) == {"extractor", "manager", "answerer"}


@pytest.mark.parametrize("phase", ["lookup", "read", "habits"])
def test_no_held_out_pair_is_ever_shown(phase: str) -> None:
    for row in rows(phase):
        for name, _, value in re.findall(
            rf"(\w+) ({'|'.join(KINDS_SAID)}) (\w+)", row.messages[0].content + row.completion
        ):
            if name in NAMES and value in EVERY_VALUE:
                assert split_of(name, value) == "train"


def test_rows_are_repeatable_and_bad_options_are_one_line() -> None:
    assert rows("read")[7] == dialogue_traces("read", offset=7, size=1)[0]
    assert rows("read") != rows("read", seed=1)
    with pytest.raises(BadInput, match="data 'dialogue_traces': unknown phase 'recite'"):
        dialogue_traces("recite")
