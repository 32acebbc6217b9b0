"""Small worlds in which people walk about, carry things and hand them over, and questions about what happened.

The first five tasks of bAbI (arXiv 1502.05698), which BABILong hides in long texts, simulated anew: the same six
places, three things and people, and the same kinds of sentences.

| task | question | facts it rests on |
|---|---|---|
| qa1 | where somebody is | one: the last move |
| qa2 | where a thing is | two: who took it (or put it down), and where that person was |
| qa3 | where a thing was before it came to a place | three: who took it, and two moves |
| qa4 | what lies north (south, east, west) of a place, or which place it lies north of | one of two |
| qa5 | who gave what to whom | one |

Every question has one answer that follows from the story; a reader needs no knowledge of anything before it.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

TASKS = ("qa1", "qa2", "qa3", "qa4", "qa5")
PLACES = ("bathroom", "bedroom", "garden", "hallway", "kitchen", "office")
THINGS = ("apple", "football", "milk")
PEOPLE = ("Daniel", "John", "Mary", "Sandra")
GIVERS = ("Bill", "Fred", "Jeff", "Mary")
#: What an answer can be, by task: BABILong's score looks for these words in a reply.
LABELS = dict.fromkeys(TASKS[:4], PLACES) | {"qa5": (*GIVERS, *THINGS)}
#: How many facts a story has, least and most: BABILong keeps stories of about such lengths.
FACTS = {"qa1": (2, 10), "qa2": (4, 30), "qa3": (6, 32), "qa5": (3, 30)}

_MOVE = ("moved to", "went to", "journeyed to", "travelled to", "went back to")
_GET = ("got", "took", "grabbed", "picked up")
_DROP = ("dropped", "discarded", "left", "put down")
_GIVE = ("gave", "handed", "passed")
_AXES = (("north", "south"), ("east", "west"))
_THERE = ("", " there")


@dataclass(frozen=True)
class Event:
    """Something that happened: `kind` is move (to `place`), get, drop or give (of `thing`, to `whom`)."""

    kind: Literal["move", "get", "drop", "give"]
    who: str
    thing: str = ""
    place: str = ""
    whom: str = ""


@dataclass(frozen=True)
class Story:
    """Sentences in order, a question about them, its answer, and the numbers (from 0) of the facts it rests on."""

    sentences: tuple[str, ...]
    question: str
    answer: str
    support: tuple[int, ...]


def make_story(task: str, rng: random.Random) -> Story:
    """A story of one of `TASKS`; a function of the generator's state alone. Raises `KeyError` for another task."""
    if task == "qa4":
        return _directions(rng)
    least, most = FACTS[task]
    while True:
        wanted = rng.randint(least, most)
        world = World(rng, GIVERS if task == "qa5" else PEOPLE)
        kinds = {"qa1": ("move",), "qa5": ("move", "get", "give")}.get(task, ("move", "get", "drop"))
        while len(world.events) < wanted:
            world.act(kinds)
        asked = _ASK[task](world, rng)
        if asked is not None:
            question, answer, support = asked
            sentences = tuple(_sentence(event, rng) for event in world.events)
            return Story(sentences, question, answer, tuple(sorted(support)))


class World:
    """Where everybody and everything is. Where they began is hidden from the reader, as is what nobody touched."""

    def __init__(self, rng: random.Random, people: Sequence[str]) -> None:
        self.rng = rng
        self.people = tuple(people)
        self.where = {name: rng.choice(PLACES) for name in (*people, *THINGS)}
        self.holder: dict[str, str] = {}
        self.events: list[Event] = []

    def act(self, kinds: Sequence[str]) -> None:
        """One more event of one of these kinds, drawn among those that can happen; a move always can."""
        found: list[Event] = []
        while not found:
            found = self._possible(self.rng.choice(kinds))
        event = self.rng.choice(found)
        self.events.append(event)
        if event.kind == "move":
            for name in (event.who, *(thing for thing, who in self.holder.items() if who == event.who)):
                self.where[name] = event.place
        elif event.kind == "drop":
            del self.holder[event.thing]
        else:
            self.holder[event.thing] = event.whom or event.who

    def _possible(self, kind: str) -> list[Event]:
        if kind == "move":
            moves = [(who, place) for who in self.people for place in PLACES if place != self.where[who]]
            return [Event("move", who, place=place) for who, place in moves]
        if kind == "get":
            free = [thing for thing in THINGS if thing not in self.holder]
            return [
                Event("get", who, thing)
                for thing in free
                for who in self.people
                if self.where[who] == self.where[thing]
            ]
        if kind == "drop":
            return [Event("drop", who, thing) for thing, who in self.holder.items()]
        return [
            Event("give", who, thing, whom=whom)
            for thing, who in self.holder.items()
            for whom in self.people
            if whom != who and self.where[whom] == self.where[who]
        ]


Asked = tuple[str, str, set[int]]


def _ask_person(world: World, rng: random.Random) -> Asked | None:
    who = rng.choice([event.who for event in world.events])
    last = max(i for i, event in enumerate(world.events) if event.who == who)
    return f"Where is {who}?", world.events[last].place, {last}


def _ask_thing(world: World, rng: random.Random) -> Asked | None:
    """The last time the thing was taken or put down, and the move that says where that person is (or was then)."""
    known: list[Asked] = []
    for thing in THINGS:
        touched = [i for i, event in enumerate(world.events) if event.thing == thing]
        if not touched:
            continue
        last = world.events[touched[-1]]
        until = touched[-1] if last.kind == "drop" else len(world.events)
        moved = _last_move(world.events, last.who, until)
        if moved is not None:
            place = world.events[moved].place
            known.append((f"Where is the {thing}?", place, {touched[-1], moved}))
    return rng.choice(known) if known else None


def _ask_before(world: World, rng: random.Random) -> Asked | None:
    """A carried thing came to a place, for the only time: where was it just before?"""
    known: list[Asked] = []
    for thing in THINGS:
        taken, came = (
            None,
            [],
        )  # who has it since when, and its arrivals: (fact, fact of the place before, taken)
        for i, event in enumerate(world.events):
            if event.thing == thing:
                taken = i if event.kind == "get" else None
            elif event.kind == "move" and taken is not None and world.events[taken].who == event.who:
                before = _last_move(world.events, event.who, i)
                came.append((i, before, taken))
        seen = _places_seen(world.events, thing)
        for arrived, left, since in came:
            place = world.events[arrived].place
            if left is not None and seen.count(place) == 1:
                question = f"Where was the {thing} before the {place}?"
                known.append((question, world.events[left].place, {since, left, arrived}))
    return rng.choice(known) if known else None


def _places_seen(events: Sequence[Event], thing: str) -> list[str]:
    """Every place that the story lets a reader know the thing to have been at, one for each stay."""
    stays: list[str] = []
    carrier = ""
    for i, event in enumerate(events):
        if event.thing == thing:
            carrier = event.who if event.kind == "get" else ""
            moved = _last_move(events, event.who, i)
            if moved is not None and stays[-1:] != [events[moved].place]:
                stays.append(events[moved].place)
        elif event.kind == "move" and event.who == carrier:
            stays.append(event.place)
    return stays


def _ask_gift(world: World, rng: random.Random) -> Asked | None:
    """A question about a gift to which every gift that fits it gives the same answer; it rests on the last one."""
    gifts = [(i, event) for i, event in enumerate(world.events) if event.kind == "give"]
    known: list[Asked] = []
    for i, gift in gifts:
        for question, answer, fits in (
            (
                f"What did {gift.who} give to {gift.whom}?",
                gift.thing,
                [(j, g.thing) for j, g in gifts if (g.who, g.whom) == (gift.who, gift.whom)],
            ),
            (
                f"Who gave the {gift.thing} to {gift.whom}?",
                gift.who,
                [(j, g.who) for j, g in gifts if (g.thing, g.whom) == (gift.thing, gift.whom)],
            ),
            (
                f"Who did {gift.who} give the {gift.thing} to?",
                gift.whom,
                [(j, g.whom) for j, g in gifts if (g.who, g.thing) == (gift.who, gift.thing)],
            ),
            (
                f"Who gave the {gift.thing}?",
                gift.who,
                [(j, g.who) for j, g in gifts if g.thing == gift.thing],
            ),
            (
                f"Who received the {gift.thing}?",
                gift.whom,
                [(j, g.whom) for j, g in gifts if g.thing == gift.thing],
            ),
        ):
            if {said for _, said in fits} == {answer} and fits[-1][0] == i:
                known.append((question, answer, {i}))
    return rng.choice(known) if known else None


_ASK = {"qa1": _ask_person, "qa2": _ask_thing, "qa3": _ask_before, "qa5": _ask_gift}


def _directions(rng: random.Random) -> Story:
    """Three places on a line, said in two facts; asked is a neighbour of the middle one."""
    line = rng.sample(PLACES, 3)  # line[0] lies furthest towards the first direction of the axis
    axis = rng.choice(_AXES)
    facts = []
    for near, far in ((0, 1), (1, 2)):
        a, b, word = rng.choice(((line[near], line[far], axis[0]), (line[far], line[near], axis[1])))
        facts.append((f"The {a} is {word} of the {b}.", near))
    rng.shuffle(facts)
    word, there = rng.choice(((axis[0], 0), (axis[1], 2)))
    question = f"What is {word} of the {line[1]}?"
    if (
        rng.random() < 0.5
    ):  # the same relation, said from the middle: it lies on the other side of its neighbour
        word, there = rng.choice(((axis[0], 2), (axis[1], 0)))
        question = f"What is the {line[1]} {word} of?"
    support = next(i for i, (_, first) in enumerate(facts) if first == min(there, 1))
    return Story(tuple(text for text, _ in facts), question, line[there], (support,))


def _last_move(events: Sequence[Event], who: str, until: int) -> int | None:
    """The number of somebody's last move before event `until`."""
    return next(
        (i for i in range(until - 1, -1, -1) if events[i].kind == "move" and events[i].who == who), None
    )


def _sentence(event: Event, rng: random.Random) -> str:
    if event.kind == "move":
        return f"{event.who} {rng.choice(_MOVE)} the {event.place}."
    if event.kind == "give":
        return f"{event.who} {rng.choice(_GIVE)} the {event.thing} to {event.whom}."
    verb = rng.choice(_GET if event.kind == "get" else _DROP)
    return f"{event.who} {verb} the {event.thing}{rng.choice(_THERE)}."
