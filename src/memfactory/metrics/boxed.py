r"""The answer that a reply puts into `\boxed{...}`, found by matching braces.

Replies are untrusted: megabytes of repetition, nested or missing braces, odd unicode. The scan is linear in
what it looks at and never raises.
"""

from __future__ import annotations

import re

from memfactory.core.replies import answer_in

#: Characters at a reply's end in which MemAgent (arXiv 2507.02259) looks for the answer.
DEFAULT_TAIL = 300

_OPENING = re.compile(r"\\boxed\s*\{")
_BRACE = re.compile(r"[{}]")


def last_boxed(text: str, tail: int | None = DEFAULT_TAIL) -> str | None:
    r"""What stands in the last `\boxed{...}` of the text's last `tail` characters, or None.

    - The answer is stripped of spaces. The opening `\boxed{` itself must begin within the tail; `tail=None`
      searches the whole text.
    - Of a reply with a thought only the answer is looked at (`core.replies`); an unfinished thought gives None.
    - Spaces between `\boxed` and its brace are allowed; a `\boxed` without a brace is passed over.
    - Braces nest: `\boxed{\frac{1}{2}}` gives `\frac{1}{2}`. Of `\boxed{\boxed{x}}` the inner one is the
      last: `x`.
    - A last `\boxed{` that is never closed (a reply cut at its limit) gives None, even if an earlier one
      was closed.
    - An empty box gives the empty string, which is not None.
    """
    text = answer_in(text)
    end = text if tail is None else text[max(0, len(text) - tail) :]
    start = -1
    for opening in _OPENING.finditer(end):
        start = opening.end()
    if start < 0:
        return None
    depth = 1
    for brace in _BRACE.finditer(end, start):
        depth += 1 if brace.group() == "{" else -1
        if depth == 0:
            return end[start : brace.start()].strip()
    return None
