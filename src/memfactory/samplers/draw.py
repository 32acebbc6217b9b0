"""How a token is drawn: a function of logits, parameters, seed and position, and of nothing else.

One uniform number per token comes from hashing (seed, position) and is inverted through the
cumulative distribution. There is no generator with a state, so a draw does not depend on what else
is in the batch, on chunked prefill or on preemption; all rows of a batch are drawn at once; and the
vLLM and HF samplers, which share this code, draw the same tokens from the same weights.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from memfactory.core.types import SamplingParams

if TYPE_CHECKING:
    import numpy as np
    import torch
    from numpy.typing import NDArray

_GOLDEN, _MIX_1, _MIX_2 = 0x9E3779B97F4A7C15, 0xBF58476D1CE4E5B9, 0x94D049BB133111EB


def uniforms(seeds: Sequence[int], positions: Sequence[int]) -> NDArray[np.float64]:
    """Numbers in (0, 1), one for each pair of seed and position (the n-th token of a completion).

    Each seed starts a SplitMix64 stream (Steele et al. 2014) of its own, read at `position`. 40 bits
    are used, so that a product with a float64 sum never rounds up to the sum itself.
    """
    import numpy as np

    golden = np.uint64(_GOLDEN)
    with np.errstate(over="ignore"):  # 64-bit arithmetic wraps on purpose
        state = _mix(np.asarray(seeds, dtype=np.uint64) + golden)
        state = _mix(state + (np.asarray(positions, dtype=np.uint64) + np.uint64(1)) * golden)
    return ((state >> np.uint64(24)).astype(np.float64) + 0.5) * 2.0**-40


def _mix(z: NDArray[np.uint64]) -> NDArray[np.uint64]:
    import numpy as np

    z = (z ^ (z >> np.uint64(30))) * np.uint64(_MIX_1)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(_MIX_2)
    return z ^ (z >> np.uint64(31))


def draw(
    logits: torch.Tensor, params: Sequence[SamplingParams], seeds: Sequence[int], positions: Sequence[int]
) -> torch.Tensor:
    """Draw one token a row.

    `logits` is [rows, vocabulary]; `params`, `seeds` and `positions` have one entry a row.
    Temperature 0 takes the most likely token; otherwise temperature, then `top_k`, then `top_p`
    shape the distribution. Returns ids, [rows] of int64.
    """
    import torch

    logits = logits.float()
    random_rows = [row for row, p in enumerate(params) if p.temperature > 0]
    if not random_rows:
        return logits.argmax(dim=-1)
    subset = len(random_rows) < len(params)
    chosen = [params[row] for row in random_rows] if subset else params
    index = torch.tensor(random_rows, device=logits.device) if subset else None
    scores = _tempered(logits if index is None else logits.index_select(0, index), chosen)
    if any(p.top_k > 0 or p.top_p < 1.0 for p in chosen):
        scores = _truncate(scores, [p.top_k for p in chosen], [p.top_p for p in chosen])
    points = uniforms([seeds[row] for row in random_rows], [positions[row] for row in random_rows])
    drawn = _invert(scores.softmax(dim=-1), torch.from_numpy(points).to(scores.device))
    if index is None:
        return drawn
    return logits.argmax(dim=-1).index_copy(0, index, drawn)


def drawn_logprobs(
    logits: torch.Tensor, params: Sequence[SamplingParams], drawn: torch.Tensor
) -> torch.Tensor:
    """Log-probability (nats) of each row's drawn token under softmax(logits / T), see `Completion.logprobs`.

    `logits` is [rows, vocabulary], `drawn` is [rows] of int64. Returns [rows] of float32.
    """
    scores = _tempered(logits.float(), params)
    return scores.log_softmax(dim=-1).gather(-1, drawn.unsqueeze(-1)).squeeze(-1)


def _tempered(logits: torch.Tensor, params: Sequence[SamplingParams]) -> torch.Tensor:
    """Each row divided by its temperature; greedy rows stay. [rows, vocabulary]."""
    import torch

    temperatures = [p.temperature or 1.0 for p in params]
    if set(temperatures) == {1.0}:
        return logits
    return logits / torch.tensor(temperatures, dtype=logits.dtype, device=logits.device).unsqueeze(-1)


def _invert(probabilities: torch.Tensor, points: torch.Tensor) -> torch.Tensor:
    """The first token at which the cumulative distribution exceeds the point. [n, v], [n] -> [n]."""
    import torch

    # float64: over 150,000 tokens a float32 sum would move the borders between rare tokens.
    cumulative = probabilities.cumsum(dim=-1, dtype=torch.float64)
    targets = (points * cumulative[:, -1]).unsqueeze(-1)
    found = torch.searchsorted(cumulative, targets, right=True).squeeze(-1)
    return found.clamp_(max=probabilities.shape[-1] - 1)


def _truncate(scores: torch.Tensor, top_k: Sequence[int], top_p: Sequence[float]) -> torch.Tensor:
    """Set what is outside the `top_k` best, or outside the nucleus of mass `top_p`, to -inf. [n, v]."""
    import torch

    ordered, index = scores.sort(dim=-1, descending=True, stable=True)
    size = scores.shape[-1]
    limits = torch.tensor([[k if 0 < k < size else size] for k in top_k], device=scores.device)
    masses = torch.tensor([[p] for p in top_p], dtype=torch.float64, device=scores.device)
    ordered = ordered.masked_fill(torch.arange(size, device=scores.device) >= limits, float("-inf"))
    probabilities = ordered.softmax(dim=-1)
    before = probabilities.cumsum(dim=-1, dtype=torch.float64) - probabilities  # mass of what ranks higher
    outside = (before >= masses) & (masses < 1.0)
    outside[:, 0] = False  # the best token always stays
    ordered = ordered.masked_fill(outside, float("-inf"))
    return torch.empty_like(scores).scatter_(-1, index, ordered)
