"""What of a recipe may be shown and kept: values of the environment as `${oc.env:NAME}`, addresses without passwords.

A recipe is printed, kept with every run, sent to trackers and written into results. What came from the environment
stays there: a run that goes on, or another that composes the kept recipe, reads it again.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from memfactory.core.address import masked
from memfactory.recipe.render import Interpolation
from memfactory.recipe.values import join

_VARIABLE = re.compile(r"oc\.env:\s*([A-Za-z_]\w*)")
_ADDRESS = re.compile(r"\s*[a-z][a-z0-9+.-]*://\S+\s*", re.IGNORECASE)
_SECRET = re.compile(
    r"(?:.*[_-])?(?:api[_-]?key|access[_-]?key|private[_-]?key|password|passwd|secret|authorization|cookie|credentials?)"
    r"|(?:(?:access|auth|api|hf|bearer|id|refresh|secret)[_-])?token",
    re.IGNORECASE,
)
#: What servers without keys are given in place of one.
_NO_SECRET = ("", "EMPTY", "none")
#: A value of the environment this short is no secret, and may stand anywhere by chance.
_SHORTEST = 8


@dataclass(frozen=True)
class Environment:
    """What a recipe took from the environment: the texts of the keys that did, and the values by variable."""

    texts: Mapping[str, str] = field(default_factory=dict)
    values: Mapping[str, str] = field(default_factory=dict, repr=False)

    def shown(self, values: Any, key: str = "") -> Any:
        """Plain values of the recipe with nothing in them that is not for others."""
        if key in self.texts:
            return Interpolation(self.texts[key])
        if isinstance(values, Mapping):
            return {name: self.shown(inner, join(key, name)) for name, inner in values.items()}
        if isinstance(values, list):
            return [self.shown(inner, join(key, place)) for place, inner in enumerate(values)]
        return self._text(values) if isinstance(values, str) else values

    def hidden(self, message: str, key: str) -> str:
        """An error about a key without the values of the environment; a value may be cut in it."""
        if key in self.texts:
            before, got, _ = message.partition(", got ")
            message = f"{before}{got and f', got the value of {self.texts[key]}'}"
        for name, value in self.values.items():
            message = message.replace(value, f"${{oc.env:{name}}}") if len(value) >= _SHORTEST else message
        return masked(message)

    def _text(self, text: str) -> str:
        for name, value in self.values.items():
            if len(value) >= _SHORTEST and value in text:
                return Interpolation(text.replace("${", r"\${").replace(value, f"${{oc.env:{name}}}"))
        return masked(text) if _ADDRESS.fullmatch(text) else text


def from_environment(raw: Any, resolved: Any) -> Environment:
    """What in composed values came from the environment: `raw` with interpolations, `resolved` without."""
    texts = {key: text for key, text in _leaves(raw) if isinstance(text, str) and "${" in text}
    names = [name for text in texts.values() for name in _VARIABLE.findall(text)]
    values = {name: os.environ[name] for name in dict.fromkeys(names) if os.environ.get(name)}
    found = dict(_leaves(resolved))
    kept = {
        key: text
        for key, text in texts.items()
        if "oc.env:" in text
        or any(value in found[key] for value in values.values() if isinstance(found.get(key), str))
    }
    return Environment(kept, values)


def plain_secrets(shown: Mapping[str, Any]) -> Iterator[str]:
    """The keys that are called like a secret and hold one, of what `Environment.shown` gave."""
    for key, value in _leaves(shown):
        name = key.rpartition(".")[2]
        if (
            isinstance(value, str)
            and not isinstance(value, Interpolation)
            and _SECRET.fullmatch(name)
            and value.strip() not in _NO_SECRET
        ):
            yield key


def _leaves(value: Any, key: str = "") -> Iterator[tuple[str, Any]]:
    if isinstance(value, Mapping | list):
        pairs = value.items() if isinstance(value, Mapping) else enumerate(value)
        for name, inner in pairs:
            yield from _leaves(inner, join(key, name))
    else:
        yield key, value
