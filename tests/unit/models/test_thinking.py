"""What is said of a chat template that offers a choice about thinking."""

from __future__ import annotations

from typing import Any

import pytest

from memfactory.assets import data
from memfactory.models.text import TextCodec
from memfactory.models.thinking import thinking_remark

USER = "{% for m in messages %}<|user|>{{ m['content'] }}<|end|>{% endfor %}<|assistant|>"
OFF_BY_CHOICE = USER + "{% if enable_thinking is defined and enable_thinking is false %}x{% endif %}"
ON_BY_CHOICE = USER + "{% if enable_thinking %}x{% endif %}"
OWN_VARIABLE = USER + "{% set thinking = true %}{% if thinking %}x{% endif %}"
DEGREE = USER + "{{ reasoning_effort | default('medium') }}{% generation %}{% endgeneration %}"
SILENT = "and the recipe does not say: left to the template,"


@pytest.mark.parametrize(
    ("template", "options", "said"),
    [
        (OFF_BY_CHOICE, {}, f"offers enable_thinking {SILENT} which lets the model think first"),
        (ON_BY_CHOICE, {}, f"offers enable_thinking {SILENT} which lets the model answer at once"),
        (DEGREE, {}, f"offers reasoning_effort {SILENT} whose own default holds"),
        (OFF_BY_CHOICE, {"enable_thinking": False}, None),
        (OFF_BY_CHOICE, {"enable_thinking": True}, None),
        (OWN_VARIABLE, {}, None),
        (USER, {}, None),
        ("{% broken thinking", {}, None),
        (None, {}, None),
    ],
)
def test_the_remark(template: str | None, options: dict[str, Any], said: str | None) -> None:
    codec = TextCodec.from_folder(data("tiny_policy"))
    codec.tokenizer.chat_template = template
    remark = thinking_remark(codec, options)
    assert remark is None if said is None else said in str(remark) and "\n" not in str(remark)
