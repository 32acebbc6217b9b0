"""Supervised traces that make a policy worth training: it knows the call formats and can copy, but has a bad habit.

Pre-training goes through phases, each a stream of rows `{"module", "messages", "completion"}`:

- `pairs`: bare "name value" pairs, recited. Copying (induction) forms here, in a small vocabulary.
- `recite`: the facts of an English section, recited as notes.
- `read`: update and answer calls done right, with a share of `recite`.
- `habits`: like `read`, but with probability `habit` an update keeps the section's *last* fact whatever the
  question, so
  that the greedy policy is nearly always wrong while a sampled one is sometimes right: something for RL to unlearn.

Facts to recite are drawn *with* replacement: as a permutation they would teach "a value not said yet" instead
of copying.
All facts come from the train split's (name, value) pairs. A row is a function of (seed, phase, index) and the
arguments.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from typing import Any

from memfactory.data.synthetic.facts import (
    FACTS_PER_SECTION,
    SECTION_TOKENS,
    TWO_FACT_SHARE,
    Fact,
    Section,
    draw_fact,
    make_question,
    make_section,
)
from memfactory.data.synthetic.vocabulary import NAMES

PHASES = ("pairs", "recite", "read", "habits")

#: The same texts as `configs/prompts/memagent_tiny.yaml`.
PROMPTS: Mapping[str, str] = {
    "update": "{question} Memory: {memory} Text: {block} Update memory.",
    "answer": "{question} Memory: {memory} Answer.",
    "empty_memory": "nothing yet.",
}
_RECITE = "Text: {block} Recite."
_UNKNOWN = "unknown"


def make_trace(
    index: int,
    *,
    seed: int,
    phase: str,
    names: int | None = None,
    values: int | None = None,
    pairs: tuple[int, int] = (2, 6),
    recitals: int | None = None,
    echo: float = 0.0,
    section_tokens: int = SECTION_TOKENS,
    facts_per_section: int = FACTS_PER_SECTION,
    two_fact_share: float = TWO_FACT_SHARE,
    recite_share: float = 0.3,
    answer_share: float = 0.2,
    habit: float = 0.65,
    surplus: float = 0.05,
    prompts: Mapping[str, str] = PROMPTS,
) -> dict[str, Any]:
    """Make one supervised row.

    `names` and `values` keep only the first names, and the first values of each kind. `pairs` is the range of
    the number
    of pairs in a `pairs` row, `recitals` the number of facts recited (default: as many as shown), `echo` the share of
    `pairs` rows that say each name again after its value. `recite_share` and `answer_share` divide the rows of
    `read` and
    `habits`, the rest are updates; `habit` and `surplus` are the probabilities of an update's two faults in `habits`.
    """
    if phase not in PHASES:
        raise ValueError(f"unknown phase {phase!r}; known: {', '.join(PHASES)}")
    rng = random.Random(f"traces|{seed}|{phase}|{index}")
    if phase == "pairs":
        facts = [
            draw_fact(rng, name, "train", values) for name in rng.sample(NAMES[:names], rng.randint(*pairs))
        ]
        shown = " ".join(f"{fact.name} {fact.value}" for fact in facts)
        shape = "{0.name} {0.value} {0.name}" if rng.random() < echo else "{0.name} {0.value}"
        said = " ".join(shape.format(fact) for fact in rng.choices(facts, k=recitals or len(facts)))
        return _row("recite", shown, said)
    scene = _Scene(rng, names, values, section_tokens, facts_per_section, two_fact_share)
    module = "recite"
    if phase != "recite" and rng.random() >= recite_share:
        module = "answer" if rng.random() < answer_share / (1 - recite_share) else "update"
    if module == "recite":
        said = " ".join(
            fact.note for fact in rng.choices(scene.section.facts, k=recitals or facts_per_section)
        )
        return _row(module, _RECITE.format(block=scene.section.text), said)
    memory = scene.memory(prompts["empty_memory"])
    if module == "answer":
        known = scene.known_to(memory)
        said = " and ".join(fact.value if fact in known else _UNKNOWN for fact in scene.needed)
        prompt = prompts["answer"].format(question=scene.question, memory=memory)
        return _row(module, prompt, "\\boxed{" + said + "}")
    said = scene.update(memory)
    if phase == "habits":
        if rng.random() < habit:
            said = scene.section.facts[-1].note
        elif rng.random() < surplus:
            said = (
                f"{said} {rng.choice(scene.section.facts).note}" if said != prompts["empty_memory"] else said
            )
    prompt = prompts["update"].format(question=scene.question, memory=memory, block=scene.section.text)
    return _row(module, prompt, said)


class _Scene:
    """One call's surroundings: who is asked about, what was read before, and the section at hand."""

    def __init__(
        self,
        rng: random.Random,
        names: int | None,
        values: int | None,
        section_tokens: int,
        facts_per_section: int,
        two_fact_share: float,
    ) -> None:
        self._rng = rng
        people = rng.sample(NAMES[:names], 4 + facts_per_section)
        facts = [draw_fact(rng, name, "train", values) for name in people]
        self.needed: Sequence[Fact] = facts[: 2 if rng.random() < two_fact_share else 1]
        # Each needed fact stands here, was read before, or is still to come.
        fates = [rng.choice(("here", "before", "later")) for _ in self.needed]
        here = [fact for fact, fate in zip(self.needed, fates, strict=True) if fate == "here"]
        self._before = [fact for fact, fate in zip(self.needed, fates, strict=True) if fate == "before"]
        self._strangers = facts[2:4]
        others = [fact.name for fact in facts[4:]]
        here += facts[4 : 4 + facts_per_section - len(here)]
        self.section: Section = make_section(rng, here, section_tokens=section_tokens, others=others)
        self.question: str = make_question(self.needed)

    def memory(self, empty: str) -> str:
        """What stands in memory: notes on those asked about, or of strangers (a habit's doing), or nothing."""
        chance = self._rng.random()
        if chance < 0.6:
            return self._notes(self._before)
        strangers = self._strangers[: self._rng.choice((1, 1, 2))]
        return " ".join(fact.note for fact in strangers) if chance < 0.85 else empty

    def known_to(self, memory: str) -> list[Fact]:
        return [fact for fact in self.needed if fact.note in memory]

    def update(self, memory: str) -> str:
        """The right update: a note on each person asked about, in the question's order."""
        return self._notes([*self.known_to(memory), *self.section.facts])

    def _notes(self, known: Sequence[Fact]) -> str:
        return " ".join(fact.note if fact in known else f"{fact.name} {_UNKNOWN}." for fact in self.needed)


def _row(module: str, prompt: str, completion: str) -> dict[str, Any]:
    return {"module": module, "messages": [{"role": "user", "content": prompt}], "completion": completion}
