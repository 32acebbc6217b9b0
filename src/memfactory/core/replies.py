"""A reply parted into what a model thought and what it answers: one place for modules, judges and metrics.

Models think in many spellings: tags such as `<think>` in any case and with attributes, `[THINK]` (Mistral),
`◁think▷` (Kimi), `<|START_THINKING|>` (Cohere), channels (gpt-oss, Gemma 4), `<unused94>`
(MedGemma), or words alone (Granite). Some chat templates open the thought in the prompt, so that a reply holds only
its end. Nothing here raises, and time is linear.
"""

from __future__ import annotations

import re
from collections.abc import Collection
from dataclasses import dataclass

UNFINISHED = "the thought was not finished, so there is no answer"
NOTHING_AFTER = "nothing was said after the thought"
NOTHING = "nothing was said"

_WORDS = "think|thinking|thoughts?|reasoning|reason|reflection|scratchpad|monologue|analysis|deliberation|ponder|cot"
_NAME = rf"(?:\w{{{{1,20}}}}[:|_-])?(?P<{{0}}>{_WORDS})(?:[:_-]\w{{{{1,20}}}})?"
_OPEN = (
    rf"<\s*{_NAME.format('name')}(?:\s[^<>]{{0,300}})?/?\s*>|\[THINK(?:ING)?\]|◁think(?:ing)?▷|<\|START_THINKING\|>"
    r"|<\|begin_of_(?:thought|thinking|reasoning)\|>|<\|(?:think|thinking|reasoning|think_start)\|>|<\|open\|>\s*think\s*<\|sep\|>"
    r"|<\|channel>\s*(?:thought|analysis)?|<unused94>\s*(?:thought\b)?"
)
_CLOSE = (
    rf"<\s*[/\\]\s*{_NAME.format('closed')}\s*>|\[/THINK(?:ING)?\]|◁/think(?:ing)?▷|<\|END_THINKING\|>"
    r"|<\|end_of_(?:thought|thinking|reasoning)\|>|<\|/(?:think|thinking|reasoning)\|>|<\|think_end\|>|<\|close\|>\s*think\s*<\|sep\|>|<channel\|>|<unused95>"
)
_MARK = re.compile(rf"(?P<open>{_OPEN})|(?P<close>{_CLOSE})", re.IGNORECASE)
_HALF_MARK = re.compile(rf"<\s*{_NAME.format('name')}(?:\s[^<>]*)?\Z|\[THINK(?:ING)?\Z", re.IGNORECASE)
_QUOTES = "\"'`\u201c\u201d"

_HARMONY = re.compile(r"\s*<\|(?:channel|start)\|>")
_CHANNEL = re.compile(
    r"<\|channel\|>\s*(?P<name>\w*)(?P<about>[^<]*(?:<\|constrain\|>[^<]*)?)<\|message\|>"
    r"(?P<said>.*?)(?=<\|(?:end|return|call|start|channel)\|>|\Z)",
    re.DOTALL,
)
#: What is left of gpt-oss's channels where a server drops their tokens.
_STRIPPED_HARMONY = re.compile(r"\s*analysis(?=[A-Z])")
_STRIPPED_FINAL = "assistantfinal"
_IN_WORDS = re.compile(r"\s*Here(?:'s|\u2019s| is) my thought process:")
_IN_WORDS_ENDS = re.compile(r"Here(?:'s|\u2019s| is) my response:")
#: What some models put around the answer behind a thought.
_WRAPPERS = (
    ("<|START_RESPONSE|>", "<|END_RESPONSE|>"),
    ("<|begin_of_solution|>", "<|end_of_solution|>"),
    ("<|open|>response<|sep|>", "<|close|>response<|sep|>"),
    ("<response>", "</response>"),
)
#: Tokens of channels, where a vocabulary has them.
_CHANNEL_TOKENS = frozenset({"<|channel|>", "<|message|>", "<|start|>", "<|end|>", "<|constrain|>"})


@dataclass(frozen=True)
class Reply:
    """What a reply says. `answer` is None where it says nothing, and then `problem` says why, in one line."""

    answer: str | None
    thought: str = ""
    problem: str = ""


def part(text: str, *, opened: bool = False, cut: bool | None = None, reasoning: str = "") -> Reply:
    """The answer of a reply, and the thought before it. A reply without a thought is its own answer, as it stands.

    `opened`: the prompt ended inside a thought. `cut`: whether the reply was cut at its limit (None: not known).
    `reasoning` is the thought, where a server tells it apart from `text`.

    Thoughts nest. An end without a beginning makes all before it a thought. A thought that is not finished has no
    answer, whatever stands before it. A mark between quotes is a word like any other, and so is one inside a line that
    nothing closes, if the model ended the reply itself.
    """
    reply = _by_family(text, opened, cut)
    thought = "\n".join(piece for piece in (reasoning.strip(), reply.thought) if piece)
    if reply.answer is not None and not reply.answer.strip():
        if reasoning.strip() and cut:
            return Reply(None, thought, UNFINISHED)
        if thought:
            return Reply(None, thought, NOTHING_AFTER)
        if cut:
            return Reply(None, "", NOTHING)
    return Reply(reply.answer, thought, reply.problem)


def answer_in(text: str) -> str:
    """The answer of a reply; empty where there is none."""
    return part(text).answer or ""


def opens_thought(text: str) -> bool:
    """Whether what ends a prompt leaves a thought open."""
    return _of_marks(text, opened=False, cut=None).answer is None


def is_mark(token: str) -> bool:
    """Whether a token of a vocabulary begins or ends a thought."""
    return _MARK.fullmatch(token) is not None


def marks_among(tokens: Collection[str]) -> frozenset[str]:
    """The tokens of a vocabulary by which thoughts are told, those of channels included if it has channels."""
    channels = _CHANNEL_TOKENS if "<|channel|>" in tokens else frozenset()
    return frozenset(token for token in tokens if token in channels or is_mark(token))


def _by_family(text: str, opened: bool, cut: bool | None) -> Reply:
    if _HARMONY.match(text):
        return _of_channels(text)
    if found := _STRIPPED_HARMONY.match(text):
        thought, final, answer = text[found.end() :].rpartition(_STRIPPED_FINAL)
        return Reply(answer, thought.strip()) if final else _unfinished(text)
    if found := _IN_WORDS.match(text):
        ends = _IN_WORDS_ENDS.search(text, found.end())
        if ends is None:
            return _unfinished(text)
        return Reply(text[ends.end() :].strip(), text[found.end() : ends.start()].strip())
    return _of_marks(text, opened, cut)


def _of_channels(text: str) -> Reply:
    said = [(found["name"], found["about"], found["said"]) for found in _CHANNEL.finditer(text)]
    answers = [words for name, about, words in said if name == "final" and "to=" not in about]
    thought = "\n".join(words.strip() for name, _, words in said if name != "final")
    return Reply(answers[-1], thought) if answers else Reply(None, thought or text.strip(), UNFINISHED)


def _of_marks(text: str, opened: bool, cut: bool | None) -> Reply:
    depth, position, just_opened = int(opened), 0, opened
    thought: list[str] = []
    answer: list[str] = []
    for mark in _MARK.finditer(text):
        if _is_word(text, mark, cut is False and not depth):
            continue
        piece = text[position : mark.start()]
        (thought if depth else answer).append(piece)
        just_opened = just_opened and not piece.strip()
        if mark["open"] is None:
            if not depth:  # begun in the prompt, or where nobody saw it
                thought += answer
                answer.clear()
            depth, just_opened = max(0, depth - 1), False
        elif not mark["open"].rstrip("> ").endswith("/"):
            # Models say again what the prompt or they themselves have just opened.
            depth, just_opened = depth if just_opened else depth + 1, True
        position = mark.end()
    rest = text[position:]
    if not depth and (_HALF_MARK.search(rest) or _begins_mark(text)):
        depth = 1
    if depth:
        return Reply(None, "".join([*answer, *thought, rest]).strip(), UNFINISHED)
    if not position:
        return Reply(text)
    return Reply(_unwrapped("".join([*answer, rest]).strip()), "".join(thought).strip())


def _is_word(text: str, mark: re.Match[str], whole: bool) -> bool:
    """Whether a mark is only spoken of. `whole`: outside of thoughts, in a reply that the model ended itself."""
    start, end = mark.span()
    before, after = text[max(0, start - 1) : start], text[end : end + 1]
    if before and before in _QUOTES and after and after in _QUOTES:
        return True
    if mark["open"] is None:
        return False
    name = mark["name"] or ""
    if (before.isalnum() and name.istitle()) or (before and before in _QUOTES):
        return True  # a type of some programming language; the first words of a quotation
    if not whole or after in ("", "\n"):
        return False
    line = text[max(text.rfind("\n", 0, start) + 1, start - 200) : start].rstrip()
    return line.strip() != "" and line[-1] not in ".!?:>" and _MARK.search(text, end) is None


def _begins_mark(text: str) -> bool:
    said = text.strip().lower()
    return len(said) > 1 and ("<thinking>".startswith(said) or "[think]".startswith(said))


def _unwrapped(answer: str) -> str:
    for begin, end in _WRAPPERS:
        if answer.startswith(begin):
            return answer[len(begin) :].removesuffix(end).strip()
    return answer


def _unfinished(text: str) -> Reply:
    return Reply(None, text.strip(), UNFINISHED)
