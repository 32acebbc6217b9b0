"""What a chat template lets one choose about thinking, and what holds where nobody has chosen."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from memfactory.core.errors import BadInput
from memfactory.core.types import Message
from memfactory.models.text import TextCodec

#: Names under which chat templates offer it.
_SWITCHES = ("enable_thinking", "thinking", "think", "enable_reasoning", "reasoning", "thinking_mode")
_DEGREES = ("reasoning_effort", "thinking_budget", "thinking_effort")


def thinking_remark(codec: TextCodec, options: Mapping[str, Any]) -> str | None:
    """One line for a recipe that does not say whether to think, where the chat template asks; None for all others."""
    asked = offered(codec)
    if not asked or any(name in options for name in asked):
        return None
    name = asked[0]
    change = f"+model.chat_template_kwargs.{name}={'low' if name in _DEGREES else 'false'}"
    return (
        f"the chat template offers {name} and the recipe does not say: left to the template, "
        f"{_default(codec, name, options)} ({change} chooses)"
    )


def offered(codec: TextCodec) -> list[str]:
    """The options about thinking that the chat template asks for."""
    from jinja2 import Environment, TemplateError, meta, nodes

    template = codec.tokenizer.chat_template
    if not isinstance(template, str) or not any(name in template for name in _SWITCHES + _DEGREES):
        return []
    try:
        parsed = Environment(extensions=["jinja2.ext.loopcontrols"]).parse(
            template.replace("{% generation %}", "").replace("{% endgeneration %}", "")
        )
    except TemplateError:  # one that only transformers understands; it may still be rendered
        return []
    assert isinstance(parsed, nodes.Template)
    free = meta.find_undeclared_variables(parsed)
    return [name for name in _SWITCHES + _DEGREES if name in free]


def _default(codec: TextCodec, name: str, options: Mapping[str, Any]) -> str:
    """What the template does when the option is not given, by what it renders."""
    own = "whose own default holds"
    if name in _DEGREES:
        return own
    chat = [Message("user", "?")]
    try:
        left_out, on, off = (
            codec.render(chat, **options, **chosen) for chosen in ({}, {name: True}, {name: False})
        )
    except BadInput:
        return own
    if on == off or left_out not in (on, off):
        return own
    return "which lets the model think first" if left_out == on else "which lets the model answer at once"
