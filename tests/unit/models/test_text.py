from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from memfactory.core.errors import BadInput
from memfactory.core.types import Message
from memfactory.models.text import ByteCodec, Codec, TextCodec

#: Everything Python calls text, lone surrogates included; and words, so that merges happen.
WILD = st.text(alphabet=st.characters(exclude_categories=()), max_size=200)
PIECES = ["the memory", " of", "\n\n", "  ", "héllo", "数据", "e\u0301", "\ud800", "1234567", "<|end|>"]
EMOJI = ["\U0001f600\U0001f600", "\U0001f469\u200d\U0001f469\u200d\U0001f467"]
WORDS = st.lists(st.sampled_from([*PIECES, *EMOJI])).map("".join)
TEXT = st.one_of(WILD, WORDS)


def byte_level() -> TextCodec:
    """A byte-level BPE tokenizer, as of most models: characters may have several tokens."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=400,
        special_tokens=["<|end|>", "<|pad|>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    own = Path(__file__).read_text(encoding="utf-8").encode("ascii", errors="ignore").decode()
    tokenizer.train_from_iterator([own], trainer)
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<|end|>", pad_token="<|pad|>")
    fast.chat_template = (
        "{% for m in messages %}{{ m['role'] }}: {{ m['content'] }}<|end|>{% endfor %}"
        "{% if add_generation_prompt %}assistant{{ mark }}: {% endif %}"
    )
    return TextCodec(fast)


def shipped() -> TextCodec:
    from memfactory.models.source import resolve_model

    return TextCodec.from_folder(resolve_model("tiny"))


CODECS = {"bpe": byte_level(), "words": shipped(), "bytes": ByteCodec(), "rough": ByteCodec(4)}


@pytest.fixture(params=list(CODECS))
def codec(request: pytest.FixtureRequest) -> Codec:
    return CODECS[request.param]


everywhere = pytest.mark.parametrize("codec", list(CODECS.values()), ids=list(CODECS))


@everywhere
@settings(max_examples=150, deadline=None)
@given(text=TEXT, size=st.integers(1, 12))
def test_blocks_joined_are_the_text(codec: Codec, text: str, size: int) -> None:
    blocks = codec.split(text, size)
    assert "".join(blocks) == text
    assert all(blocks)


@everywhere
@settings(max_examples=150, deadline=None)
@given(text=TEXT, size=st.integers(0, 12))
def test_a_truncated_text_is_a_prefix_within_the_limit(codec: Codec, text: str, size: int) -> None:
    prefix = codec.truncate(text, size)
    assert text.startswith(prefix)
    assert codec.count(prefix) <= size
    if codec.count(text) <= size and size > 0:
        assert prefix == text


@settings(max_examples=150, deadline=None)
@given(text=TEXT, size=st.integers(4, 12))
def test_blocks_hold_the_number_of_tokens_asked_for(text: str, size: int) -> None:
    """From 4 on, which any single character fits: as many tokens as asked, less a character at the cut."""
    codec = CODECS["bpe"]
    blocks = codec.split(text, size)
    assert len(blocks) <= max(1, -(-codec.count(text) // (size - 3)))
    assert len(blocks) >= codec.count(text) / size


@everywhere
@settings(max_examples=100, deadline=None)
@given(ids=st.lists(st.integers(-(2**40), 2**40) | st.integers(0, 500), max_size=60))
def test_any_ids_decode(codec: Codec, ids: list[int]) -> None:
    codec.decode(ids).encode()


@settings(max_examples=100, deadline=None)
@given(text=TEXT)
def test_decoding_undoes_encoding(text: str) -> None:
    expected = text.encode(errors="surrogatepass").decode(errors="replace") if text.isascii() else None
    for name in ("bpe", "bytes"):
        codec = CODECS[name]
        told = codec.decode(codec.encode(text))
        assert len(told) == len(text)
        assert expected is None or told == expected


def test_a_character_of_many_tokens_is_never_cut() -> None:
    codec = CODECS["bpe"]
    assert codec.count("😀") > 2
    assert codec.split("😀😀", 1) == ["😀", "😀"]
    assert codec.split("😀😀", codec.count("😀") + 1) == ["😀", "😀"]
    assert codec.truncate("😀😀", codec.count("😀") + 1) == "😀"
    assert codec.truncate("😀", 1) == ""


def test_a_character_longer_than_a_block_does_not_swallow_its_neighbours() -> None:
    codec = CODECS["bpe"]
    assert codec.split("a😀b", 1) == ["a", "😀", "b"]


def test_sizes_without_sense() -> None:
    for codec in CODECS.values():
        assert codec.split("", 5) == []
        assert codec.truncate("text", 0) == ""
        assert codec.truncate("", 5) == ""
        assert codec.count("") == 0
        with pytest.raises(ValueError, match="block_tokens"):
            codec.split("text", 0)
    with pytest.raises(ValueError, match="bytes_per_token"):
        ByteCodec(0)


def test_a_long_text_is_cut_without_a_warning(caplog: pytest.LogCaptureFixture) -> None:
    text = "The memory of the méthod. " * 20_000
    codec = CODECS["bpe"]
    codec.tokenizer.model_max_length = 100  # type: ignore[attr-defined]
    blocks = codec.split(text, 5000)
    assert "".join(blocks) == text
    assert [codec.count(block) for block in blocks[:3]] == [5000] * 3
    assert not caplog.records


def test_render(caplog: pytest.LogCaptureFixture) -> None:
    codec = CODECS["bpe"]
    chat = [Message("system", "a"), Message("user", "b \ud800")]
    assert codec.tokenizer.decode(codec.render(chat)) == "system: a<|end|>user: b \ufffd<|end|>assistant: "  # type: ignore
    assert codec.tokenizer.decode(codec.render(chat, mark="!")).endswith("assistant!: ")  # type: ignore
    assert ByteCodec().render(chat[:1], mark="!") == tuple(b"system: a\n")


def test_rendering_again_gives_the_same_and_remembers_little() -> None:
    codec = byte_level()
    chats = [[Message("user", f"question {n}")] for n in range(100)]
    assert [codec.render(chat) for chat in chats] == [codec.render(chat) for chat in reversed(chats)][::-1]
    assert codec.render(chats[0], mark="!") != codec.render(chats[0])
    assert len(codec._rendered) <= 32


def test_ids_are_those_of_the_tokenizer_whatever_its_last_user_asked_for() -> None:
    codec = byte_level()
    chat = [{"role": "user", "content": "Keep the memory."}]
    expected = codec.tokenizer.apply_chat_template(chat, add_generation_prompt=True, return_dict=False)
    codec.tokenizer(["a", "b c d"], padding="max_length", truncation=True, max_length=3)
    assert codec.render([Message("user", "Keep the memory.")]) == tuple(expected)
    codec.tokenizer(["a", "b c d"], padding="max_length", truncation=True, max_length=3)
    assert codec.count("Keep the memory of the method.") > 3


def test_render_tells_what_is_wrong() -> None:
    codec = byte_level()
    codec.tokenizer.chat_template = "{{ raise_exception('roles must alternate') }}"
    with pytest.raises(BadInput, match="chat template failed: roles must alternate"):
        codec.render([Message("user", "x")])
    codec.tokenizer.chat_template = None
    with pytest.raises(BadInput, match="no chat template"):
        codec.render([Message("user", "x")])


def test_end_of_sequence_ids_come_from_tokenizer_and_generation_settings(tmp_path: Path) -> None:
    codec = byte_level()
    codec.tokenizer.save_pretrained(tmp_path)
    own = codec.tokenizer.eos_token_id
    assert TextCodec.from_folder(tmp_path).eos_ids == {own}
    (tmp_path / "config.json").write_text('{"model_type": "qwen3", "eos_token_id": 77}')
    assert TextCodec.from_folder(tmp_path).eos_ids == {own, 77}
    (tmp_path / "generation_config.json").write_text('{"eos_token_id": [80, 81]}')
    assert TextCodec.from_folder(tmp_path).eos_ids == {own, 80, 81}
    (tmp_path / "generation_config.json").write_text("[broken")
    assert TextCodec.from_folder(tmp_path).eos_ids == {own, 77}


def test_a_folder_without_tokenizer(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="cannot load the tokenizer"):
        TextCodec.from_folder(tmp_path)
