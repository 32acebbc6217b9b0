"""Both stores against a plain dict, under any sequence of calls."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path
from typing import Any

import numpy
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from memfactory.memory.bank import InMemoryBank
from memfactory.memory.lance import LanceBank
from memfactory.memory.layered import LayeredBank

TEXTS = st.sampled_from(["a cat", "a dog", "cats and dogs", "the 'quoted' one", "x"])
# Few directions, so that equal scores are common.
VECTORS = st.none() | st.lists(st.sampled_from([-1.0, 0.0, 1.0, 2.0]), min_size=3, max_size=3).filter(any)
PLACES = st.integers(0, 40)


class Model(RuleBasedStateMachine):
    """`plain` is id -> (text, key, vector); the banks must say the same, and the same as each other."""

    @initialize()
    def start(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="bank_model_"))
        self.disk = LanceBank(self.folder / "b", embedder="e", dim=3, compact_every=5)
        self.memory: LayeredBank = InMemoryBank("e", 3)
        self.plain: dict[str, tuple[str, str, Any]] = {}
        self.given = 0
        self.forks: list[tuple[LayeredBank, LayeredBank, dict[str, Any]]] = []

    def teardown(self) -> None:
        if hasattr(self, "disk"):
            self.disk.close()
            shutil.rmtree(self.folder)

    def pick(self, place: int) -> str:
        """Mostly an id that is there."""
        known = list(self.plain)
        return known[place % len(known)] if known and place < 35 else f"m{place}x"

    @rule(text=TEXTS, vector=VECTORS)
    def add(self, text: str, vector: list[float] | None) -> None:
        items = [bank.add(text, embedding=vector) for bank in (self.memory, self.disk)]
        self.given += 1
        assert items[0] == items[1] and items[0].id == f"m{self.given}"
        self.plain[items[0].id] = (text, "", vector)

    @rule(place=PLACES, text=TEXTS, vector=VECTORS)
    def update(self, place: int, text: str, vector: list[float] | None) -> None:
        item_id = self.pick(place)
        for bank in (self.memory, self.disk):
            try:
                bank.update(item_id, text=text, embedding=vector, key="k")
                assert item_id in self.plain
            except KeyError:
                assert item_id not in self.plain
        if item_id in self.plain:
            self.plain[item_id] = (text, "k", vector)

    @rule(place=PLACES)
    def delete(self, place: int) -> None:
        item_id = self.pick(place)
        for bank in (self.memory, self.disk):
            try:
                bank.delete(item_id)
                assert item_id in self.plain
            except KeyError:
                assert item_id not in self.plain
        self.plain.pop(item_id, None)

    @rule(text=TEXTS, vector=VECTORS, place=PLACES, ends_well=st.booleans())
    def transaction(self, text: str, vector: list[float] | None, place: int, ends_well: bool) -> None:
        item_id = self.pick(place)
        for bank in (self.memory, self.disk):
            try:
                with bank.transaction():
                    added = bank.add(text, embedding=vector)
                    if item_id in bank:
                        bank.delete(item_id)
                    if not ends_well:
                        raise InterruptedError
            except InterruptedError:
                pass
        if ends_well:
            self.plain.pop(item_id, None)
            self.plain[added.id] = (text, "", vector)
            self.given += 1

    @rule()
    def fork(self) -> None:
        if len(self.forks) < 3:
            self.forks.append((self.memory.fork(), self.disk.fork(), dict(self.plain)))

    @rule(text=TEXTS, place=PLACES)
    def edit_forks(self, text: str, place: int) -> None:
        for *banks, plain in self.forks:
            known = list(plain)
            if known:
                item_id = known[place % len(known)]
                for bank in banks:
                    bank.update(item_id, text=text, embedding=[1.0, 1.0, 1.0])
                plain[item_id] = (text, plain[item_id][1], [1.0, 1.0, 1.0])

    @rule()
    def open_again(self) -> None:
        self.disk.close()
        self.disk = LanceBank(self.folder / "b", compact_every=5)

    @rule()
    def optimize(self) -> None:
        self.disk.optimize()

    @rule(vector=VECTORS, k=st.integers(1, 8))
    def search(self, vector: list[float] | None, k: int) -> None:
        query = vector or [1.0, 0.5, 0.25]
        hits = self.memory.search_vector(query, k)
        assert hits == self.disk.search_vector(query, k)
        best = sorted(-score for score in scores(self.plain, query).values())[:k]
        numpy.testing.assert_allclose([-hit.score for hit in hits], best, atol=1e-6)
        order = [(-hit.score, hit.item.number) for hit in hits]
        assert order == sorted(order)

    @rule(query=TEXTS, k=st.integers(1, 8))
    def search_text(self, query: str, k: int) -> None:
        assert self.memory.search_text(query, k) == self.disk.search_text(query, k)

    @rule(text=TEXTS)
    def with_text(self, text: str) -> None:
        wanted = [item_id for item_id, (other, *_) in self.plain.items() if other == text]
        for bank in (self.memory, self.disk):
            assert [item.id for item in bank.with_text(text)] == wanted

    @invariant()
    def same_items(self) -> None:
        if hasattr(self, "disk"):
            check(self.memory, self.disk, self.plain)
            for memory, disk, plain in self.forks:
                check(memory, disk, plain)


def check(memory: LayeredBank, disk: LayeredBank, plain: dict[str, Any]) -> None:
    items = list(memory.items())
    assert items == list(disk.items())
    assert [(item.id, item.text, item.key) for item in items] == [(i, t, k) for i, (t, k, _) in plain.items()]
    assert [item.embedding is None for item in items] == [vector is None for _, _, vector in plain.values()]
    assert len(memory) == len(disk) == len(plain)


def scores(plain: dict[str, Any], query: list[float]) -> dict[str, float]:
    """Cosines, computed the long way."""
    q = numpy.array(query) / numpy.linalg.norm(query)
    return {i: float(numpy.dot(v, q) / numpy.linalg.norm(v)) for i, (_, _, v) in plain.items() if v}


TestModel = Model.TestCase
TestModel.settings = settings(
    max_examples=8, stateful_step_count=20, deadline=None, suppress_health_check=list(HealthCheck)
)
