"""Filling prompt templates with untrusted text."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

from memfactory.core.errors import BadInput

_PLACEHOLDER = re.compile(r"\{(\w+)\}")


def fill(template: str, **values: str) -> str:
    """Replace each `{name}` of the template by its value, in one pass.

    Braces inside a value, and `{names}` that no value is given for, stay as they are, so text that
    happens to contain `{memory}` cannot inject anything.
    """
    return _PLACEHOLDER.sub(lambda match: values.get(match[1], match[0]), template)


def require(prompts: Mapping[str, str], key: str, placeholders: Iterable[str] = ()) -> str:
    """Return prompt `key`; raise `BadInput` when it is missing or lacks one of its placeholders."""
    template = prompts.get(key)
    if not isinstance(template, str):
        raise BadInput(f"prompts.{key} is missing; choose a prompts group that has it (prompts=...)")
    for name in placeholders:
        if "{" + name + "}" not in template:
            raise BadInput(f"prompts.{key} does not contain {{{name}}}")
    return template
