"""Which memories a reply says it uses."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from memfactory.modules.distilling_answerer import parse_distilled

SHOWN = ["m1", "m2", "m10"]


@pytest.mark.parametrize(
    ("reply", "used", "errors"),
    [
        ("Memories: m10, m1\n\\boxed{x}", ("m10", "m1"), 0),
        ("**Memories used:** [m2]\n\\boxed{x}", ("m2",), 0),
        ("Memories: none\n\\boxed{x}", (), 0),
        ("Memories: m3\n\\boxed{x}", (), 1),
        ("\\boxed{x}", (), 1),
        ("Memories: m1", ("m1",), 1),
        ("", (), 2),
    ],
)
def test_memories_and_layout(reply: str, used: tuple[str, ...], errors: int) -> None:
    found = parse_distilled(reply, SHOWN)
    assert (found.reply, found.used) == (reply, used)
    assert len(found.errors) == errors


@given(st.text() | st.text(alphabet="Memories: m1,\n\\boxed{}"))
def test_no_reply_raises(reply: str) -> None:
    assert set(parse_distilled(reply, SHOWN).used) <= set(SHOWN)
