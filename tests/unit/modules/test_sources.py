"""Which turns a memory rests on."""

from __future__ import annotations

import random

from hypothesis import given
from hypothesis import strategies as st

from memfactory.data.dialogue import Session, Turn
from memfactory.data.synthetic.dialogues import World
from memfactory.data.synthetic.vocabulary import NAMES
from memfactory.modules.sources import supporting_turns


def session(*turns: tuple[str, str]) -> Session:
    return Session("s", "", tuple(Turn(f"D1:{n}", who, text) for n, (who, text) in enumerate(turns, start=1)))


TALK = session(
    ("Ana", "I moved to Oslo, my goats came too."), ("Ben", "Great to hear."), ("Ben", "I moved to Rome.")
)


def test_the_turn_with_the_words_supports_the_memory() -> None:
    assert supporting_turns("Ana lives in Oslo.", TALK) == ("D1:1",)
    # By hand: Ben stands in two turns (1/2 each), moved in two (1/2), Rome in one (1): D1:3 has 2, D1:2 has 1/2.
    assert supporting_turns("Ben moved to Rome", TALK) == ("D1:3",)
    assert supporting_turns("Ana has a goat", TALK) == ("D1:1",), "stems are compared"
    assert supporting_turns("Ben", TALK) == ("D1:2", "D1:3"), "what ties supports it together"


def test_without_a_word_in_common_the_whole_session_is_named() -> None:
    assert supporting_turns("Zoe likes jazz", TALK) == ("D1:1", "D1:2", "D1:3")
    assert supporting_turns("anything", Session("s", "", ())) == ()


def test_facts_of_synthetic_dialogues_are_traced_to_the_turn_that_states_them() -> None:
    rng = random.Random(0)
    right = total = 0
    for _ in range(40):
        world = World(rng, rng.sample(NAMES, 2), "train")
        events = [world.say(1) for _ in range(6)]
        talk = session(*((event.name, event.text) for event in events))
        for number, event in enumerate(events, start=1):
            if event.value and sum(event.value in other.text for other in events) == 1:
                total += 1
                right += supporting_turns(f"{event.name} has {event.value}.", talk) == (f"D1:{number}",)
    assert total > 100
    assert right == total


@given(st.text(max_size=60), st.lists(st.text(max_size=40), max_size=5))
def test_any_text_has_turns_of_the_session(text: str, said: list[str]) -> None:
    talk = session(*(("Ana", line) for line in said))
    found = supporting_turns(text, talk)
    assert set(found) <= {turn.id for turn in talk.turns}
    assert bool(found) == bool(said)
