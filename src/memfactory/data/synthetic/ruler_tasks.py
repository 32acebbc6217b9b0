"""RULER's tasks (arXiv 2404.06654) as texts that can be made of any length: what is hidden, and in what.

Checked against the benchmark's public repository (NVIDIA/RULER, `scripts/synthetic.yaml` and
`scripts/data/synthetic`): its numbers of needles, hops and repetitions, depths, and wording of needles.
The two tasks over other people's questions are in `ruler_qa`.
"""

from __future__ import annotations

import itertools
import math
import random
import string
import uuid
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from memfactory.data.synthetic.haystack import Draft, placed
from memfactory.data.synthetic.ruler_words import names, parts_for

NOISE = "The grass is green. The sky is blue. The sun is yellow. Here we go. There and back again."
HOPS = 4
COMMON, COMMON_TIMES, OTHER_TIMES = 10, 30, 3
#: Below this length the published lists repeat words less often, so that there is room for others.
SHORT, SHORT_COMMON_TIMES, SHORT_OTHER_TIMES = 4096, 6, 1
#: Needles stand in essays at different ones of these depths, in percent.
DEPTHS = tuple(round(100 * i / 39) for i in range(40))
CODED_LETTERS, CODED_ASKED, DOTS = 6, 3, "..."
_NEEDLE = "One of the special magic {kind} for {key} is: {value}."
#: No needle and no word of a numbered list is shorter, in tokens; bounds how many names can be needed.
_SHORTEST_NEEDLE, _SHORTEST_WORD = 9, 3


@dataclass(frozen=True)
class Niah:
    """A needle in a haystack: `keys` needles with `values` each, and the question asks for `asked` keys."""

    haystack: Literal["noise", "essay", "needles"]
    key: Literal["words", "uuids"] = "words"
    value: Literal["numbers", "uuids"] = "numbers"
    keys: int = 1
    values: int = 1
    asked: int = 1


NIAH = {
    "niah_single_1": Niah("noise"),
    "niah_single_2": Niah("essay"),
    "niah_single_3": Niah("essay", value="uuids"),
    "niah_multikey_1": Niah("essay", keys=4),
    "niah_multikey_2": Niah("needles"),
    "niah_multikey_3": Niah("needles", key="uuids", value="uuids"),
    "niah_multivalue": Niah("essay", values=4),
    "niah_multiquery": Niah("essay", keys=4, asked=4),
}
TASKS = (*NIAH, "vt", "cwe", "fwe")


def needs_essay(task: str) -> bool:
    """Whether the task hides its needles in a text of the user's."""
    return task in NIAH and NIAH[task].haystack == "essay"


def draft(task: str, rng: random.Random, length: int, essay: Sequence[str] = ()) -> Draft:
    """One task of `TASKS`; `length`, in tokens, only says how many different words may be needed.

    `essay` are the sentences that it hides needles in, if `needs_essay`.
    """
    if task in NIAH:
        return _niah(NIAH[task], rng, length, essay)
    return {"vt": _vt, "cwe": _cwe, "fwe": _fwe}[task](rng, length)


def _niah(spec: Niah, rng: random.Random, length: int, essay: Sequence[str]) -> Draft:
    keys = _values(spec.key, rng, length)
    values = _values(spec.value, rng, length)
    chosen = [next(keys) for _ in range(spec.keys)]
    needles = [(key, next(values)) for key in chosen for _ in range(spec.values)]
    lines = [_NEEDLE.format(kind=spec.value, key=key, value=value) for key, value in needles]
    essay_depths = [depth / 100 for depth in rng.sample(DEPTHS, len(lines))]
    depths = essay_depths if spec.haystack == "essay" else [rng.random() for _ in lines]
    asked = rng.sample(chosen, spec.asked)
    order = sorted(
        (i for i, (key, _) in enumerate(needles) if key in asked), key=lambda i: asked.index(needles[i][0])
    )
    start = rng.randrange(len(essay)) if spec.haystack == "essay" else 0
    others: list[str] = []

    def units(n: int) -> Sequence[str]:
        if spec.haystack == "noise":
            return [NOISE] * n
        if spec.haystack == "essay":
            return [essay[(start + i) % len(essay)] for i in range(n)]
        while len(others) < n:
            others.append(_NEEDLE.format(kind=spec.value, key=next(keys), value=next(values)))
        return others[:n]

    def padding(n: int) -> Iterator[str]:
        if spec.haystack != "essay":
            return itertools.cycle(NOISE.split())
        return (word for i in itertools.count(start + n) for word in essay[i % len(essay)].split())

    between = " " if spec.haystack == "essay" else "\n"
    return Draft(
        question=_ask(spec, asked),
        answers=tuple(needles[i][1] for i in order),
        evidence="\n".join(lines[i] for i in order),
        text=lambda n: between.join(placed(units(n), lines, depths)),
        padding=padding,
    )


def _ask(spec: Niah, asked: Sequence[str]) -> str:
    keys = f"{', '.join(asked[:-1])}, and {asked[-1]}" if len(asked) > 1 else asked[0]
    several = len(asked) * spec.values > 1
    what = f"are all the special magic {spec.value}" if several else f"is the special magic {spec.value[:-1]}"
    return f"What {what} for {keys} mentioned in the provided text?"


def _vt(rng: random.Random, length: int) -> Draft:
    """One chain of assignments, in order, in noise: which variables have the value in the end?"""
    variables: list[str] = []
    while len(variables) < HOPS + 1:
        name = "".join(rng.choices(string.ascii_uppercase, k=5))
        variables += [name] if name not in variables else []
    value = str(rng.randint(10_000, 99_999))
    sources = [value, *(f"VAR {name}" for name in variables)]
    lines = [f"VAR {name} = {source}" for name, source in zip(variables, sources, strict=False)]
    depths = sorted(rng.random() for _ in lines)
    return Draft(
        # The published prompt says how many there are, in the beginning of the answer that it gives the model.
        question=f"Find all {HOPS + 1} variables that are assigned the value {value} in the text above.",
        answers=tuple(variables),
        evidence="\n".join(lines),
        text=lambda n: "\n".join(placed([NOISE] * n, lines, depths)),
        padding=lambda n: itertools.cycle(NOISE.split()),
    )


def _cwe(rng: random.Random, length: int) -> Draft:
    """A numbered list of words: ten of them stand in it 30 times each, the others three times (6 and 1 if short)."""
    often, seldom = (SHORT_COMMON_TIMES, SHORT_OTHER_TIMES) if length < SHORT else (COMMON_TIMES, OTHER_TIMES)
    words = names(rng, parts_for(length // (_SHORTEST_WORD * seldom) + COMMON))
    common = [next(words) for _ in range(COMMON)]
    others: list[str] = []
    seed = rng.getrandbits(64)

    def text(n: int) -> str:
        while len(others) * seldom < n:
            others.append(next(words))
        listed = common * often + [word for word in others for _ in range(seldom)][:n]
        random.Random(f"{seed}|{n}").shuffle(listed)
        return " ".join(f"{number}. {word}" for number, word in enumerate(listed, start=1))

    question = f"What are the {COMMON} most common words in the numbered list of words?"
    return Draft(question, tuple(common), None, text, lambda n: iter(()))


def _fwe(rng: random.Random, length: int) -> Draft:
    """Coded words with frequencies by Zipf's law (exponent 2); the most frequent one is dots, and no answer."""
    codes: list[str] = [DOTS]
    while len(codes) < max(length // 50, CODED_ASKED + 1):
        code = "".join(rng.choices(string.ascii_lowercase, k=CODED_LETTERS))
        codes += [code] if code not in codes[1:] else []
    seed = rng.getrandbits(64)

    def text(n: int) -> str:
        # At least as many as tell the asked words apart: ranks 4 and 5 get 0.0380 and 0.0243 of all words.
        share = (n + _FEWEST_CODES) * 6 / math.pi**2
        words = [code for rank, code in enumerate(codes, start=1) for _ in range(int(share / rank**2))]
        random.Random(f"{seed}|{n}").shuffle(words)
        return " ".join(words)

    question = (
        f"What are the {CODED_ASKED} most frequently appeared coded words in the coded text? "
        f"Please ignore the dots '{DOTS}'."
    )
    return Draft(question, tuple(codes[1 : CODED_ASKED + 1]), None, text, lambda n: itertools.repeat(DOTS))


_FEWEST_CODES = 100


def _values(kind: str, rng: random.Random, length: int) -> Iterator[str]:
    """Distinct keys or values of a kind, as many as are asked for."""
    if kind == "words":
        yield from names(rng, parts_for(2 * (length // _SHORTEST_NEEDLE), least=2))
    seen: set[str] = set()
    while True:
        value = (
            str(rng.randint(1_000_000, 9_999_999))
            if kind == "numbers"
            else str(uuid.UUID(int=rng.getrandbits(128), version=4))
        )
        if value not in seen:
            seen.add(value)
            yield value
