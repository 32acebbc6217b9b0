"""Supervised calls of Memory-R1 on synthetic dialogues: formats and reading done right, or with a bad habit.

A row is one call of the extractor, the manager or the answerer, in the words of
`configs/prompts/memory_r1_tiny.yaml`. A dialogue is played to some session; the bank is what a perfect manager would
have, except that a share of the managers' banks is `stale`: something of it was never updated or deleted, as other
policies leave it.

- `lookup`: many facts at once about a bank, each about another memory, and lines of the bank recited. Finding a
  memory by name *and* kind forms here: a call of `read` has a token or two from which it could be learnt, one of
  these a dozen.
- `read`: every call done right.
- `habits`: like `read`, but the manager adds nearly whatever it is shown. This is what reinforcement learning has
  to undo.

All pairs of name and value are of the train split. A row is a function of (seed, phase, index)
and the arguments.
"""

from __future__ import annotations

import json
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from memfactory.data.synthetic.dialogues import (
    NUMBERS,
    PET,
    SINGLE,
    Event,
    World,
    draw_lines,
    draw_question,
    session_days,
)
from memfactory.data.synthetic.facts import allowed_values
from memfactory.data.synthetic.vocabulary import NAMES

PHASES = ("lookup", "read", "habits")

#: The same texts as `configs/prompts/memory_r1_tiny.yaml`.
PROMPTS: Mapping[str, str] = {
    "extract": "{session} Facts.",
    "manage": "Memory: {memories} Facts: {facts} Update.",
    "answer_from_memories": "Memory: {memories} {question} Answer.",
    # An id stands behind what it names: copying what comes next then finds it.
    "existing_memory": "{text} {id}",
    "memory": "{text} {id} {time}",
}
GONE = "gone"
_NOTHING = "(none)"
_RECITE = "Memory: {memories} Recite."


@dataclass(frozen=True)
class Memory:
    """A line of the bank: its id, the day it was noted, and what it says."""

    number: int
    time: str
    name: str
    kind: str
    value: str

    @property
    def text(self) -> str:
        return f"{self.name} {self.kind} {self.value}"

    def shown(self, line: str) -> str:
        """The memory as a model reads it."""
        return line.format(id=f"m{self.number}", text=self.text, time=self.time)


def note(event: Event) -> str:
    """What the extractor says of an event: `Anna home Paris`, or `Anna pet goat gone`."""
    gone = event.action == "retract"
    return f"{event.name} {event.kind} {event.old if gone else event.value}{' ' + GONE if gone else ''}"


def make_trace(
    index: int,
    *,
    seed: int,
    phase: str,
    sessions: int = 7,
    related: int = 3,
    top_k: int = 8,
    extractor_share: float = 0.25,
    answerer_share: float = 0.3,
    stale: float = 0.25,
    habit: float = 0.8,
    most_facts: int = 3,
    question: str = "any",
    prompts: Mapping[str, str] = PROMPTS,
) -> dict[str, Any]:
    """Make one supervised row `{"module", "messages", "completion"}`.

    A dialogue has 1 to `sessions` sessions. `related` memories stand for each fact in a manager's prompt and `top_k`
    in an answerer's. `extractor_share` and `answerer_share` of the rows are theirs, the rest is the manager's. `habit`
    is the probability with which, in `habits`, a fact is added that should have been updated, deleted or passed over.
    A session has 1 to `most_facts` facts, mostly 2 if that is 3. `question` is what answerers are asked: value,
    count, when or any.
    """
    if phase not in PHASES:
        raise ValueError(f"unknown phase {phase!r}; known: {', '.join(PHASES)}")
    rng = random.Random(f"dialogue traces|{seed}|{phase}|{index}")
    if phase == "lookup":
        return _lookup(rng, rng.randint(2, max(2, sessions)), top_k, prompts)
    chance = rng.random()
    managing = chance >= extractor_share + answerer_share
    scene = _Scene(rng, rng.randint(1, sessions), stale if managing else 0.0, most_facts)
    if chance < extractor_share:
        said = json.dumps({"facts": [note(event) for event in scene.events]}, separators=(",", ":"))
        return _row("extractor", prompts["extract"].format(session=scene.session), said)
    if not managing:
        scene.settle()
        question, memories, said = scene.answer(top_k, question)
        shown = "\n".join(m.shown(prompts["memory"]) for m in memories) or _NOTHING
        return _row(
            "answerer", prompts["answer_from_memories"].format(memories=shown, question=question), said
        )
    memories, operations = scene.manage(related, habit if phase == "habits" else 0.0)
    shown = "\n".join(m.shown(prompts["existing_memory"]) for m in memories) or _NOTHING
    facts = "\n".join(f"- {note(event)}" for event in scene.events)
    said = json.dumps({"operations": operations}, separators=(",", ":"))
    return _row("manager", prompts["manage"].format(memories=shown, facts=facts), said)


def _lookup(rng: random.Random, sessions: int, top_k: int, prompts: Mapping[str, str]) -> dict[str, Any]:
    """Lines of a bank recited, or operations for facts about many of its memories."""
    scene = _Scene(rng, sessions, 0.0)
    scene.settle()
    memories = sorted(rng.sample(scene.bank, min(top_k, len(scene.bank))), key=lambda memory: memory.number)
    if not memories or rng.random() < 0.4:
        shown = "\n".join(memory.shown(prompts["memory"]) for memory in memories) or _NOTHING
        said = (
            " ".join(m.shown(prompts["memory"]) for m in rng.choices(memories, k=6)) if memories else _NOTHING
        )
        return _row("recite", _RECITE.format(memories=shown), said)
    facts, operations = [], []
    for memory in rng.sample(memories, rng.randint(1, min(5, len(memories)))):
        choice = rng.choice(("ADD", "UPDATE", "UPDATE", "DELETE", "NOOP"))
        text, told = memory.text, {}
        if choice == "DELETE":
            text, told = f"{text} {GONE}", {"id": f"m{memory.number}"}
        elif choice == "UPDATE" and memory.kind != PET:
            text, told = (
                f"{memory.name} {memory.kind} {rng.choice(allowed_values(memory.name, memory.kind, 'train'))}",
                {"id": f"m{memory.number}"},
            )
            if text == memory.text:
                choice, told = "NOOP", {}
        elif choice != "NOOP":
            choice = "ADD"
            kinds = {m.kind for m in scene.bank if m.name == memory.name}
            kind = rng.choice([kind for kind in (*SINGLE, PET, PET) if kind == PET or kind not in kinds])
            text = f"{memory.name} {kind} {rng.choice(allowed_values(memory.name, kind, 'train'))}"
            if text in facts or any(m.text == text for m in scene.bank):
                continue
        facts.append(text)
        operations.append({"text": text, "op": choice, **told})
    shown = "\n".join(memory.shown(prompts["existing_memory"]) for memory in memories)
    said = json.dumps({"operations": operations}, separators=(",", ":"))
    listed = "\n".join(f"- {fact}" for fact in facts)
    return _row("manager", prompts["manage"].format(memories=shown, facts=listed), said)


class _Scene:
    """A dialogue at its last session: what is said there, and the bank of the sessions before."""

    def __init__(self, rng: random.Random, sessions: int, stale: float, most_facts: int = 3) -> None:
        self.rng = rng
        self.names = rng.sample(NAMES, 2)
        self.world = World(rng, self.names, "train")
        self.days = session_days(rng, sessions)
        self.bank: list[Memory] = []
        self.number = rng.randint(0, 12)
        stale = 0.4 if rng.random() < stale else 0.0
        for session in range(1, sessions + 1):
            last = session == sessions
            facts = rng.choice((1, 2, 2, 3)) if most_facts == 3 else rng.randint(1, most_facts)
            lines = draw_lines(rng, self.world, session, facts, rng.randint(0, 3))
            if not last:
                for _, _, event in lines:
                    if event is not None:
                        self.apply(event, stale)
        self.session = "\n".join(f"{name}: {text}" for name, text, _ in lines)
        self.events = [event for _, _, event in lines if event is not None]
        self.day = self.days[-1]

    def settle(self) -> None:
        """Take the last session into the bank as well."""
        for event in self.events:
            self.apply(event, 0.0)

    def apply(self, event: Event, stale: float) -> None:
        """What a perfect manager does; with probability `stale` it only adds."""
        time = self.days[event.session - 1]
        found = self.find(event)
        if event.action == "retract":
            if found is not None and self.rng.random() >= stale:
                self.bank.remove(found)
        elif found is not None and event.kind != PET and self.rng.random() >= stale:
            if found.value != event.value:
                self.bank[self.bank.index(found)] = replace(found, time=time, value=event.value)
        elif not any(memory.text == note(event) for memory in self.bank):
            self.number += self.rng.choice((1, 1, 1, 2, 3))
            self.bank.append(Memory(self.number, time, event.name, event.kind, event.value))

    def find(self, event: Event) -> Memory | None:
        """The latest memory that an event is about."""
        about = [memory for memory in self.bank if (memory.name, memory.kind) == (event.name, event.kind)]
        if event.kind == PET or event.action == "retract":
            value = event.old if event.action == "retract" else event.value
            about = [memory for memory in about if memory.value == value]
        return about[-1] if about else None

    def manage(self, related: int, habit: float) -> tuple[list[Memory], list[dict[str, str]]]:
        """The memories shown to the manager, and the operations that it should order."""
        shown: set[int] = set()
        for event in self.events:
            shown |= {m.number for m in self.nearest(note(event).split(), related)}
        memories = [memory for memory in self.bank if memory.number in shown]
        operations = []
        changed: set[int] = set()
        for event in self.events:
            found = self.find(event)
            operation = {"text": note(event), "op": "ADD"}
            if found is not None and found.number in shown and found.number not in changed:
                if event.action == "retract":
                    operation |= {"op": "DELETE", "id": f"m{found.number}"}
                elif found.value == event.value:
                    operation |= {"op": "NOOP"}
                else:
                    operation |= {"op": "UPDATE", "id": f"m{found.number}"}
            elif event.action == "retract":
                operation |= {"op": "NOOP"}
            if self.rng.random() < habit:
                operation = {"text": note(event), "op": "ADD"}
            if "id" in operation and found is not None:
                changed.add(found.number)
            operations.append(operation)
        return memories, operations

    def answer(self, top_k: int, kind: str) -> tuple[str, list[Memory], str]:
        """A question, the memories shown, and the right reply: the memories it rests on, then the answer."""
        asked = draw_question(self.rng, self.world, self.days, kind)
        about = [
            memory
            for memory in self.bank
            if (memory.name, memory.kind) == asked.about and asked.value in ("", memory.value)
        ]
        others = [m for m in self.nearest([*asked.about, asked.value], top_k) if m not in about]
        memories = sorted([*about, *others[: top_k - len(about)]], key=lambda memory: memory.number)
        answer = NUMBERS[len(about)] if asked.kind == "count" else NUMBERS[0]
        if about and asked.kind != "count":
            answer = about[0].value if asked.kind == "value" else about[0].time
        named = " ".join(f"m{memory.number}" for memory in about) or "none"
        return asked.text, memories, f"Memories: {named} \\boxed{{{answer}}}"

    def nearest(self, words: Sequence[str], k: int) -> list[Memory]:
        """The memories that share most words with a text, as a retriever would find them."""
        ranked = sorted(self.bank, key=lambda m: -len({m.name, m.kind, m.value} & {*words}))
        return ranked[:k]


def _row(module: str, prompt: str, completion: str) -> dict[str, Any]:
    return {"module": module, "messages": [{"role": "user", "content": prompt}], "completion": completion}
