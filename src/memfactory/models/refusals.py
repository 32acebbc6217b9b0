"""What a server means by an error: whose fault it is that there is no reply, and the words that say so.

A prompt that a server will not take (too long, filtered) concerns one task; a wrong key, a wrong name of a model or a
parameter it does not know concern every request. Servers say which by status, by codes and by sentences of their own;
where none of them is known the caller finds out (`OpenAIChat`: by asking something harmless in the same way).
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

#: `prompt`: this prompt alone. `request`: every request like it. `later`: another try may help. `unclear`: either.
Blame = Literal["prompt", "request", "later", "unclear"]

_LATER = frozenset({408, 409, 425, 429})
_REQUEST = frozenset({401, 402, 404, 405, 407, 410, 426})
_LONGEST = 300
_CODE_KEYS = ("code", "type", "status", "reason", "innererror", "metadata", "details", "error")

_FILTERED_CODES = re.compile(
    r"content_?filter|content_?policy|responsible_?ai|data_?inspection|moderation|sensitive|prohibited_?content|"
    r"safety|invalid_prompt|content_?violation|policy_?violation|^1301$|^1026$|^1027$",
    re.IGNORECASE,
)
_FILTERED = re.compile(
    r"content[ _-]?(filter|polic|management|moderation|violation|safety|inspection|security)|filtered due to|"
    r"responsible ?ai|data_?inspection|inappropriate (content|language|material)|moderation|\bflagged\b|"
    r"usage polic|acceptable use|safety (system|filter|reason|polic|check|setting|guard)|prohibited[ _]content|"
    r"sensitive (content|word|information|material)|content exists risk|high[ -]risk|harmful|offensive|"
    r"\bunsafe\b|\bnsfw\b|\btoxic|trust (&|and) safety|"
    r"(prompt|input|request|response|output|message|content)s? blocked|"
    r"(prompt|input|request|response|output|message|content)s? (was|were|is|has been|have been|are) "
    r"(blocked|rejected by|filtered)|blocklist|policy violation|violat\w+ .{0,60}(polic|guideline|terms)|jailbreak|"
    r"guardrail|recitation|敏感|违规|违禁|不安全|内容安全|安全审[核查]|不当内容|不良信息|センシティブ|不適切|"
    r"inhaltsfilter|filtre de contenu|filtro de contenido",
    re.IGNORECASE,
)
_ACCOUNT = re.compile(
    r"\b(account|organi[sz]ation|api[ _-]?key|subscription|billing|suspended|deactivated)\b", re.IGNORECASE
)
_LONG_CODES = re.compile(
    r"context_?(length|window|size)|exceed_?context|string_above_max_length|request_?too_?large|"
    r"(prompt|input|text)_?too_?(long|large)|payload_?too_?large|tokens?_limit|too_many_tokens|^1261$",
    re.IGNORECASE,
)
_LONG_PARTS = (
    r"(prompt|inputs?|requests?|messages?|query|conversation|payload|sequence|text|chat|history|document)s?"
)
_LONG = re.compile(
    rf"maximum (context|sequence|input|prompt|model)\b|context[ _](length|window|size|limit)|max_model_len|"
    rf"maximum model length|(maximum|max|allowed|permitted) (number of )?((input|prompt|context) )?(tokens|length)|"
    rf"\b{_LONG_PARTS}\b.{{0,80}}\btoo (long|large|big|many)\b|"
    rf"\btoo (long|large|big) .{{0,20}}\b{_LONG_PARTS}\b|too many (input |prompt |context )?tokens|"
    rf"(reduce|shorten|truncate|trim|decrease) (the |your |its )?(length|size|number|{_LONG_PARTS}|context)|"
    rf"(token|length|size|context|character)s? .{{0,80}}(exceed|(greater|longer|larger|more) than|\bover\b)|"
    rf"(exceed\w*|longer than|larger than|surpass\w*|\bover\b) .{{0,80}}(token|length|context (size|window)|character)|"
    rf"\b{_LONG_PARTS}\b.{{0,60}}\bexceed|exceeds the limit|"
    rf"(tokens?`?|length|`?inputs`?) .{{0,60}}(must be|must have|should be|cannot be|can't be) "
    rf"(<|≤|less|fewer|at most|within|\[|smaller|below|no (more|longer))|"
    r"(tokens?|上下文|长度|输入|提示|prompt|文本|字数).{0,40}(过长|超长|太长|超出|超过|过大|上限)|"
    r"(超出|超过|超過).{0,30}(长度|長さ|限制|上限|最大|トークン|tokens?)|長すぎ|너무 (깁|길|긴)|"
    r"토큰.{0,30}초과|초과.{0,30}토큰|"
    r"zu (lang|groß)|trop long|demasiad[oa] larg|muito long|troppo lung|слишком (длин|больш)|превы",
    re.IGNORECASE,
)
#: A limit of the reply's own length, which every request of the module breaks.
_REPLY_LIMIT = re.compile(r"^\W*(parameter\W+)?max_?(completion_|new_|output_)?tokens\b", re.IGNORECASE)
_PROMPT_TOO = re.compile(r"context|prompt|input|message", re.IGNORECASE)
_PER_TIME = re.compile(
    r"per (min|hour|day|second)|\b(rpm|tpm|tpd|rpd)\b|rate[ _-]?limit|quota", re.IGNORECASE
)
_TOO_LARGE_ALONE = re.compile(
    r"request too large|reduce (the|your) (message|prompt|input|length)|must be reduced", re.IGNORECASE
)
_NO_QUOTA = re.compile(
    r"insufficient_?(quota|balance|credit)|billing|quota_exceeded|exceeded your current quota", re.IGNORECASE
)
_SETTING = re.compile(
    r"(unsupported|unknown|unrecogni[sz]ed|invalid|unexpected|missing|deprecated)[ _]"
    r"(parameter|argument|field|value|key|model|request argument)|"
    r"(not|n't|no longer) (supported|permitted|allowed|recogni[sz]ed|available)|extra (inputs|fields)|extra_forbidden|"
    r"does not (support|exist)|model[ _]not[ _]found|deployment|unknown name|cannot (both|find field)",
    re.IGNORECASE,
)


@dataclass(frozen=True)
class ErrorWords:
    """What a reply says went wrong: one line, and the codes and the name of a parameter that come with it."""

    line: str
    codes: tuple[str, ...] = ()
    parameter: str | None = None


def error_words(value: Any, otherwise: str = "") -> ErrorWords:
    """The words of an error reply, of whatever shape `value` is; `otherwise` is its text, for what is not JSON."""
    lines = list(dict.fromkeys(filter(None, map(one_line, _messages(value)))))
    codes = dict.fromkeys(filter(None, (one_line(str(code))[:80] for code in _codes(value))))
    parameter = next((one_line(found) for found in _parameters(value)), None)
    return ErrorWords(
        ": ".join(lines[:2])[:_LONGEST] or one_line(_without_tags(otherwise)), tuple(codes), parameter
    )


def blame(status: int, words: ErrorWords) -> Blame:
    """Whose fault an error is, as far as its status and its words tell."""
    codes, line = words.codes, words.line
    if any(_NO_QUOTA.search(code) for code in codes) or (status == 429 and _NO_QUOTA.search(line)):
        return "request"
    if status in _LATER:
        return "prompt" if _TOO_LARGE_ALONE.search(line) else "later"
    if status in _REQUEST:
        return "request"
    filtered = any(_FILTERED_CODES.search(code) for code in codes) or _FILTERED.search(line)
    if filtered and status < 500 and not (status == 403 and _ACCOUNT.search(line)):
        return "prompt"
    if status == 413 or is_too_long(words):
        return "prompt"
    if status >= 500:
        return "later"
    if status not in (400, 422, 451):
        return "request"
    return "unclear"


def is_too_long(words: ErrorWords) -> bool:
    """Whether a prompt was too long for the server."""
    if any(_LONG_CODES.search(code) for code in words.codes):
        return True
    line = words.line
    if _REPLY_LIMIT.search(line) and not _PROMPT_TOO.search(line):
        return False
    return bool(_LONG.search(line)) and not _PER_TIME.search(line)


def names_setting(words: ErrorWords) -> bool:
    """Whether the words are about a parameter of the request and not about its text."""
    return bool(_SETTING.search(words.line) or any(_SETTING.search(code) for code in words.codes))


def one_line(text: str) -> str:
    """A text on one line, without what could steer a terminal."""
    clean = "".join(
        " " if unicodedata.category(c) in ("Cc", "Cf", "Cs", "Zl", "Zp") else c for c in text[:4000]
    )
    return " ".join(clean.split())[:_LONGEST]


def _messages(value: Any) -> Iterator[str]:
    """The sentences in an error, outermost first."""
    for depth, one in _walk(value):
        if isinstance(one, Mapping):
            for key in ("message", "msg", "detail", "error_description", "errorMessage", "raw", "error"):
                if isinstance(one.get(key), str):
                    yield one[key]
        elif isinstance(one, str) and depth == 0:
            yield one


def _codes(value: Any) -> Iterator[Any]:
    for _, one in _walk(value):
        if isinstance(one, Mapping):
            for key in ("code", "type", "status", "reason"):
                if isinstance(one.get(key), str) or type(one.get(key)) is int:
                    yield one[key]


def _parameters(value: Any) -> Iterator[str]:
    """Names of parameters: OpenAI's `param`, and the last part of pydantic's `loc`."""
    for _, one in _walk(value):
        if isinstance(one, Mapping):
            place = one.get("loc")
            found = one.get("param") or (place[-1] if isinstance(place, list) and place else None)
            if isinstance(found, str):
                yield found


def _walk(value: Any, depth: int = 0) -> Iterator[tuple[int, Any]]:
    """Values inside an error reply, breadth bounded: replies are not trusted."""
    yield depth, value
    if depth >= 4:
        return
    if isinstance(value, Mapping):
        inside = [value[key] for key in (*_CODE_KEYS, "detail", "errors", "message") if key in value]
    else:
        inside = value[:4] if isinstance(value, list) else []
    for one in inside:
        if isinstance(one, Mapping | list):
            yield from _walk(one, depth + 1)


def _without_tags(text: str) -> str:
    """The text of a page, for servers and proxies that answer in HTML."""
    return re.sub(
        r"<(script|style)\b.*?</\1>|<[^>]{0,500}>", " ", text[:20000], flags=re.DOTALL | re.IGNORECASE
    )
