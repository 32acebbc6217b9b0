"""Measure memory banks: search and fork in the disk store with an index, recall, memory of a large bank.

    python scripts/bench_bank.py                          # 100 000 memories, about a minute
    python scripts/bench_bank.py --count 1000000 --data clustered
    python scripts/bench_bank.py --store memory

Vectors have dimension 384 (MiniLM's). `random` are directions without any structure, the hardest case there is;
`clustered` are 1 000 directions (or one for each 100 memories, if fewer) with noise, nearer to what encoders make
of text. Recall@10 is against brute force over the same vectors.
"""

from __future__ import annotations

import argparse
import os
import resource
import shutil
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy

from memfactory.memory.bank import InMemoryBank
from memfactory.memory.item import MemoryItem
from memfactory.memory.lance import LanceBank
from memfactory.memory.layered import LayeredBank

DIM, K = 384, 10


def main() -> None:
    """Run what the command line asks for, and print one figure a line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--count", type=int, default=100_000, help="memories in the bank (default 100000)")
    parser.add_argument("--data", choices=("random", "clustered", "both"), default="both")
    parser.add_argument("--store", choices=("disk", "memory", "both"), default="disk")
    parser.add_argument("--queries", type=int, default=200, help="searches to time (default 200)")
    parser.add_argument("--folder", help="where the bank is made (default: a temporary folder)")
    options = parser.parse_args()
    print(f"machine: {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f} (others may be working on it)")
    for data in ("random", "clustered") if options.data == "both" else (options.data,):
        for store in ("disk", "memory") if options.store == "both" else (options.store,):
            folder = Path(tempfile.mkdtemp(prefix="bench_bank_", dir=options.folder))
            try:
                _measure(store, data, options.count, options.queries, folder)
            finally:
                shutil.rmtree(folder, ignore_errors=True)


def _measure(store: str, data: str, count: int, queries: int, folder: Path) -> None:
    source = Vectors(data, count)
    show = _printer(f"{store} {data} {count}")
    bank: LayeredBank
    if store == "disk":
        bank = LanceBank(folder / "bank", embedder="bench", dim=DIM, compact_every=10**9)
    else:
        bank = InMemoryBank("bench", DIM)
    started = time.perf_counter()
    for first in range(0, count, 20_000):
        with bank.transaction():
            for number, vector in enumerate(source.block(first), start=first):
                text = f"memory {number} about something that happened"
                bank.insert(MemoryItem("", text, created_session=f"s{number // 50}", embedding=vector))
    show("load", time.perf_counter() - started, "s")
    if isinstance(bank, LanceBank):
        bank.close()
        started = time.perf_counter()
        bank = LanceBank(folder / "bank")
        show("open", time.perf_counter() - started, "s")
        started = time.perf_counter()
        bank.optimize(index=True)
        show("make the index", time.perf_counter() - started, "s")
        bank.prewarm()
    asked = source.queries(queries)
    truth = source.nearest(asked)
    bank.search_vector(asked[0], K)
    found, times = [], []
    for query in asked:
        started = time.perf_counter()
        hits = bank.search_vector(query, K)
        times.append(time.perf_counter() - started)
        found.append({hit.item.number - 1 for hit in hits})
    _show_times(show, "search", times)
    show("recall@10", sum(len(a & b) for a, b in zip(found, truth, strict=True)) / (K * queries), "")
    _show_times(show, "fork", _timed(lambda: bank.fork(), 200))
    forks = [bank.fork() for _ in range(64)]
    started = time.perf_counter()
    for place, fork in enumerate(forks):
        for step in range(10):
            fork.add(f"fork {place} step {step}", embedding=asked[(place + step) % queries])
        fork.update("m1", text="changed", embedding=asked[0])
        fork.delete("m2")
    show("12 edits of each of 64 forks", time.perf_counter() - started, "s")
    _show_times(show, "search in an edited fork", _timed(lambda: forks[0].search_vector(asked[1], K), 50))
    if isinstance(bank, LanceBank):
        bank.add("one more", embedding=asked[0])
        _show_times(show, "commit of one add", _timed(lambda: bank.add("more", embedding=asked[1]), 20))
        _show_times(show, "commit of one update", _timed(lambda: bank.update("m1", key="k"), 20))
        _show_times(show, "search after these commits", _timed(lambda: bank.search_vector(asked[1], K), 50))
    show("peak memory of the process", resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20, "GiB")
    bank.close()


class Vectors:
    """Unit vectors that can be made again block by block, so that the truth needs no second copy of them."""

    def __init__(self, kind: str, count: int) -> None:
        self.kind, self.count = kind, count
        centres = numpy.random.default_rng(1).standard_normal((max(1, min(1000, count // 100)), DIM))
        self.centres = centres.astype(numpy.float32)

    def block(self, first: int) -> numpy.ndarray:
        """Vectors `first` to `first` + 19 999."""
        return self._make(2 + first, min(20_000, self.count - first))

    def queries(self, count: int) -> numpy.ndarray:
        """New vectors of the same distribution."""
        return self._make(0, count)

    def nearest(self, queries: numpy.ndarray) -> list[set[int]]:
        """The numbers of the true 10 nearest of each query."""
        scores = numpy.full((len(queries), 0), 0, numpy.float32)
        numbers = numpy.zeros((len(queries), 0), numpy.int64)
        for first in range(0, self.count, 20_000):
            block = queries @ self.block(first).T
            best = numpy.argpartition(-block, K, axis=1)[:, :K]
            scores = numpy.hstack([scores, numpy.take_along_axis(block, best, axis=1)])
            numbers = numpy.hstack([numbers, best + first])
        best = numpy.argsort(-scores, axis=1)[:, :K]
        return [set(row.tolist()) for row in numpy.take_along_axis(numbers, best, axis=1)]

    def _make(self, seed: int, count: int) -> numpy.ndarray:
        rng = numpy.random.default_rng(seed)
        vectors = rng.standard_normal((count, DIM), numpy.float32)
        if self.kind == "clustered":
            vectors = self.centres[rng.integers(len(self.centres), size=count)] + 0.5 * vectors
        return vectors / numpy.linalg.norm(vectors, axis=1, keepdims=True)


def _timed(call: Callable[[], Any], times: int) -> list[float]:
    taken = []
    for _ in range(times):
        started = time.perf_counter()
        call()
        taken.append(time.perf_counter() - started)
    return taken


def _show_times(show: Callable[[str, float, str], None], name: str, times: list[float]) -> None:
    for percent in (50, 95):
        show(f"{name} p{percent}", float(numpy.percentile(times, percent)) * 1000, "ms")


def _printer(title: str) -> Callable[[str, float, str], None]:
    def show(name: str, value: float, unit: str) -> None:
        print(f"{title:<28} {name:<36} {value:10.3f} {unit}", flush=True)

    return show


if __name__ == "__main__":
    main()
