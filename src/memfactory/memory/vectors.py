"""Vectors in growing chunks, and the one way in which similarities are computed and ranked.

Both stores rank by `exact_scores`, so that the same items get the same scores to the last bit wherever they
are kept. Faster float32 scores only choose the candidates, with a margin wider than their rounding.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy

from memfactory.memory.item import Hit, MemoryItem, Vector

#: Wider than the rounding of a float32 dot product of unit vectors, by whatever library computed it.
SLACK = 1e-5
_FIRST_CHUNK, _LARGEST_CHUNK = 16, 8192


class Rows:
    """Vectors appended one by one. A row never moves, so views of it stay valid and cost no copy."""

    def __init__(self, dim: int) -> None:
        self._dim = dim
        self._chunks: list[numpy.ndarray] = []
        self._free = 0
        self._size = 0

    def __len__(self) -> int:
        return self._size

    def append(self, vector: numpy.ndarray) -> numpy.ndarray:
        """Copy a vector into the next row; returns a read-only view of that row."""
        if self._free == 0:
            size = min(_FIRST_CHUNK << min(len(self._chunks), 20), _LARGEST_CHUNK)
            self._chunks.append(numpy.empty((size, self._dim), numpy.float32))
            self._free = size
        row = self._chunks[-1][-self._free]
        row[:] = vector
        row.flags.writeable = False
        self._free -= 1
        self._size += 1
        return row

    def dot(self, query: numpy.ndarray) -> numpy.ndarray:
        """The float32 dot product of every row with a query."""
        parts = [chunk @ query for chunk in self._chunks[:-1]]
        if self._chunks:
            last = self._chunks[-1]
            parts.append(last[: len(last) - self._free] @ query)
        return numpy.concatenate(parts) if parts else numpy.empty(0, numpy.float32)


def unit(vector: Vector, dim: int) -> numpy.ndarray:
    """A vector as float32 of length 1. Raises `ValueError` for another dimension, zeros, NaN or infinity.

    One that has length 1 already, to float32's precision, keeps its bits.
    """
    given = numpy.asarray(vector, numpy.float32)
    if given.shape != (dim,):
        raise ValueError(f"an embedding of shape {given.shape}; this bank holds vectors of dimension {dim}")
    length = float(numpy.sqrt(numpy.dot(given.astype(numpy.float64), given)))
    if not numpy.isfinite(length) or length == 0.0:
        raise ValueError("an embedding must be finite and not all zeros")
    if abs(length - 1.0) < 1e-6:
        return given
    return numpy.asarray(given / length, numpy.float32)


def candidates(scores: numpy.ndarray, k: int) -> numpy.ndarray:
    """The rows that may be among the `k` best, given scores that are right to within `SLACK`."""
    if len(scores) > k:
        threshold = numpy.partition(scores, len(scores) - k)[len(scores) - k] - 2 * SLACK
        return numpy.flatnonzero((scores >= threshold) & (scores > -numpy.inf))
    return numpy.flatnonzero(scores > -numpy.inf)


def exact_scores(items: Sequence[MemoryItem], query: numpy.ndarray) -> list[Hit]:
    """Items, all with embeddings, as hits scored by their cosine with a unit query.

    Summed in float64, row by row, so that a score depends on the two vectors alone and not on its neighbours.
    """
    if not items:
        return []
    rows = numpy.stack([item.embedding for item in items]).astype(numpy.float64)  # type: ignore[misc]
    scores = (rows * query.astype(numpy.float64)).sum(axis=1)
    return [Hit(item, float(score)) for item, score in zip(items, scores, strict=True)]
