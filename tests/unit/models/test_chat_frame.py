"""The short cut for single user messages gives exactly what the chat template gives."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from memfactory.assets import data
from memfactory.core.types import Message
from memfactory.models.text import TextCodec

TEMPLATES = {
    "plain": "{% for m in messages %}<|user|>{{ m['content'] }}{% endfor %}<|assistant|>",
    "trims": "{% for m in messages %}<|user|>{{ m['content'] | trim }}{% endfor %}<|assistant|>",
    "says it twice": "{{ messages[0]['content'] }}<|user|>{{ messages[0]['content'] }}<|assistant|>",
    "thinks": "<|user|>{{ messages[0]['content'] }}{% if thinking %}Think.{% endif %}<|assistant|>",
}


@pytest.fixture(scope="module")
def codec() -> TextCodec:
    return TextCodec.from_folder(data("tiny_policy"))


def by_template(codec: TextCodec, text: str, **template: Any) -> tuple[int, ...]:
    shown = codec.tokenizer.apply_chat_template(
        [{"role": "user", "content": text}], add_generation_prompt=True, tokenize=False, **template
    )
    return tuple(codec.tokenizer.backend_tokenizer.encode(str(shown), add_special_tokens=False).ids)


@pytest.mark.parametrize("name", TEMPLATES)
@settings(max_examples=15, suppress_health_check=list(HealthCheck))
@given(text=st.text(max_size=40) | st.sampled_from(["<b>", " a ", "\n", "{{ x }}", "Anna lives in Paris."]))
def test_prompts_are_those_of_the_template(name: str, text: str) -> None:
    fresh = TextCodec.from_folder(data("tiny_policy"))
    fresh.tokenizer.chat_template = TEMPLATES[name]
    clean = text.encode("utf-8", errors="replace").decode()
    for template in ({}, {"thinking": True}):
        assert fresh.render([Message("user", clean)], **template) == by_template(fresh, clean, **template)


def test_the_tiny_policys_own_template(codec: TextCodec) -> None:
    text = "Where does Anna live? Memory: nothing yet. Answer."
    assert codec.render([Message("user", text)]) == by_template(codec, text)
