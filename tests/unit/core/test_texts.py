"""Unicode's composed form."""

from __future__ import annotations

import unicodedata

from hypothesis import given
from hypothesis import strategies as st

from memfactory.core.texts import nfc


def test_what_looks_alike_is_alike() -> None:
    assert nfc("Cafe\u0301") == "Café" and nfc("\u1112\u1161\u11ab") == "한" and nfc("\u212b") == "\u00c5"
    assert nfc("plain") == "plain" and nfc("\ud800 e\u0301") == "\ud800 é"


@given(st.text(alphabet=st.characters()))
def test_any_text_has_one_form(text: str) -> None:
    assert nfc(nfc(text)) == nfc(text) == nfc(unicodedata.normalize("NFD", text))
