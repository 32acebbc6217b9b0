"""Drawing M of K items in an order, and REINFORCE on it: the reranker of RMM (arXiv 2503.08026) as tensor functions.

Adding standard Gumbel noise to logits and taking the M largest draws an ordered set without replacement, with
probability (Plackett-Luce)

    pi(o_1, ..., o_M) = prod_j exp(l_{o_j}) / sum over the items i not drawn before of exp(l_i)

(Kool, van Hoof and Welling, arXiv 1903.06059). Shapes: K candidates, M of them drawn, D the embedding's dimension.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

#: What a draw is paid for: each item for itself, or each draw for all that follows it too.
CreditKind = Literal["item", "set"]


def residual_logits(query: Tensor, memories: Tensor, w_query: Tensor, w_memory: Tensor, tau: float) -> Tensor:
    """Logits [K] = (q + W_q q) . (m + W_m m) / tau of a query [D] and memories [K, D]; maps [D, D] (RMM, section 6).

    With maps of zeros this is the similarity that plain retrieval ranks by, divided by the temperature.
    """
    adapted = query + w_query @ query
    return (memories + memories @ w_memory.T) @ adapted / tau


def top_order(logits: Tensor, m: int) -> Tensor:
    """Places [M] of the largest logits, largest first; between equal ones the smaller place."""
    return torch.sort(logits, descending=True, stable=True).indices[:m]


def draw_order(logits: Tensor, m: int, generator: torch.Generator) -> Tensor:
    """An ordered draw [M] without replacement from Plackett-Luce with these logits [K], by the Gumbel-top-M trick."""
    uniform = torch.rand(logits.shape, generator=generator, dtype=torch.float64)
    gumbel = -torch.log(-torch.log(uniform.clamp(1e-20, 1 - 1e-12)))
    return top_order(logits.detach().double() + gumbel, m)


def order_logprobs(logits: Tensor, order: Tensor) -> Tensor:
    """Log-probability [M] of each draw given those before it; their sum is that of the ordered set, in nats."""
    taken = torch.zeros(len(logits), dtype=torch.bool)
    terms = []
    for place in order.tolist():
        left = logits.masked_fill(taken, float("-inf"))
        terms.append(logits[place] - torch.logsumexp(left, dim=0))
        taken = taken.clone()
        taken[place] = True
    return torch.stack(terms) if terms else logits.new_zeros(0)


def reinforce_loss(
    logits: Tensor, order: Tensor, rewards: Tensor, baseline: float, credit: CreditKind
) -> Tensor:
    """A scalar whose gradient is minus the REINFORCE estimate of one ordered draw; `rewards` [M] in its order.

    `set`: sum_j (sum_{k >= j} (r_k - b)) grad log pi(o_j | o_<j), an unbiased estimate of the gradient of the
    expected sum of rewards. `item`: sum_j (r_j - b) grad log pi(o_j | o_<j): every memory is paid for itself alone,
    as in RMM. That leaves out what a draw keeps for later ones, and varies far less.
    """
    gains = (rewards - baseline).detach()
    if credit == "set":
        gains = torch.flip(torch.cumsum(torch.flip(gains, (0,)), 0), (0,))
    return -(gains * order_logprobs(logits, order)).sum()
