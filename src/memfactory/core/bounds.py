"""What a field of a recipe may hold beyond its type, declared with the field: `lr: Annotated[float, Bounds(0, 1)]`.

The recipe layer checks the declarations (`recipe/validate.py`); texts that are one of a few words are `Literal`s.
Numbers are finite everywhere. A test walks over all registered components and finds numbers without bounds.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Annotated

#: The most of anything that is counted: what the libraries below us hold in 32 bits.
MOST = 2**31 - 1


@dataclass(frozen=True)
class Bounds:
    """Limits of a number: `low` and `high` are allowed themselves, `above` and `below` are not; None is open."""

    low: float | None = None
    high: float | None = None
    above: float | None = None
    below: float | None = None

    def problem(self, value: float) -> str | None:
        """What is wrong with the number, such as `must be at least 1`; None if nothing is."""
        if self.low is not None and value < self.low:
            return f"must be at least {self.low:.12g}"
        if self.high is not None and value > self.high:
            return f"must be at most {self.high:.12g}"
        if self.above is not None and value <= self.above:
            return f"must be more than {self.above:.12g}"
        if self.below is not None and value >= self.below:
            return f"must be less than {self.below:.12g}"
        return None


@dataclass(frozen=True)
class Form:
    """The form of a text: `pattern` is a regular expression for all of it, `says` tells a user what is meant."""

    pattern: str
    says: str

    def problem(self, value: str) -> str | None:
        """What is wrong with the text; None if nothing is."""
        return None if re.fullmatch(self.pattern, value) else f"expected {self.says}"


AtLeastOne = Annotated[int, Bounds(1, MOST)]
Count = Annotated[int, Bounds(0, MOST)]
Seed = Annotated[int, Bounds(0, 2**63 - 1)]
Share = Annotated[float, Bounds(0, 1)]
NotNegative = Annotated[float, Bounds(0, 1e12)]
Positive = Annotated[float, Bounds(above=0, high=1e12)]
#: A time limit. A week is as good as none, and no clock below us overflows.
Seconds = Annotated[float, Bounds(above=0, high=604_800)]
Device = Annotated[str, Form(r"auto|cpu|cuda(:\d{1,3})?", "auto, cpu, cuda or cuda:N")]
TorchDevice = Annotated[
    str, Form(r"cpu|cuda(:\d{1,3})?", "cpu, cuda or cuda:N (null: a GPU if there is one)")
]
#: Parts of a generated example, or the width of a vector: a number that a mistyped zero must not make endless.
Some = Annotated[int, Bounds(1, 100_000)]
SomeOrNone = Annotated[int, Bounds(0, 100_000)]
#: Length of a generated text in tokens.
TextTokens = Annotated[int, Bounds(1, 50_000_000)]
Retries = Annotated[int, Bounds(0, 1000)]
#: Share of a GPU's memory.
PartOfGpu = Annotated[float, Bounds(above=0, high=1)]
