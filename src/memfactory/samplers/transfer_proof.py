"""The proof that what a learner sends is what its sampler then holds, bit for bit."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from memfactory.core.errors import ParityError
from memfactory.core.ranks import ALONE, Ranks
from memfactory.learners.base import Learner
from memfactory.samplers.base import Sampler, held_by, takes_adapters, weights_dtype
from memfactory.samplers.checksums import Ledger, perturbed

if TYPE_CHECKING:
    import torch


def transfer(
    sampler: Sampler,
    learner: Learner,
    version: int,
    ranks: Ranks = ALONE,
    turn: int = 0,
    changed: bool = False,
) -> dict[str, float]:
    """Load the learner's weights (or adapters) into the sampler, and compare what it then holds, bit for bit.

    With `changed` every tensor is plainly another than the learner's. `turn` chooses the columns of matrices that an
    engine has packed. Returns `sync/tensors_compared` and `sync/tensors_unread` (those of which an engine cannot tell
    what it holds), of the engine with most unread ones; nothing for samplers that tell nothing. Raises `ParityError`,
    on every rank, if a tensor differs or did not come.
    """
    dtype = weights_dtype(sampler)
    ledger = Ledger(dtype or "float32", turn)
    adapters = takes_adapters(sampler)
    if adapters:
        adapter: Any = learner.adapter()
        if changed:
            adapter = replace(adapter, tensors=dict(perturbed(adapter.tensors.items())))
        if dtype is not None:
            _drain(ledger.watch(_as_loaded(adapter, dtype)))
        sampler.load_adapter(adapter, version)  # type: ignore[attr-defined]
    else:
        weights = learner.named_weights()
        sent = perturbed(weights) if changed else weights
        watched = ledger.watch(sent) if dtype is not None else iter(sent)
        sampler.load_weights(watched, version)
        _drain(watched)  # of a sampler that did not read all of them: the rest is to be compared as well
    return {} if dtype is None else _compared(sampler, ledger, ranks, turn, version, adapter=adapters)


def base_is_the_learners(sampler: Sampler, learner: Learner, ranks: Ranks = ALONE) -> dict[str, float]:
    """Compare the weights that adapters are added to: nobody sends them, each side has loaded its own.

    Raises `ParityError` as `transfer` does.
    """
    weights = getattr(learner, "base_weights", None)
    dtype = weights_dtype(sampler)
    if weights is None or dtype is None:
        return {}
    ledger = Ledger(dtype)
    _drain(ledger.watch(weights()))
    return _compared(sampler, ledger, ranks, 0, sampler.policy_version, adapter=False)


def _compared(
    sampler: Sampler, ledger: Ledger, ranks: Ranks, turn: int, version: int, *, adapter: bool
) -> dict[str, float]:
    held = held_by(sampler, ledger.layout(), turn, adapter=adapter)
    faults = [words for engine in held for words in ledger.faults(engine)]
    by_rank = ranks.gather(faults)
    if any(by_rank):
        rank = next(number for number, said in enumerate(by_rank) if said)
        where = f" on rank {rank}" if ranks.world > 1 else ""
        what = "adapters" if adapter else "weights"
        raise ParityError(
            f"{what} of version {version} did not arrive{where}: {'; '.join(by_rank[rank][:2])}; the rollouts would "
            "come from another policy than the one that is trained"
        )
    unread = max((len(engine.unread) for engine in held), default=0)
    return {
        "sync/tensors_compared": float(len(ledger.sent) - unread),
        "sync/tensors_unread": float(unread),
    }


def _as_loaded(adapter: Any, dtype: str) -> Iterator[tuple[str, torch.Tensor]]:
    """Matrices as an engine keeps them: of its type, the second ones times alpha / rank, under the layer's name."""
    import torch

    tensors: Mapping[str, torch.Tensor] = adapter.tensors
    for name, tensor in tensors.items():
        layer = name.removeprefix("base_model.model.").removesuffix(".weight").removesuffix(".default")
        value = tensor.detach().to(getattr(torch, dtype))
        yield layer, value * (adapter.alpha / adapter.rank) if layer.endswith("lora_B") else value


def _drain(items: Iterable[Any]) -> None:
    for _ in items:
        pass
