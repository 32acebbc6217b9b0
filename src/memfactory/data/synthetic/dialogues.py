"""Dialogues over many sessions in which facts are stated, changed, taken back and repeated among small talk.

Two people talk about themselves. Questions ask for the *current* value of something, for a count, or for the day on
which something happened. A memory that only adds fails: it has old values beside new ones, pets that are gone, and
facts that were said twice.

- Everybody has one value of each single kind (home, job, music, colour) and any number of pets.
- Train and held-out dialogues use disjoint (name, value) pairs, divided by the hash of `facts.split_of`.
- Everything is drawn from `random.Random(str)`: a task is a function of (seed, split, index) and the arguments.
"""

from __future__ import annotations

import datetime
import random
from collections.abc import Sequence
from dataclasses import dataclass

from memfactory.core.types import Task
from memfactory.data.dialogue import Dialogue, Memory, Session, Turn
from memfactory.data.synthetic.facts import allowed_values
from memfactory.data.synthetic.vocabulary import NAMES

PET = "pet"
SINGLE = ("home", "job", "music", "colour")
KINDS_SAID = (*SINGLE, PET)
QUESTIONS = ("value", "count", "when")
NUMBERS = ("none", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")
_FIRST_DAY = datetime.date(2023, 5, 1)
_MOST_PETS = 6
_MOST_ATTEMPTS = 50
_MONTHS = ("January February March April May June July August September October November December").split()

#: By kind: how a value is stated first, changed, taken back, and said again.
SAYINGS: dict[str, dict[str, tuple[str, ...]]] = {
    "home": {
        "state": ("I live in {v}.", "My home is in {v}."),
        "change": ("I moved to {v} today.", "I left the old house, now I live in {v}."),
        "retract": ("I left {o} and have no home now.",),
        "repeat": ("As you know, I live in {v}.", "Here in {v} all is well."),
    },
    "job": {
        "state": ("I work as a {v}.", "My job is {v}."),
        "change": ("I have a new job, now I am a {v}.", "I changed my job and work as a {v} now."),
        "retract": ("I quit, I am no {o} anymore.",),
        "repeat": ("Work as a {v} is never boring.", "I am still a {v}."),
    },
    "music": {
        "state": ("I play the {v}.", "I am learning the {v}."),
        "change": ("I stopped with the {o}, now I play the {v}.", "I play the {v} instead of the {o} now."),
        "retract": ("I sold the {o} and play nothing now.",),
        "repeat": ("I still play the {v}.", "The {v} again today, I play it every day."),
    },
    "colour": {
        "state": ("My favourite colour is {v}.", "I like {v} best."),
        "change": ("Now I like {v} better than {o}.", "My favourite colour is {v} now, not {o}."),
        "retract": ("I do not like {o} anymore, and no other colour.",),
        "repeat": ("I still like {v} best.", "As always, {v} is my colour."),
    },
    PET: {
        "state": ("I adopted a {v}.", "I bought a {v} today."),
        "retract": ("I gave my {o} away.", "My {o} died."),
        "repeat": ("My {v} slept all day.", "The {v} is well, thanks."),
    },
}
ASK_VALUE = {
    "home": "Where does {n} live now?",
    "job": "What job does {n} have now?",
    "music": "What instrument does {n} play now?",
    "colour": "What is {n}'s favourite colour now?",
}
ASK_COUNT = "How many pets does {n} have now?"
ASK_WHEN = {
    "home": "On which day did {n} say that {n} lives in {v}?",
    "job": "On which day did {n} say that {n} is a {v}?",
    "music": "On which day did {n} say that {n} plays the {v}?",
    "colour": "On which day did {n} say that {n} likes {v}?",
    PET: "On which day did {n} get the {v}?",
}
#: What is true of somebody as an ideal memory says it: in sentences, or in the few words of the tiny policy's notes.
REMEMBERED = {
    "sentence": {
        "home": "{n} lives in {v}.",
        "job": "{n} works as a {v}.",
        "music": "{n} plays the {v}.",
        "colour": "{n}'s favourite colour is {v}.",
        PET: "{n} has a {v}.",
    },
    "words": {kind: f"{{n}} {kind} {{v}}" for kind in KINDS_SAID},
}
SMALL_TALK = (
    "How are you?",
    "It rained all day.",
    "Great to hear.",
    "Well, the train was late again.",
    "I read a long book this week.",
    "What a week!",
    "Lunch was good today.",
    "I am sorry, I was late.",
    "See you soon.",
    "The weather is better now.",
)


@dataclass(frozen=True)
class Event:
    """One thing that somebody says of themselves: `action` is state, change, retract or repeat."""

    name: str
    kind: str
    action: str
    value: str
    old: str
    session: int
    text: str


class World:
    """What is true of the speakers while they talk; draws what they say next."""

    def __init__(self, rng: random.Random, names: Sequence[str], split: str) -> None:
        self.rng = rng
        self.names = tuple(names)
        self.split = split
        self.values: dict[tuple[str, str], str] = {}
        self.pets: dict[str, list[str]] = {name: [] for name in names}
        self.said: dict[tuple[str, str], set[str]] = {}
        self.events: list[Event] = []

    def say(self, session: int) -> Event:
        """The next event: something new, or a change, an end or a repetition of what is true.

        Nobody speaks twice of the same kind in one session, as long as there is something else to say.
        """
        spoken = {(event.name, event.kind) for event in self.events if event.session == session}
        attempt = 0
        while True:
            attempt += 1
            name = self.rng.choice(self.names)
            kind = self.rng.choice((*SINGLE, PET, PET))
            if (name, kind) in spoken and attempt <= _MOST_ATTEMPTS:
                continue
            event = self._pet(name, session) if kind == PET else self._single(name, kind, session)
            if event is not None:
                self.events.append(event)
                return event

    def holds(self, event: Event) -> bool:
        """Whether what the event says is still true."""
        if event.kind == PET:
            return event.value in self.pets[event.name]
        return self.values[event.name, event.kind] == event.value

    def about(self, name: str, kind: str) -> tuple[Event, ...]:
        """Everything that a person said of one kind."""
        return tuple(event for event in self.events if (event.name, event.kind) == (name, kind))

    def true_now(self, form: str) -> list[tuple[str, Event]]:
        """What is true of the speakers, in a form of `REMEMBERED`, with the events that made it so, in their order."""
        begun = {}
        for event in self.events:
            if event.action in ("state", "change") and self.holds(event):
                begun[REMEMBERED[form][event.kind].format(n=event.name, v=event.value)] = event
        return list(begun.items())

    def _single(self, name: str, kind: str, session: int) -> Event | None:
        old, left = self.values.get((name, kind), ""), self._unsaid(name, kind)
        if not old and not left:
            return None
        action = self.rng.choices(("change", "repeat", "retract"), (6, 3, 1))[0] if old else "state"
        if action == "repeat" or not left:  # so that there is always something to say
            return self._event(name, kind, "repeat", old, old, session)
        value = "" if action == "retract" else self._draw(name, kind, left)
        self.values[name, kind] = value
        return self._event(name, kind, action, value, old, session)

    def _pet(self, name: str, session: int) -> Event | None:
        pets, left = self.pets[name], self._unsaid(name, PET)
        actions = {
            "state": 5 if left and len(pets) < _MOST_PETS else 0,
            "repeat": 2 if pets else 0,
            "retract": 3 if len(pets) > 1 or (pets and left) else 0,
        }
        if not any(actions.values()):
            return None
        action = self.rng.choices(list(actions), list(actions.values()))[0]
        if action == "state":
            pets.append(self._draw(name, PET, left))
            return self._event(name, PET, action, pets[-1], "", session)
        pet = self.rng.choice(pets)
        if action == "retract":
            pets.remove(pet)
            return self._event(name, PET, action, "", pet, session)
        return self._event(name, PET, action, pet, pet, session)

    def _unsaid(self, name: str, kind: str) -> list[str]:
        """Values that this person has never had: each begins on one day only."""
        had = self.said.get((name, kind), set())
        return [value for value in allowed_values(name, kind, self.split) if value not in had]

    def _draw(self, name: str, kind: str, left: Sequence[str]) -> str:
        value = self.rng.choice(left)
        self.said.setdefault((name, kind), set()).add(value)
        return value

    def _event(self, name: str, kind: str, action: str, value: str, old: str, session: int) -> Event:
        text = self.rng.choice(SAYINGS[kind][action]).format(v=value, o=old)
        return Event(name, kind, action, value, old, session, text)


@dataclass(frozen=True)
class Asked:
    """A question about what is true at the end: its kind, its text, the answers that count, and what it is about.

    `value` is the value that a question of kind `when` names; `events` are those on which the answer rests.
    """

    kind: str
    text: str
    answers: tuple[str, ...]
    about: tuple[str, str]
    value: str
    events: tuple[Event, ...]


def make_dialogue_task(
    index: int,
    *,
    seed: int,
    split: str,
    sessions: int,
    facts_per_session: int = 2,
    small_talk: int = 2,
    question: str = "any",
    remembered: str = "sentence",
) -> Task:
    """Make one dialogue with one question about it; `question` is value, count, when or any of them.

    `meta` has the kind of question, what it is about, and the turns on which the answer rests. When there is nothing of
    the kind to ask about, a question about a value or a day becomes a question for a count. Each session knows
    what is true after it (`Session.after`), in the form `remembered` (sentence or words).
    """
    if sessions < 1 or facts_per_session < 1 or small_talk < 0:
        raise ValueError(
            "a dialogue needs at least one session, a session at least one fact, no less small talk"
        )
    if question not in ("any", *QUESTIONS):
        raise ValueError(f"unknown question {question!r}; known: any, {', '.join(QUESTIONS)}")
    if remembered not in REMEMBERED:
        raise ValueError(f"remembered must be {' or '.join(REMEMBERED)}, not {remembered!r}")
    rng = random.Random(
        f"dialogues|{seed}|{split}|{index}|{sessions}|{facts_per_session}|{small_talk}|{question}"
    )
    names = rng.sample(NAMES, 2)
    world = World(rng, names, split)
    days = session_days(rng, sessions)
    said: dict[str, Event] = {}
    held = []
    for number in range(1, sessions + 1):
        turns = []
        lines = draw_lines(rng, world, number, facts_per_session, small_talk)
        for place, (name, text, told) in enumerate(lines, start=1):
            turns.append(Turn(f"D{number}:{place}", name, text))
            if told is not None:
                said[turns[-1].id] = told
        after = tuple(_memory(text, event, said, days) for text, event in world.true_now(remembered))
        held.append(Session(f"session_{number}", days[number - 1], tuple(turns), after))
    name = f"dialogues-{split}-s{seed}-{sessions}x{facts_per_session}-{index}"
    asked = draw_question(rng, world, days, question)
    dialogue = Dialogue(name, tuple(names), tuple(held))
    meta = {
        "benchmark": "dialogues",
        "group": asked.kind,
        "question_kind": asked.kind,
        "about": asked.about,
        "split": split,
        **dialogue.gold([turn for turn, told in said.items() if told in asked.events]),
    }
    return Task(name, asked.text, dialogue, asked.answers, meta)


def draw_lines(
    rng: random.Random, world: World, session: int, facts: int, small_talk: int
) -> list[tuple[str, str, Event | None]]:
    """What is said in a session: speaker, text, and the event if it is one; small talk stands between the facts."""
    lines: list[tuple[str, str, Event | None]] = []
    for _ in range(facts):
        event = world.say(session)
        lines.append((event.name, event.text, event))
    for _ in range(small_talk):
        lines.insert(rng.randint(0, len(lines)), (rng.choice(world.names), rng.choice(SMALL_TALK), None))
    return lines


def draw_question(rng: random.Random, world: World, days: Sequence[str], question: str = "any") -> Asked:
    """Ask about what is true now. A day is asked of facts that still hold: a bank need not know what was."""
    kind = rng.choice(QUESTIONS) if question == "any" else question
    current = [event for event in world.events if event.action in ("state", "change") and world.holds(event)]
    if (kind == "value" and not world.values) or (kind == "when" and not current):
        kind = "count"
    if kind == "when":
        event = rng.choice(current)
        text = ASK_WHEN[event.kind].format(n=event.name, v=event.value)
        about = (event.name, event.kind)
        return Asked(kind, text, (days[event.session - 1],), about, event.value, (event,))
    if kind == "count":
        name = rng.choice([name for name in world.names if world.said.get((name, PET))] or world.names)
        count = len(world.pets[name])
        words = (NUMBERS[count], str(count)) if count else ("none", "0", "zero")
        return Asked(kind, ASK_COUNT.format(n=name), words, (name, PET), "", world.about(name, PET))
    # Whoever changed something is asked about first: that is what an old value would give away.
    changed = [
        (e.name, e.kind) for e in world.events if e.kind in SINGLE and e.action in ("change", "retract")
    ]
    name, what = rng.choice(changed or list(world.values))
    value = world.values[name, what]
    answers = (value,) if value else ("none", "nothing", "nowhere", "no job")
    return Asked(kind, ASK_VALUE[what].format(n=name), answers, (name, what), "", world.about(name, what))


def _memory(text: str, event: Event, said: dict[str, Event], days: Sequence[str]) -> Memory:
    sources = tuple(turn for turn, told in said.items() if told is event)
    return Memory(text, f"session_{event.session}", days[event.session - 1], sources=sources)


def session_days(rng: random.Random, sessions: int) -> list[str]:
    """A day for each session, one to nine days apart, written like `3 May 2023`."""
    day, days = _FIRST_DAY, []
    for _ in range(sessions):
        day += datetime.timedelta(days=rng.randint(1, 9))
        days.append(f"{day.day} {_MONTHS[day.month - 1]} {day.year}")
    return days
