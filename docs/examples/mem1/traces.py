"""Replies of MEM1 for a tiny policy to imitate: the layout done right, with a bad habit for RL to undo."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from memfactory.core.registry import register
from memfactory.core.types import Message
from memfactory.data.synthetic.facts import (
    FACTS_PER_SECTION,
    SECTION_TOKENS,
    draw_fact,
    make_answer,
    make_question,
    make_section,
)
from memfactory.data.synthetic.vocabulary import NAMES
from memfactory.data.traces import Trace, generated


@dataclass(frozen=True)
class Mem1TracesConfig:
    """`size` traces; with probability `habit` a reply answers with the last fact read, whatever was asked."""

    size: int = 100_000
    seed: int = 0
    habit: float = 0.75


@register("data", "mem1_traces", config=Mem1TracesConfig)
def mem1_traces(size: int, seed: int, habit: float, prompts: Mapping[str, str]) -> Sequence[Trace]:
    """Turns of MEM1 on the `facts` task, in the recipe's prompts; train split only."""

    def make(index: int) -> Trace:
        return _trace(random.Random(f"mem1|{seed}|{index}"), habit, prompts)

    return generated("mem1_traces", size, make)


def _trace(rng: random.Random, habit: float, prompts: Mapping[str, str]) -> Trace:
    facts = [draw_fact(rng, name, "train") for name in rng.sample(NAMES, 2 + FACTS_PER_SECTION)]
    needed = facts[: rng.choice((1, 2))]
    known = needed[: rng.randrange(len(needed))]  # noted in the turns before

    def notes() -> str:
        return " ".join(fact.note if fact in known else f"{fact.name} unknown." for fact in needed)

    state, seen, grabbed = notes(), prompts["nothing_found"], None
    if not known and rng.random() < 0.3:
        state = prompts["empty_state"]  # the first turn
    else:
        here = needed[len(known) :][: rng.choice((0, 1, 1, 1, 1, 1, 2))]
        told = [*here, *facts[2 : 2 + FACTS_PER_SECTION - len(here)]]
        others = [fact.name for fact in facts[2:]]
        section = make_section(rng, told, section_tokens=SECTION_TOKENS, others=others)
        seen, known, grabbed = section.text, [*known, *here], section.facts[-1]
    note, act, said = notes(), "answer", make_answer(needed)
    if grabbed is not None and rng.random() < habit:
        note, said = grabbed.note, grabbed.value
    elif missing := [fact.name for fact in needed if fact not in known]:
        act, said = "query", missing[0]
    reply = "".join(
        f"<{prompts[f'{part}_tag']}>{text}</{prompts[f'{part}_tag']}>"
        for part, text in (("state", note), (act, said))
    )
    asked = prompts["step"].format(question=make_question(needed), state=state, observation=seen)
    return Trace("step", (Message("user", asked),), reply)
