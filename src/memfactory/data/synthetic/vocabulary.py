"""Words of the synthetic worlds: people, what can be said of them, and the sentences around it.

Everything a generator may print is listed here, so that the tiny word-level tokenizer can be built from this file alone and
every word is exactly one token. Sentence patterns keep the name before the value, because a two-layer policy copies forwards.
Lists only grow at their end: early pre-training phases use the first entries of each list.
"""

from __future__ import annotations

import re

NAMES: tuple[str, ...] = tuple(
    """
    Anna Ben Clara David Emma Felix Grace Hugo Iris Jacob Karen Leo Maria Noah Olga Peter Quinn Rita Simon Tara Ugo Vera
    Walter Xenia Yusuf Zoe Adam Bella Carl Diana Edgar Fiona George Hanna Ivan Julia Kevin Laura Martin Nina Oscar Paula
    Ralf Sara Thomas Ursula Victor Wendy Yara Zeno Alice Bruno Celia Dario Elena Frank Gina Henry Ingrid Jonas Klara Lukas
    Mona Nils Olive Pablo Rosa Samuel Tina Uwe Viola Wilma Yves Zelda Agnes Boris Carmen Daniel Esther Fabian Gloria Harald
    Irma Jasper Katja Liam Miriam Norman Ophelia Philip Regina Stefan Teresa Urban Valerie Wolfgang Yasmin Zack Albert Bianca
    Conrad Dora Emil Flora Gustav Helena Igor Judith Kurt Lydia Magnus Nadia Otto Petra Robert Sonja Tobias Ulla Vincent Winona
    Yannick Zara Arthur Beatrice Casper Doris Erik Frida Gerald Hedwig Isaac Jenny Konrad Lotte Moritz Nora Olaf Penny Ruben
    Sophie Theo Umberto Vivian William Yolanda Zachary
    """.split()
)

VALUES: dict[str, tuple[str, ...]] = {
    "home": tuple(
        """Paris Rome London Madrid Berlin Vienna Oslo Lisbon Dublin Prague Athens Cairo Lima Tokyo Delhi Seoul Boston
        Chicago Sydney Toronto""".split()
    ),
    "job": tuple(
        """baker teacher doctor farmer lawyer painter pilot sailor singer tailor writer barber carpenter driver gardener
        judge nurse plumber waiter librarian""".split()
    ),
    "pet": tuple(
        """cat dog parrot rabbit turtle hamster pony goat lizard canary ferret goose snake spider pigeon donkey mouse
        duck frog lamb""".split()
    ),
    "food": tuple(
        """pizza soup rice pasta salad bread cheese curry fish beans cake noodles stew sushi tofu pancakes dumplings
        lentils mushrooms potatoes""".split()
    ),
    "music": tuple(
        """violin piano guitar flute drums trumpet cello harp banjo clarinet trombone tuba lute fiddle saxophone
        mandolin bagpipes bassoon cornet zither""".split()
    ),
    "colour": tuple(
        """red blue green yellow purple white black grey brown pink golden silver crimson violet turquoise scarlet
        beige maroon navy lilac""".split()
    ),
}
KINDS: tuple[str, ...] = tuple(VALUES)

FACTS: dict[str, tuple[str, ...]] = {
    "home": ("{n} lives in {v}.", "{n} has a house in {v}.", "Last year {n} moved to {v}."),
    "job": ("{n} works as a {v}.", "{n} is our new {v}.", "Everyone knows {n} the {v}."),
    "pet": ("{n} keeps a {v}.", "{n} has a small {v} at home.", "These days {n} owns a {v}."),
    "food": ("{n} likes {v}.", "{n} always orders {v} for lunch.", "At dinner {n} wants {v}."),
    "music": ("{n} plays the {v}.", "{n} practises the {v} every evening.", "On Sunday {n} played the {v}."),
    "colour": ("{n} wears {v}.", "{n} drives a {v} car.", "Today {n} bought a {v} coat."),
}

QUESTIONS: dict[str, str] = {
    "home": "where does {n} live",
    "job": "what job does {n} have",
    "pet": "what pet does {n} keep",
    "food": "what food does {n} like",
    "music": "what does {n} play",
    "colour": "what colour does {n} like",
}

#: Sentences that answer nothing. `{n}` and `{m}` are people who are not asked about.
FILLERS: tuple[str, ...] = (
    "It rained.",
    "Nobody came.",
    "Time went by.",
    "The train was late.",
    "The garden was quiet.",
    "A door closed somewhere.",
    "The street was empty again.",
    "Snow fell on the hills.",
    "It was a long week.",
    "The market opened early that morning.",
    "Nobody could find the old key.",
    "The lamp in the hall was broken.",
    "We walked along the river until noon.",
)
DISTRACTORS: tuple[str, ...] = (
    "{n} was late.",
    "{n} called {m}.",
    "{n} met {m} again.",
    "{n} slept all day.",
    "{n} wrote to {m} yesterday.",
    "{n} said nothing about the letter.",
)

#: Words and signs that later paradigms (memory bank, dialogue) need on the same checkpoint.
RESERVED: tuple[str, ...] = tuple(
    """
    Question Memory Text Answer Recite Facts Notes Task Update Rewrite Keep Read Remember nothing yet unknown none
    ADD UPDATE DELETE NOOP NONE DEL id ids op ops operation operations key value text tags memory memories memory_list
    memory_type summary list item items candidate candidates existing fact facts topic topics score rank top cite cites cited
    citation citations session sessions turn turns dialogue user assistant system speaker question answer answers answered
    context evidence source sources true false null yes Yes no No not Not
    I i me my mine My you your You Your he she they we He She They We it its his her their our us them him who Who whom whose
    what What which Which where Where when When why Why how How many much that this these those there here That This
    There Here a an the A An The and or but so because if then than also too very quite only just still already never always
    often sometimes usually soon later before after since until while during now Now then Then today Today yesterday
    Yesterday tomorrow Tomorrow tonight morning afternoon evening night day days week weeks month months year years hour
    hours minute minutes Monday Tuesday Wednesday Thursday Friday Saturday Sunday January February March April May June
    July August September October November December spring summer autumn winter
    am is are was were be been being do does did done doing have has had having will would can could shall should may might
    must go goes went gone going come comes came coming get gets got getting give gives gave given take takes took taken
    make makes made making say says said saying tell tells told ask asks asked know knows knew known think thinks thought
    see sees saw seen find finds found want wants wanted like likes liked love loves loved hate hates hated prefer prefers
    preferred need needs needed use uses used try tries tried work works worked live lives lived move moves moved change
    changes changed stop stops stopped start starts started begin begins began quit sell sells sold buy buys bought keep
    keeps kept lose loses lost forget forgets forgot forgotten remember remembers remembered correct corrects corrected
    replace replaces replaced remove removes removed add adds added merge merges merged delete deletes deleted own owns
    owned adopt adopts adopted learn learns learned teach teaches taught study studies studied visit visits visited meet
    meets met call calls called write writes wrote read reads play plays played practise practises practised eat eats ate
    cook cooks cooked drink drinks drank drive drives drove travel travels wear wears wore marry married born die died
    longer anymore instead again back away first second third last next previous new old young former current other another
    same different good better best bad worse worst big small long short early late right wrong sure sorry please thanks
    Thanks hello Hello hi Hi bye Bye well Well okay Okay great Great really maybe perhaps of course
    in on at to from by with without for about of into over under between near around through up down out off as
    In On At To From By With For About Of As
    name names person people friend friends family mother father sister brother son daughter wife husband boss neighbour
    home house flat city town country street office school job pet pets food meal lunch dinner breakfast music instrument
    colour car coat book letter phone number age birthday party trip holiday news weather time place thing things story
    live lives living lived working plan plans idea hobby hobbies sport favourite Favourite both each all any some every
    everyone someone one two three four five six seven eight nine ten more most less least few several enough
    reply replies format valid invalid JSON json plan end END done OK ok
    """.split()
)
SIGNS: tuple[str, ...] = (
    "\\boxed{", "},{\"", "\":[{\"", "\":{\"", "\":\"", "\",\"", "\":[", "\":", "\"}]", "\"]}", "\"}", "\"]", "{\"", "[\"", "[{\"", ",\"",
    "}]", "]}", "{", "}", "[", "]", "(", ")", "\"", "'", "'s", ".", ",", "?", "!", ":", ";", "-", "+", "=", "/", "#", "*", "%", "$", "&", "_", "<", ">", "|",
)  # fmt: skip

#: Pieces of the memory bank's replies, each one token, so that a reply costs few of them.
REPLY_SIGNS: tuple[str, ...] = (
    '{"facts":["', '{"facts":[]}', '{"operations":[{"text":"', '","op":"', '","id":"', '"},{"text":"', '"}]}',
)  # fmt: skip
#: What dialogues and the memory bank need besides: words, ids of memories, years.
DIALOGUE_WORDS: tuple[str, ...] = (
    *REPLY_SIGNS,
    *"Memories Lunch See Work boring hear learning left".split(),
    *(f"m{number}" for number in range(1, 100)),
    *(str(year) for year in range(2020, 2030)),
)

#: One token: a sign (longest first), an id, a year, a number of up to three digits, or a word.
TOKEN = re.compile(
    "|".join(
        re.escape(sign)
        for sign in sorted((*SIGNS, *REPLY_SIGNS), key=len, reverse=True)
        if len(sign) > 1 and sign != "'s"
    )
    + r"|'s\b|\bm[1-9][0-9]?\b|\b202[0-9]\b|[0-9]{1,3}|[A-Za-z]+(?:_[a-z]+)*|[^\sA-Za-z0-9]"
)


def words_of(text: str) -> list[str]:
    """Split text into the tokenizer's words, without the tokenizer."""
    return TOKEN.findall(text)


def all_words() -> list[str]:
    """Every word and sign of the vocabulary, each once, in a fixed order."""
    patterns = [
        *FILLERS,
        *DISTRACTORS,
        *QUESTIONS.values(),
        *(p for shapes in FACTS.values() for p in shapes),
    ]
    patterns += [q[0].upper() + q[1:] for q in QUESTIONS.values()]
    spoken = [w for p in patterns for w in words_of(re.sub(r"\{[nmv]\}", " ", p))]
    listed = [*NAMES, *(v for values in VALUES.values() for v in values), *SIGNS, *spoken, *RESERVED]
    # Later words come last: the tokens of a policy that was trained without them stay what they are.
    return list(dict.fromkeys([*listed, *(str(number) for number in range(1000)), *DIALOGUE_WORDS]))
