"""Training at a temperature: every step against plain transformers and autograd, with no code of the learner."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator

import pytest
import torch

from memfactory.algorithms.objective import Objective
from memfactory.core.types import Row
from memfactory.learners.local import LocalLearner

from .models import random_model, random_rows

CLIP_NORM, RATE, CAP, KL, RANK, ALPHA = 0.5, 1e-3, 2.0, 0.05, 4, 8
#: Rows of the first two and of the last two of four rollouts.
HALVES = [[0, 1, 4, 5, 8, 9], [2, 3, 6, 7, 10, 11]]


class Reference:
    """A policy whose weights are `base + deltas`; `parameters` are what is trained, by the learner's names."""

    def __init__(self, parameters: dict[str, torch.Tensor], lora: bool) -> None:
        self.model = random_model()
        self.initial = random_model()
        self.lora = lora
        self.parameters = {name: p.detach().clone().requires_grad_() for name, p in parameters.items()}

    def logprobs(self, row: Row, temperature: float) -> torch.Tensor:
        if not self.lora:
            return self._logprobs(row, temperature, self.parameters)
        weights = {}
        for name, down in self.parameters.items():
            if ".lora_A." in name:
                place = name.removeprefix("base_model.model.").replace(".lora_A.default", "")
                up = self.parameters[name.replace("lora_A", "lora_B")]
                weights[place] = self.model.get_parameter(place).detach() + ALPHA / RANK * up @ down
        return self._logprobs(row, temperature, weights)

    def initial_logprobs(self, row: Row, temperature: float) -> torch.Tensor:
        with torch.no_grad():
            return self._logprobs(row, temperature, {})

    def _logprobs(self, row: Row, temperature: float, weights: dict[str, torch.Tensor]) -> torch.Tensor:
        ids = torch.tensor([row.prompt_ids + row.completion_ids])
        logits = torch.func.functional_call(self.model, weights, (ids,), tie_weights=True).logits[0]
        distribution = torch.distributions.Categorical(
            logits=logits[len(row.prompt_ids) - 1 : -1] / temperature
        )
        return distribution.log_prob(torch.tensor(row.completion_ids))

    def gradients(self, rows: list[Row], temperature: float) -> Iterator[dict[str, torch.Tensor]]:
        """Gradients before clipping of two epochs of two minibatches: PPO with truncated weights and a KL term."""
        optimizer = torch.optim.AdamW(self.parameters.values(), lr=RATE, weight_decay=0.0)
        with torch.no_grad():
            old = [self.logprobs(row, temperature) for row in rows]
        for half in HALVES * 2:
            total = torch.zeros(())
            for i in half:
                logp, behaviour = (
                    self.logprobs(rows[i], temperature),
                    torch.tensor(rows[i].behaviour_logprobs),
                )
                ratio, advantage = (logp - old[i]).exp(), rows[i].advantage
                gain = torch.minimum(ratio * advantage, ratio.clamp(0.8, 1.2) * advantage)
                log_kl = self.initial_logprobs(rows[i], temperature) - logp
                term = -gain * (old[i] - behaviour).exp().clamp(max=CAP) + KL * (log_kl.exp() - log_kl - 1)
                total = total + term.sum()
            (total / sum(len(rows[i].completion_ids) for i in half)).backward()
            yield {name: p.grad.clone() for name, p in self.parameters.items() if p.grad is not None}
            torch.nn.utils.clip_grad_norm_(self.parameters.values(), CLIP_NORM)
            optimizer.step()
            optimizer.zero_grad()


def steps_of(learner: LocalLearner, rows: list[Row], temperature: float) -> list[dict[str, torch.Tensor]]:
    """The gradients of the learner's optimizer steps in one update."""
    seen: list[dict[str, torch.Tensor]] = []
    take = learner._take_step

    def watched(loss: float, lr: float) -> float:
        seen.append({name: p.grad.clone() for name, p in learner._trainable.items() if p.grad is not None})
        return take(loss, lr)

    learner._take_step = watched  # type: ignore[method-assign]
    objective = Objective(kl_coef=KL, tis_cap=CAP, epochs=2, minibatches=2, temperature=temperature)
    learner.update(rows, objective)
    return seen


def cosine(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> float:
    assert one.keys() == other.keys()
    a = torch.cat([one[name].flatten() for name in sorted(one)]).double()
    b = torch.cat([other[name].flatten() for name in sorted(other)]).double()
    return float(a @ b / (a.norm() * b.norm()))


@pytest.mark.parametrize("temperature", [0.7, 1.3])
@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"lora_rank": RANK, "lora_alpha": ALPHA},
        {"packing": True},
        {"lora_rank": RANK, "lora_alpha": ALPHA, "gradient_checkpointing": True},
    ],
)
def test_every_step_is_that_of_the_policy_that_acted(settings: dict[str, object], temperature: float) -> None:
    def learner() -> LocalLearner:
        made = LocalLearner(
            model=random_model(), reference=True, lr=RATE, clip_norm=CLIP_NORM, device="cpu",
            micro_batch_tokens=64, seed=3, **settings,
        )  # fmt: skip
        generator = torch.Generator().manual_seed(1)
        for name, parameter in made._trainable.items():
            if ".lora_B." in name:  # zero at first, which would hide half of the gradient
                parameter.data.add_(0.05 * torch.randn(parameter.shape, generator=generator))
        return made

    mine = learner()
    reference = Reference(mine._trainable, "lora_rank" in settings)
    draw = torch.Generator().manual_seed(2)
    rows = []
    for row in random_rows():
        exact = reference.logprobs(row, temperature).detach()
        noisy = exact + 0.1 * torch.randn(exact.shape, generator=draw)
        rows.append(dataclasses.replace(row, behaviour_logprobs=tuple(noisy.tolist())))

    for row, scores in zip(rows, mine.logprobs(rows, temperature), strict=True):
        torch.testing.assert_close(
            torch.tensor(scores), reference.logprobs(row, temperature).detach(), atol=3e-5, rtol=1e-4
        )
    steps = steps_of(mine, rows, temperature)
    expected = list(reference.gradients(rows, temperature))
    assert len(steps) == len(expected) == 4
    assert min(cosine(a, b) for a, b in zip(steps, expected, strict=True)) > 0.9999
    assert cosine(steps_of(learner(), rows, 1.0)[0], expected[0]) < 0.999  # what is tested makes a difference


def test_entropy_is_that_of_the_policy_that_acted() -> None:
    model, row = random_model(), random_rows(1)[0]
    ids = torch.tensor([row.prompt_ids + row.completion_ids])
    logits = model(ids).logits[0, len(row.prompt_ids) - 1 : -1].detach() / 0.7
    expected = torch.distributions.Categorical(logits=logits).entropy().mean()
    figures = LocalLearner(model=model, device="cpu").update([row], Objective(temperature=0.7))
    assert math.isclose(figures["entropy"], float(expected), rel_tol=1e-4)
