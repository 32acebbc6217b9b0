"""What a reranker learned is as it was written, or refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from memfactory.core.errors import BadInput
from memfactory.learners.linear_reranker import STATE, LinearReranker


def test_a_state_file_that_is_another_than_was_written_is_one_line(tmp_path: Path) -> None:
    reranker = LinearReranker()
    reranker._begin(8)
    reranker.updates = 3
    reranker.save_state(tmp_path)
    file = tmp_path / STATE
    whole = file.read_bytes()
    for place in range(0, len(whole) - 40, 97):
        content = bytearray(whole)
        content[place] ^= 1
        file.write_bytes(content)
        with pytest.raises(BadInput, match="not a readable state of a reranker") as caught:
            LinearReranker().load_state(tmp_path)
        assert "\n" not in str(caught.value)
    for bad in (b"", whole[:100], b"notes"):
        file.write_bytes(bad)
        with pytest.raises(BadInput, match="not a readable state"):
            LinearReranker().load_state(tmp_path)
    for good in (whole, whole[: whole.rindex(b"\n#")]):  # the second is one of before
        file.write_bytes(good)
        again = LinearReranker()
        again.load_state(tmp_path)
        assert again.updates == 3
