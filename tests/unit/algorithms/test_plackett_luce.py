"""Drawing without replacement and its gradient, against the enumeration of all ordered draws (K = 4, M = 2: twelve)."""

from __future__ import annotations

import itertools
import math

import pytest
import torch

from memfactory.algorithms.plackett_luce import (
    CreditKind,
    draw_order,
    order_logprobs,
    reinforce_loss,
    residual_logits,
    top_order,
)

K, M, BASELINE = 4, 2, 0.5
LOGITS = [0.3, -1.2, 0.9, 0.1]
ORDERS = list(itertools.permutations(range(K), M))


def probability(logits: list[float], order: tuple[int, ...]) -> float:
    """Plackett-Luce by its definition, in plain Python."""
    left = list(range(len(logits)))
    result = 1.0
    for place in order:
        result *= math.exp(logits[place]) / sum(math.exp(logits[other]) for other in left)
        left.remove(place)
    return result


def test_log_probabilities_are_those_of_the_definition_and_sum_to_one() -> None:
    logits = torch.tensor(LOGITS, dtype=torch.float64)
    found = [order_logprobs(logits, torch.tensor(order)).sum().exp().item() for order in ORDERS]
    assert found == pytest.approx([probability(LOGITS, order) for order in ORDERS], rel=1e-12)
    assert sum(found) == pytest.approx(1.0)


def test_gumbel_draws_have_these_probabilities() -> None:
    logits = torch.tensor(LOGITS)
    generator = torch.Generator().manual_seed(3)
    count = 6000
    drawn = [tuple(draw_order(logits, M, generator).tolist()) for _ in range(count)]
    for order in ORDERS:
        expected = probability(LOGITS, order)
        error = math.sqrt(expected * (1 - expected) / count)
        assert drawn.count(order) / count == pytest.approx(expected, abs=4 * error)


def test_a_draw_is_repeatable_and_never_longer_than_the_candidates() -> None:
    logits = torch.tensor(LOGITS)
    first, second = (draw_order(logits, 9, torch.Generator().manual_seed(1)).tolist() for _ in range(2))
    assert first == second and sorted(first) == [0, 1, 2, 3]
    assert top_order(torch.tensor([1.0, 2.0, 2.0, 0.0]), 3).tolist() == [1, 2, 0]
    assert order_logprobs(logits, torch.tensor([], dtype=torch.long)).shape == (0,)


def rewards_of(order: tuple[int, ...]) -> list[float]:
    """Memory 2 is cited always, memory 0 only when it is shown first: what is cited depends on what is shown."""
    return [
        1.0 if place == 2 or (place == 0 and position == 0) else -1.0 for position, place in enumerate(order)
    ]


def problem() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """A query, K memories and two maps of dimension 3, in float64."""
    generator = torch.Generator().manual_seed(0)
    query = torch.randn(3, generator=generator, dtype=torch.float64)
    memories = torch.randn(K, 3, generator=generator, dtype=torch.float64)
    maps = [0.2 * torch.randn(3, 3, generator=generator, dtype=torch.float64) for _ in range(2)]
    return query, memories, maps[0].requires_grad_(), maps[1].requires_grad_()


def expected_estimate(credit: CreditKind) -> list[torch.Tensor]:
    """The mean of the REINFORCE gradient over all twelve draws, each weighted by its probability."""
    query, memories, w_query, w_memory = problem()
    total = [torch.zeros_like(w_query), torch.zeros_like(w_memory)]
    for order in ORDERS:
        logits = residual_logits(query, memories, w_query, w_memory, 0.5)
        weight = probability(logits.tolist(), order)
        rewards = torch.tensor(rewards_of(order), dtype=torch.float64)
        loss = reinforce_loss(logits, torch.tensor(order), rewards, BASELINE, credit)
        for place, gradient in enumerate(torch.autograd.grad(loss, (w_query, w_memory))):
            total[place] -= weight * gradient
    return total


def test_set_credit_is_the_gradient_of_the_expected_reward() -> None:
    query, memories, w_query, w_memory = problem()
    logits = residual_logits(query, memories, w_query, w_memory, 0.5)
    expected = torch.zeros((), dtype=torch.float64)
    for order in ORDERS:  # the probability by its definition, this time with a gradient
        first, second = order
        others = [place for place in range(K) if place != first]
        chance = torch.softmax(logits, 0)[first] * torch.softmax(logits[others], 0)[others.index(second)]
        expected = expected + chance * sum(rewards_of(order))
    exact = torch.autograd.grad(expected, (w_query, w_memory))
    for found, wanted in zip(expected_estimate("set"), exact, strict=True):
        torch.testing.assert_close(found, wanted, rtol=1e-10, atol=1e-12)
    assert max(gradient.abs().max().item() for gradient in exact) > 0.1


def test_item_credit_pays_every_draw_for_itself() -> None:
    query, memories, w_query, w_memory = problem()
    total = [torch.zeros_like(w_query), torch.zeros_like(w_memory)]
    for order in ORDERS:
        logits = residual_logits(query, memories, w_query, w_memory, 0.5)
        weight = probability(logits.tolist(), order)
        first, second = order
        others = [place for place in range(K) if place != first]
        terms = (
            torch.log_softmax(logits, 0)[first],
            torch.log_softmax(logits[others], 0)[others.index(second)],
        )
        for term, reward in zip(terms, rewards_of(order), strict=True):
            gradients = torch.autograd.grad(term, (w_query, w_memory), retain_graph=True)
            for place, gradient in enumerate(gradients):
                total[place] += weight * (reward - BASELINE) * gradient
    for found, wanted in zip(expected_estimate("item"), total, strict=True):
        torch.testing.assert_close(found, wanted, rtol=1e-10, atol=1e-12)


def test_maps_of_zeros_leave_the_similarity_as_it_is() -> None:
    query, memories, *_ = problem()
    zeros = torch.zeros(3, 3, dtype=torch.float64)
    torch.testing.assert_close(residual_logits(query, memories, zeros, zeros, 0.5), memories @ query * 2)
    by_hand = residual_logits(
        torch.tensor([1.0, 0.0]),
        torch.tensor([[0.0, 1.0]]),
        torch.tensor([[0.0, 0.0], [3.0, 0.0]]),  # q' = (1, 3)
        torch.tensor([[0.0, 2.0], [0.0, 0.0]]),  # m' = (2, 1)
        1.0,
    )
    assert by_hand.tolist() == [5.0]
