"""Only the chat template makes control tokens, with tokenizers of all kinds; other texts keep their ids."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from memfactory.core.types import Message
from memfactory.models.text import TextCodec

QWEN = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n"
    "{% if m['role'] == 'assistant' and '</think>' in m['content'] %}{{ m['content'].split('</think>')[-1] | trim }}"
    "{% else %}{{ m['content'] }}{% endif %}<|im_end|>\n{% endfor %}{# <tool_call> #}"
    "<|im_start|>assistant\n<think>\n"
    "{% if enable_thinking is defined and not enable_thinking %}\n</think>\n\n{% endif %}"
)
LLAMA = "<s>{% for m in messages %}[INST] {{ m['content'] | trim }} [/INST]{% endfor %}"
OWN = Path(__file__).read_text(encoding="utf-8").encode("ascii", errors="ignore").decode()


def added(content: str, *, special: bool, **flags: bool) -> Any:
    from tokenizers import AddedToken

    return AddedToken(content, special=special, **{"normalized": False, **flags})


def qwen_like() -> Any:
    """Byte-level BPE; marks of thoughts and of tools are added tokens, but not special ones."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    made = Tokenizer(models.BPE())
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    made.train_from_iterator(
        [OWN], trainers.BpeTrainer(vocab_size=500, initial_alphabet=alphabet, show_progress=False)
    )
    made.add_special_tokens([added(name, special=True) for name in ("<|im_start|>", "<|im_end|>")])
    plain = ("<think>", "</think>", "<tool_call>", "<table>", "   ")
    made.add_tokens([added(name, special=False) for name in plain])
    return made, QWEN


def unigram(scheme: str = "first") -> Any:
    """As sentencepiece makes them: control tokens are pieces of the model itself."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers

    pieces = [
        ("<unk>", 0.0),
        ("<s>", 0.0),
        ("</s>", 0.0),
        ("[INST]", 0.0),
        ("[/INST]", 0.0),
        ("\u2581", -3.0),
    ]
    pieces += [(chr(code), -5.0) for code in range(33, 127)] + [("\u2581the", -2.0), ("live", -2.0)]
    made = Tokenizer(models.Unigram(pieces, 0, False))
    made.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme=scheme)
    made.decoder = decoders.Metaspace(prepend_scheme=scheme)
    made.add_special_tokens([added(name, special=True) for name, _ in pieces[:5]])
    return made, LLAMA


def llama_like() -> Any:
    """BPE with a normalizer that puts a space before each piece between control tokens."""
    from tokenizers import Tokenizer, decoders, models, normalizers, trainers

    made = Tokenizer(models.BPE(unk_token="<unk>"))
    made.normalizer = normalizers.Sequence(
        [normalizers.Prepend("\u2581"), normalizers.Replace(" ", "\u2581")]
    )
    made.decoder = decoders.Replace("\u2581", " ")
    names = ["<unk>", "<s>", "</s>", "[INST]", "[/INST]"]
    trainer = trainers.BpeTrainer(vocab_size=400, special_tokens=names, show_progress=False)
    made.train_from_iterator([OWN], trainer)
    made.add_special_tokens([added("[INST]", special=True, rstrip=True), added("[/INST]", special=True)])
    return made, LLAMA


def folding() -> Any:
    """A normalizer that other spellings of a control token become it by."""
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, trainers

    made = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    made.normalizer = normalizers.Sequence([normalizers.NFKC(), normalizers.Lowercase()])
    made.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    trainer = trainers.WordPieceTrainer(vocab_size=400, special_tokens=["[UNK]"], show_progress=False)
    made.train_from_iterator([OWN], trainer)
    names = ("<s>", "[inst]", "[/inst]")
    made.add_special_tokens([added(name, special=True, normalized=True) for name in names])
    return made, LLAMA.replace("INST", "inst")


MAKERS = {
    "qwen": qwen_like,
    "unigram": unigram,
    "always": lambda: unigram("always"),
    "llama": llama_like,
    "folding": folding,
}


@cache
def codec(name: str) -> TextCodec:
    from transformers import PreTrainedTokenizerFast

    from memfactory.assets import data

    if name == "tiny":
        return TextCodec.from_folder(data("tiny_policy"))
    made, template = MAKERS[name]()
    fast = PreTrainedTokenizerFast(
        tokenizer_object=made, unk_token="<unk>" if made.token_to_id("<unk>") is not None else None
    )
    fast.chat_template = template
    return TextCodec(fast)


every = pytest.mark.parametrize("name", [*MAKERS, "tiny"])
ORDINARY = st.one_of(
    st.text(max_size=30).filter(lambda text: "[" not in text and "<" not in text),
    st.lists(
        st.sampled_from(
            ["the", " live", "\n", "  ", "   ", "h\u00e9llo", "<table>", "x < y", "[", "(a)", ">"]
        )
    ).map("".join),
)
CONTROL = [
    "<|im_end|>",
    "<|im_start|>",
    "<think>",
    "</think>",
    "<tool_call>",
    "<s>",
    "</s>",
    "[INST]",
    "[/INST]",
    "<|end|>",
    "<|user|>",
]
WILD = st.lists(
    st.sampled_from([*CONTROL, "the ", " live", "\n", "<", "|im_end|>", "\uff1cs\uff1e", "[inst]"])
).map("".join)


def by_tokenizer(codec: TextCodec, messages: list[Message]) -> tuple[int, ...]:
    chat = [{"role": m.role, "content": m.content.encode("utf-8", "replace").decode()} for m in messages]
    text = codec.tokenizer.apply_chat_template(chat, add_generation_prompt=True, tokenize=False)
    return tuple(codec.tokenizer.backend_tokenizer.encode(text, add_special_tokens=False).ids)


def controls(codec: TextCodec, ids: tuple[int, ...]) -> list[int]:
    """Ids of control tokens; a word that is unknown is none of them."""
    known = codec._control.ids
    return [i for i in ids if i in known.values() and i not in (known.get("<unk>"), known.get("[UNK]"))]


@every
@settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))
@given(text=ORDINARY)
def test_ordinary_texts_have_the_tokenizers_ids(name: str, text: str) -> None:
    ruler = codec(name)
    for messages in (
        [Message("user", text)],
        [Message("user", text), Message("assistant", text), Message("user", "q")],
    ):
        expected = by_tokenizer(ruler, messages)
        assert ruler.render(messages) == expected
        assert ruler._render_plain(messages, {}) == expected
    assert (
        ruler.encode(text)
        == ruler.encode_reply(text)
        == ruler._encode(text.encode("utf-8", "replace").decode())
    )


@every
@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(text=WILD)
def test_control_tokens_come_from_the_template_alone(name: str, text: str) -> None:
    ruler = codec(name)
    for roles in (["user"], ["system", "user"], ["user", "assistant", "user"]):
        asked = [Message(role, text) for role in roles]  # type: ignore[arg-type]
        expected = controls(ruler, by_tokenizer(ruler, [Message(m.role, "the") for m in asked]))
        assert controls(ruler, ruler.render(asked)) == expected
    assert controls(ruler, ruler.encode(text)) == []
    blocks = ruler.split(text, 3)
    assert "".join(blocks) == text
    assert ruler.count(text) == len(ruler.encode(text))
    assert text.startswith(ruler.truncate(text, 4)) and ruler.count(ruler.truncate(text, 4)) <= 4


@pytest.mark.parametrize("name", ["qwen", "tiny"])
def test_what_looks_like_a_control_token_is_spelt_out(name: str) -> None:
    ruler = codec(name)
    text = "The <|im_end|> and <|end|> end."
    if name == "qwen":
        assert ruler.tokenizer.decode(ruler.encode(text)) == text
        assert (
            ruler.tokenizer.decode(ruler.render([Message("user", text)]))
            == f"<|im_start|>user\n{text}<|im_end|>\n<|im_start|>assistant\n<think>\n"
        )
    else:
        shown = ruler.tokenizer.convert_ids_to_tokens(
            ruler.render([Message("user", "a<|end|><|user|>b<|assistant|>")])
        )
        assert [token for token in shown if token.startswith("<|")] == [
            "<|user|>",
            "<|end|>",
            "<|assistant|>",
        ]
        assert shown[0] == "<|user|>" and shown[-2:] == ["<|end|>", "<|assistant|>"]


def test_replies_to_learn_from_have_the_tokens_of_thoughts_and_no_others() -> None:
    ruler = codec("qwen")
    ids = ruler.encode_reply("<think>a</think>b<|im_end|><tool_call>")
    assert controls(ruler, ids) == [ruler._control.ids["<think>"], ruler._control.ids["</think>"]]
    assert ruler.decode_reply(ids) == "<think>a</think>b<|im_end|><tool_call>"


def test_a_template_still_leaves_out_earlier_thoughts() -> None:
    ruler = codec("qwen")
    said = [
        Message("user", "a"),
        Message("assistant", "<think>b</think>\nthe<|im_end|>"),
        Message("user", "c"),
    ]
    assert "b" not in ruler.tokenizer.decode(ruler.render(said)).replace("tab", "")
    assert ruler.tokenizer.decode(ruler.render(said)).count("<think>") == 1


def test_prompts_that_end_inside_a_thought() -> None:
    ruler = codec("qwen")
    asked = [Message("user", "</think> the")]
    assert ruler.opens_thought(asked)
    assert not ruler.opens_thought(asked, enable_thinking=False)
    assert not codec("tiny").opens_thought(asked)


def test_special_tokens_that_mark_a_thought_are_not_lost() -> None:
    from tokenizers import Tokenizer, models
    from transformers import PreTrainedTokenizerFast

    names = ["[THINK]", "[/THINK]", "<eos>", "<pad>"]
    made = Tokenizer(models.WordLevel({"Rome": 0, "Oslo": 1}, unk_token="Rome"))
    made.add_special_tokens([added(name, special=True) for name in names])
    ruler = TextCodec(PreTrainedTokenizerFast(tokenizer_object=made, eos_token="<eos>", pad_token="<pad>"))
    thought, end, eos, pad = (made.token_to_id(name) for name in names)
    assert ruler.decode([thought, 0, end, 1, pad, eos]) == "Rome Oslo"
    assert ruler.decode_reply([thought, 0, end, 1, pad, eos]) == "[THINK]Rome[/THINK]Oslo"
