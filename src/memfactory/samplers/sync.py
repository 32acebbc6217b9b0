"""Weights from learner to sampler, and the proof that both now hold the same model."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence

from memfactory.core.errors import BadInput, ParityError
from memfactory.core.ranks import ALONE, Ranks
from memfactory.core.types import Completion, Row, SamplingParams, SamplingRequest
from memfactory.learners.base import Learner
from memfactory.samplers.base import Sampler, engines_of, figures_of, takes_adapters
from memfactory.samplers.transfer_proof import base_is_the_learners, transfer

#: Tokens drawn per prompt for the check.
CHECK_TOKENS = 8


def sync_and_check(
    sampler: Sampler,
    learner: Learner,
    prompts: Sequence[Sequence[int]],
    threshold: float,
    version: int,
    tokens: int = CHECK_TOKENS,
    ranks: Ranks = ALONE,
    temperature: float = 1.0,
    turn: int = 0,
    first: bool = False,
) -> dict[str, float]:
    """Load the learner's weights (or adapters) into the sampler as `version`; prove that it has them and uses them.

    Call it outside of any event loop, while the sampler is idle. What it holds is compared by checksums (`turn`: see
    `transfer_proof.transfer`), what it computes by log-probabilities. At the `first` sync of a process the learner's
    weights may be those that the sampler began with, and nothing would be proved: so plainly changed ones are sent
    before them, which both checksums and log-probabilities must show.
    Returns `sync/seconds`, and the metrics of `transfer` and `check_parity`. Raises `ParityError` if a tensor did not
    arrive, or over `threshold`. Under several ranks each has a sampler of its own.
    """
    first = first and not getattr(sampler, "scripted", False)
    start = time.perf_counter()
    changed: list[Completion] = []
    if first:
        if takes_adapters(sampler):
            base_is_the_learners(sampler, learner, ranks)
        transfer(sampler, learner, version, ranks, turn, changed=True)
        changed = _drawn(sampler, _requests(prompts, tokens, temperature))
    figures = transfer(sampler, learner, version, ranks, turn)
    seconds = time.perf_counter() - start
    if first:
        _require_noticed(changed, _drawn(sampler, _requests(prompts, tokens, temperature)), ranks)
    return {
        "sync/seconds": seconds,
        **figures,
        **check_parity(sampler, learner, prompts, threshold, tokens, ranks, temperature),
        **figures_of(sampler),
    }


def parity_threshold(wanted: float | None, *dtypes: str) -> float:
    """The recipe's `trainer.parity_threshold`, or what the types of sampler and learner allow (nats).

    Log-probabilities of a bfloat16 model of 135 million weights that is right differ by 0.17; in float32 by 1e-3 at
    most. That the weights arrived, checksums prove; this is for what kernels make of them.
    """
    if wanted is not None:
        return wanted
    return 0.01 if set(dtypes) == {"float32"} else 0.5


def check_parity(
    sampler: Sampler,
    learner: Learner,
    prompts: Sequence[Sequence[int]],
    threshold: float,
    tokens: int = CHECK_TOKENS,
    ranks: Ranks = ALONE,
    temperature: float = 1.0,
) -> dict[str, float]:
    """Sample a few tokens for each prompt and compare the log-probabilities of both sides.

    Greedy, but at a `temperature` of training other than 1 drawn at it: then the check shows that both sides apply it.
    `threshold` bounds the largest absolute difference in nats: about 1e-3 in float32, 0.1 in bfloat16.
    Returns `sync/parity_max`, `sync/parity_mean` (nats) and `sync/parity_seconds`. Raises `ParityError`
    over the threshold or for a log-probability that is no number, `BadInput` without prompts. Every engine of a
    sampler is asked. Figures are of the samplers of all ranks; the worst of them decides, on every rank.
    """
    if not prompts:
        raise BadInput("the parity check needs at least one prompt")
    start = time.perf_counter()
    requests = _requests(prompts, tokens, temperature)
    completions = _drawn(sampler, requests)
    repeated = requests * (len(completions) // len(requests))
    rows = [
        _row(number, request, completion)
        for number, (request, completion) in enumerate(zip(repeated, completions, strict=True))
    ]
    theirs = _score(learner, rows, temperature)
    by_rank = ranks.gather(
        [
            abs(a - b)
            for row, learned in zip(rows, theirs, strict=True)
            for a, b in zip(row.behaviour_logprobs, learned, strict=True)
        ]
    )
    differences = [difference for part in by_rank for difference in part]
    # Written so that a difference that is not a number fails as well.
    if not all(difference <= threshold for difference in differences):
        bad = [d for d in differences if not d <= threshold]
        wrong = [number for number, part in enumerate(by_rank) if not all(d <= threshold for d in part)]
        where = f" on rank {', '.join(map(str, wrong))}" if ranks.world > 1 else ""
        raise ParityError(
            f"sampler and learner disagree{where} after syncing weights of version {sampler.policy_version}: "
            f"log-probabilities differ by up to {max(bad, key=lambda d: (d != d, d)):.3g} nats "
            f"({len(bad)} of {len(differences)} tokens), threshold {threshold:g}; the sampler holds stale or "
            "wrong weights, or computes in lower precision than trainer.parity_threshold allows"
        )
    return {
        "sync/parity_max": max(differences),
        "sync/parity_mean": sum(differences) / len(differences),
        "sync/parity_seconds": time.perf_counter() - start,
    }


def _requests(prompts: Sequence[Sequence[int]], tokens: int, temperature: float) -> list[SamplingRequest]:
    params = SamplingParams(temperature=0.0 if temperature == 1.0 else temperature, max_tokens=tokens)
    return [SamplingRequest(tuple(ids), params, seed=0, label="parity check") for ids in prompts]


def _drawn(sampler: Sampler, requests: Sequence[SamplingRequest]) -> list[Completion]:
    """What every engine draws for the requests, engine by engine."""
    return asyncio.run(_sample_all(engines_of(sampler), requests))


def _require_noticed(changed: Sequence[Completion], true: Sequence[Completion], ranks: Ranks) -> None:
    """Raise `ParityError` if an engine drew the same with weights that were plainly changed."""
    same = all(
        a.token_ids == b.token_ids and a.logprobs == b.logprobs for a, b in zip(changed, true, strict=True)
    )
    if any(ranks.gather(same)):
        raise ParityError(
            "the sampler does not notice new weights: with every tensor changed by a quarter it draws the same tokens "
            "with the same log-probabilities; what it computes with is not what it was sent"
        )


async def _sample_all(engines: Sequence[Sampler], requests: Sequence[SamplingRequest]) -> list[Completion]:
    return await asyncio.gather(*(engine.sample(request) for engine in engines for request in requests))


def _score(learner: Learner, rows: Sequence[Row], temperature: float) -> list[list[float]]:
    """The learner's log-probabilities of each row; what several engines drew alike is scored once."""
    numbers: dict[tuple[tuple[int, ...], tuple[int, ...]], int] = {}
    different: list[Row] = []
    for row in rows:
        key = (row.prompt_ids, row.completion_ids)
        if key not in numbers:
            numbers[key] = len(different)
            different.append(row)
    scored = learner.logprobs(different, temperature)
    return [scored[numbers[row.prompt_ids, row.completion_ids]] for row in rows]


def _row(number: int, request: SamplingRequest, completion: Completion) -> Row:
    if not completion.token_ids or len(completion.logprobs) != len(completion.token_ids):
        raise BadInput("this sampler does not tell log-probabilities, so a policy cannot be trained with it")
    return Row(
        prompt_ids=request.prompt_ids,
        completion_ids=completion.token_ids,
        behaviour_logprobs=completion.logprobs,
        advantage=0.0,
        rollout_id=number,
    )
