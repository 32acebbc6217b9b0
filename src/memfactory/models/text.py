"""Between text and token ids: chat rendering, decoding, counting and cutting at token boundaries.

Everything here takes whatever text or ids it is given: model replies and documents are untrusted.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from memfactory.core.errors import BadInput
from memfactory.core.replies import opens_thought
from memfactory.core.types import Message
from memfactory.models.control_tokens import ControlTokens

if TYPE_CHECKING:
    from tokenizers import Tokenizer
    from transformers import PreTrainedTokenizerFast


_PROBE = "probe \u241e of the chat template"
#: Rendered prompts that a codec remembers, the oldest forgotten first.
_PROMPTS_KEPT = 32


class Codec(Protocol):
    """A ruler and translator for text; `TextCodec` for real models, `ByteCodec` where there is none."""

    eos_ids: frozenset[int]
    """Token ids that end a completion."""

    def render(self, messages: Sequence[Message], **template: Any) -> tuple[int, ...]:
        """Prompt ids of a conversation, up to where the assistant's reply begins."""
        ...

    def encode(self, text: str) -> tuple[int, ...]:
        """Token ids of a text, without special tokens around or in it: what looks like one is spelt out."""
        ...

    def encode_reply(self, text: str) -> tuple[int, ...]:
        """`encode`, but tokens that mark a thought are what they are, as a model samples them."""
        ...

    def decode(self, ids: Iterable[int]) -> str:
        """Text of token ids without end-of-sequence and other special tokens; never raises."""
        ...

    def decode_reply(self, ids: Iterable[int]) -> str:
        """`decode`, with those special tokens that tell a thought from an answer; never raises."""
        ...

    def opens_thought(self, messages: Sequence[Message], **template: Any) -> bool:
        """Whether the rendered prompt ends inside a thought, so that the reply begins in it."""
        ...

    def count(self, text: str) -> int:
        """Number of tokens of a text."""
        ...

    def split(self, text: str, block_tokens: int) -> list[str]:
        """Blocks of at most `block_tokens` tokens of the text; joined they are exactly the text."""
        ...

    def truncate(self, text: str, max_tokens: int) -> str:
        """The longest prefix, cut at a token boundary, of at most `max_tokens` tokens."""
        ...


class TextCodec:
    """A Hugging Face fast tokenizer with exact cutting.

    `eos_ids` are the ids that end a completion: the tokenizer's own, and those of the model folder's
    generation settings (chat models often end turns with another token than documents).
    """

    def __init__(self, tokenizer: PreTrainedTokenizerFast, eos_ids: Iterable[int] = ()) -> None:
        if not getattr(tokenizer, "is_fast", False):
            raise BadInput(f"{tokenizer.name_or_path}: the tokenizer has no fast version (tokenizer.json)")
        self.tokenizer = tokenizer
        own = [] if tokenizer.eos_token_id is None else [tokenizer.eos_token_id]
        self.eos_ids: frozenset[int] = frozenset([*own, *eos_ids])
        self.pad_id: int = (
            tokenizer.pad_token_id if tokenizer.pad_token_id is not None else min(self.eos_ids, default=0)
        )
        self._size = len(tokenizer)
        self._frames: dict[str, tuple[str, str] | None] = {}
        self._opens: dict[tuple[tuple[str, ...], str], bool] = {}
        self._rendered: dict[tuple[tuple[Message, ...], str], tuple[int, ...]] = {}

    @classmethod
    def from_folder(cls, folder: Path, *, trust_remote_code: bool = False) -> TextCodec:
        """The codec of a model folder. Raises `BadInput` if its tokenizer cannot be loaded."""
        from memfactory.models.load import load_tokenizer

        return cls(load_tokenizer(folder, trust_remote_code=trust_remote_code), _eos_of_folder(folder))

    def render(self, messages: Sequence[Message], **template: Any) -> tuple[int, ...]:
        """Prompt ids by the chat template, ready for the reply; `template` goes to the template.

        Raises `BadInput` if the tokenizer has no chat template or the template refuses the messages.
        """
        # The copies of a group all begin with the same prompt, one after the other.
        key = (tuple(messages), repr(template))
        ids = self._rendered.get(key)
        if ids is None:
            ids = self._render(messages, template)
            self._rendered[key] = ids
            if len(self._rendered) > _PROMPTS_KEPT:
                del self._rendered[next(iter(self._rendered))]
        return ids

    def _render(self, messages: Sequence[Message], template: dict[str, Any]) -> tuple[int, ...]:
        if any(self._control.among(message.content) for message in messages):
            return self._render_plain(messages, template)
        if len(messages) == 1 and messages[0].role == "user" and not messages[0].content.startswith("<"):
            frame = self._frame(template)
            if frame is not None:
                return self._encode(frame[0] + _encodable(messages[0].content) + frame[1])
        return self._encode(self._templated(messages, template))

    def _render_plain(self, messages: Sequence[Message], template: dict[str, Any]) -> tuple[int, ...]:
        """Where contents hold what looks like control tokens: words stand for these while the template is filled.

        A template that leaves out the thoughts of earlier replies gets to see their marks, if none comes through.
        """
        control = self._control
        word = control.word_not_in(str(self.tokenizer.chat_template), *(m.content for m in messages))

        def filled(thoughts: bool) -> str:
            hidden = [
                Message(m.role, control.hide(m.content, word, thoughts=thoughts or m.role != "assistant"))
                for m in messages
            ]
            return self._templated(hidden, template)

        text = filled(thoughts=True)
        if any(m.role == "assistant" and control.count_marks(m.content) for m in messages):
            seen = filled(thoughts=False)
            text = seen if control.count_marks(seen) <= control.count_marks(text) else text
        return tuple(control.plain.encode(control.named(text, word), add_special_tokens=False).ids)

    def _frame(self, template: dict[str, Any]) -> tuple[str, str] | None:
        """What the chat template puts around a single user message; None if it does more than that.

        Most calls are one user message, and running the template costs as much as tokenising its result.
        """
        key = repr(template)
        if key not in self._frames:
            before, found, after = self._templated([Message("user", _PROBE)], template).partition(_PROBE)
            odd = f" \n{_PROBE} {{{{ \n"
            same = found and self._templated([Message("user", odd)], template) == before + odd + after
            self._frames[key] = (before, after) if same else None
        return self._frames[key]

    def _templated(self, messages: Sequence[Message], template: dict[str, Any]) -> str:
        chat = [{"role": m.role, "content": _encodable(m.content)} for m in messages]
        try:
            text: Any = self.tokenizer.apply_chat_template(
                chat, add_generation_prompt=True, tokenize=False, **template
            )
        except Exception as error:
            if not self.tokenizer.chat_template:
                raise BadInput(f"{self.tokenizer.name_or_path}: the tokenizer has no chat template") from None
            raise BadInput(
                f"{self.tokenizer.name_or_path}: chat template failed: {_first_line(error)}"
            ) from error
        return str(text)

    @cached_property
    def _control(self) -> ControlTokens:
        return ControlTokens(self._engine(), str(self.tokenizer.chat_template or ""))

    def encode(self, text: str) -> tuple[int, ...]:
        """Token ids of a text, without special tokens around or in it."""
        text = _encodable(text)
        if self._control.among(text):
            return tuple(self._control.plain.encode(text, add_special_tokens=False).ids)
        return self._encode(text)

    def encode_reply(self, text: str) -> tuple[int, ...]:
        """`encode`, with the tokens that mark thoughts."""
        text = _encodable(text)
        if not self._control.among(text):
            return self._encode(text)
        named = self._control.with_marks(text)
        return tuple(self._control.plain.encode(named, add_special_tokens=False).ids)

    def decode(self, ids: Iterable[int]) -> str:
        """Text without special tokens; ids the tokenizer does not know are left out.

        A model's vocabulary may be larger than its tokenizer's, so unknown ids do get sampled.
        """
        known = [int(i) for i in ids if 0 <= i < self._size and i not in self.eos_ids]
        return self._engine().decode(known, skip_special_tokens=True)

    def decode_reply(self, ids: Iterable[int]) -> str:
        """`decode`, with the special tokens that tell a thought from an answer in their places."""
        sampled = list(ids)
        markers = self._markers
        if not markers or markers.keys().isdisjoint(sampled):
            return self.decode(sampled)
        pieces, begin = [], 0
        for end, token in enumerate(sampled):
            if token in markers:
                pieces += [self.decode(sampled[begin:end]), markers[token]]
                begin = end + 1
        return "".join([*pieces, self.decode(sampled[begin:])])

    @cached_property
    def _markers(self) -> dict[int, str]:
        """Special tokens that mark a thought: those which `decode` would drop."""
        special = {
            number for number, token in self._engine().get_added_tokens_decoder().items() if token.special
        }
        return {i: name for name, i in self._control.marks.items() if i in special - self.eos_ids}

    def opens_thought(self, messages: Sequence[Message], **template: Any) -> bool:
        """Whether what the chat template puts behind the last message ends inside a thought."""
        roles = tuple(message.role for message in messages)
        key = (roles, repr(template))
        if key not in self._opens:
            chat = [Message(role, _PROBE) for role in roles]
            self._opens[key] = opens_thought(self._templated(chat, template).rpartition(_PROBE)[2])
        return self._opens[key]

    def count(self, text: str) -> int:
        """Number of tokens of a text."""
        return len(self.encode(text))

    def split(self, text: str, block_tokens: int) -> list[str]:
        """Blocks of at most `block_tokens` tokens, as tokenised within the whole text; `[]` for no text.

        Tokenises once. A character is never cut, so a block is longer than asked where one character
        alone has more tokens. White space between tokens goes to the block before it.
        """
        if block_tokens < 1:
            raise ValueError("block_tokens must be at least 1")
        if not text:
            return []
        cuts = [0]
        offsets = self._offsets(text)
        first = 0
        while first + block_tokens < len(offsets):
            last = _whole_characters(offsets, first, first + block_tokens)
            if last >= len(offsets):
                break
            cuts.append(offsets[last][0])
            first = last
        return [text[a:b] for a, b in zip(cuts, [*cuts[1:], len(text)], strict=True)]

    def truncate(self, text: str, max_tokens: int) -> str:
        """The longest prefix, cut at a token boundary, of at most `max_tokens` tokens."""
        if max_tokens < 1:
            return ""
        offsets = self._offsets(text)
        if len(offsets) <= max_tokens:
            return text
        end = max_tokens
        while end > 0:
            while end > 0 and offsets[end][0] < offsets[end - 1][1]:
                end -= 1  # inside a character
            prefix = text[: offsets[end][0]] if end > 0 else ""
            if self.count(prefix) <= max_tokens:  # words at the cut may be tokenised otherwise alone
                return prefix
            end -= 1
        return ""

    def _offsets(self, text: str) -> list[tuple[int, int]]:
        """Character spans of the tokens; several tokens of one character share its span."""
        text = _encodable(text)
        engine = self._control.plain if self._control.among(text) else self._engine()
        return engine.encode(text, add_special_tokens=False).offsets

    def _encode(self, text: str) -> tuple[int, ...]:
        # Half of what `tokenizer(text)` takes for a short prompt, and no warning about long texts.
        return tuple(self._engine().encode_batch_fast([text], add_special_tokens=False)[0].ids)

    def _engine(self) -> Tokenizer:
        """The tokenizer without its wrapper, and without padding or cutting that others have left on."""
        engine = self.tokenizer.backend_tokenizer
        if engine.padding is not None or engine.truncation is not None:
            engine.no_padding()
            engine.no_truncation()
        return engine


class ByteCodec:
    """Text as UTF-8 bytes: for scripts in tests, and a rough ruler for servers whose tokenizer we lack.

    `bytes_per_token` only scales counting and cutting (about 4 for English and most tokenizers).
    """

    EOS = 256

    def __init__(self, bytes_per_token: int = 1) -> None:
        if bytes_per_token < 1:
            raise ValueError("bytes_per_token must be at least 1")
        self.eos_ids: frozenset[int] = frozenset([self.EOS])
        self._scale = bytes_per_token

    def render(self, messages: Sequence[Message], **template: Any) -> tuple[int, ...]:
        """The bytes of `role: content` lines; template options mean nothing here."""
        return self.encode("".join(f"{m.role}: {m.content}\n" for m in messages))

    def opens_thought(self, messages: Sequence[Message], **template: Any) -> bool:
        """Never."""
        return False

    def encode(self, text: str) -> tuple[int, ...]:
        """The bytes of the text."""
        return tuple(_encodable(text).encode())

    def encode_reply(self, text: str) -> tuple[int, ...]:
        """The same: no token here is special."""
        return self.encode(text)

    def decode(self, ids: Iterable[int]) -> str:
        """The text of the bytes; what is no byte is left out, broken characters become U+FFFD."""
        return bytes(i for i in ids if 0 <= i < 256).decode(errors="replace")

    def decode_reply(self, ids: Iterable[int]) -> str:
        """The same: no token here is special."""
        return self.decode(ids)

    def count(self, text: str) -> int:
        """Number of bytes, divided by the scale and rounded up."""
        return -(-len(_encodable(text).encode()) // self._scale)

    def split(self, text: str, block_tokens: int) -> list[str]:
        """Blocks of at most `block_tokens` tokens; a character that is longer stands alone."""
        if block_tokens < 1:
            raise ValueError("block_tokens must be at least 1")
        blocks: list[str] = []
        start, size, limit = 0, 0, block_tokens * self._scale
        for position, character in enumerate(_encodable(text)):
            width = len(character.encode())
            if size and size + width > limit:
                blocks.append(text[start:position])
                start, size = position, 0
            size += width
        return [*blocks, text[start:]] if text else []

    def truncate(self, text: str, max_tokens: int) -> str:
        """The longest prefix of at most `max_tokens` tokens."""
        if max_tokens < 1 or not text:
            return ""
        kept = _encodable(text).encode()[: max_tokens * self._scale].decode(errors="ignore")
        return text[: len(kept)]


def _encodable(text: str) -> str:
    """The text with lone surrogates (broken JSON escapes) replaced one for one, so offsets stay true."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return "".join("\ufffd" if "\ud800" <= c <= "\udfff" else c for c in text)
    return text


def _whole_characters(offsets: Sequence[tuple[int, int]], first: int, last: int) -> int:
    """The cut nearest to `last` that is not inside a character: before it if possible, else after."""

    def inside(cut: int) -> bool:
        return cut < len(offsets) and offsets[cut][0] < offsets[cut - 1][1]

    cut = last
    while cut > first and inside(cut):
        cut -= 1
    if cut > first:
        return cut
    cut = last
    while inside(cut):
        cut += 1
    return cut


def _eos_of_folder(folder: Path) -> set[int]:
    """End-of-sequence ids named by the generation settings, else by the model's config."""
    for name in ("generation_config.json", "config.json"):
        try:
            found = json.loads((folder / name).read_text(encoding="utf-8")).get("eos_token_id")
        except (OSError, ValueError, AttributeError):
            continue
        if found is not None:
            return {int(i) for i in (found if isinstance(found, list) else [found])}
    return set()


def _first_line(error: BaseException) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0][:300]
