"""When ranks count as hanging: none of them has done anything for the limit; whoever works keeps all alive."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from memfactory.core.errors import BadInput
from memfactory.core.rank_watch import LIMIT, Idleness, RankWatch, limit_of


def test_one_that_works_keeps_the_others_waiting() -> None:
    known = Idleness(2, start=0)
    for second in range(0, 7200, 10):
        known.hear(0, second, float(second), "core.ranks.gather:54", second)  # has waited since the start
        known.hear(1, second, 0.0, "evaluation.runner:80", second)
    assert known.seconds(7190) == 0
    assert known.seconds(7250) == 60


def test_all_that_wait_are_a_hang_since_the_last_of_them_worked() -> None:
    known = Idleness(3, start=0)
    for rank, idle in enumerate((100.0, 40.0, 70.0)):
        known.hear(rank, 1, idle, f"place {rank}", 200)
    assert known.seconds(200) == 40
    assert known.places() == "rank 0 in place 0, rank 1 in place 1, rank 2 in place 2"


def test_one_that_has_fallen_silent_does_not_work_any_more() -> None:
    known = Idleness(2, start=0)
    known.hear(1, 7, 0.0, "a place", 10)
    for second in range(20, 120, 10):
        known.hear(0, second, float(second), "gather", second)
        known.hear(1, 7, 0.0, "a place", second)  # the same report again: it was not written anew
    assert known.seconds(110) == 100
    assert Idleness(2, start=5).seconds(15) == 10  # nobody was ever heard


@pytest.mark.parametrize("text", ["", "soon", "0", "-1", "nan", "inf"])
def test_a_limit_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(BadInput, match="MEMFACTORY_RANK_TIMEOUT_S"):
        limit_of({"MEMFACTORY_RANK_TIMEOUT_S": text})
    assert limit_of({}) == LIMIT


class Memory:
    """A store as torch's, for ranks that are threads."""

    def __init__(self) -> None:
        self.values: dict[str, bytes] = {}

    def set(self, key: str, value: str) -> None:
        self.values[key] = value.encode()

    def check(self, keys: list[str]) -> bool:
        return all(key in self.values for key in keys)

    def get(self, key: str) -> bytes:
        return self.values[key]


def test_a_rank_that_is_never_heard_of_ends_the_others(tmp_path: Path) -> None:
    said: list[str] = []
    ended = threading.Event()

    def give_up(message: str) -> None:
        said.append(message)
        ended.set()

    with RankWatch(0, 2, Memory(), give_up, limit=1.0).watching():
        ended.wait()
    assert "no rank has done anything for" in said[0] and "MEMFACTORY_RANK_TIMEOUT_S" in said[0]
    assert "rank 0 in " in said[0]
