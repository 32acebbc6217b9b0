"""What a sampler is: the one thing that turns prompts into completions, whatever engine is behind it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from memfactory.core.types import Completion, SamplingRequest

if TYPE_CHECKING:
    import torch

    from memfactory.samplers.checksums import Held

#: Name of a tensor -> its type and shape; see `checksums.Ledger.layout`.
Layout = Mapping[str, Sequence[Any]]


#: Metadata of a config's field that is a budget of the machine: engines built of one spec divide it.
SHARED = {"shared": True}


class AdapterFiles(Protocol):
    """What a sampler gets instead of weights when it takes adapters; see `learners.adapters.Adapter`."""

    @property
    def rank(self) -> int:
        """Rank of the matrices."""
        ...

    def write(self, folder: Path) -> None:
        """Write a folder as peft does."""
        ...


class Sampler(Protocol):
    """Draws completions, many at a time.

    `sample` is awaited by many agents at once; the sampler batches whatever is waiting and resolves
    each as soon as it is finished. For a fixed order of requests and fixed seeds the draws are the
    same on every run on the same machine (in-process samplers).
    """

    @property
    def max_model_len(self) -> int:
        """Most tokens (prompt + completion) one request may have."""
        ...

    @property
    def policy_version(self) -> int:
        """Version of the weights that sample now; 0 before the first `load_weights`."""
        ...

    async def sample(self, request: SamplingRequest) -> Completion:
        """Draw one completion. Raises `ServiceError` when the engine fails after retries."""
        ...

    def load_weights(self, named_tensors: Iterable[tuple[str, torch.Tensor]], version: int) -> None:
        """Take over full weights (Hugging Face names) and forget cached prefixes.

        Raises `BadInput` when this sampler cannot take weights (a remote API, a script).
        """
        ...

    def close(self) -> None:
        """Free the engine; idempotent."""
        ...


def takes_adapters(sampler: Sampler) -> bool:
    """Whether a sampler is synced by `load_adapter(adapter, version)` in place of `load_weights`; most are not."""
    return bool(getattr(sampler, "takes_adapters", False))


def weights_dtype(sampler: Sampler) -> str | None:
    """Type of a sampler's weights (its `dtype`), if it can tell what it holds by `held`; else None."""
    tells = hasattr(sampler, "held_adapter" if takes_adapters(sampler) else "held")
    return getattr(sampler, "dtype", None) if tells else None


def held_by(sampler: Sampler, layout: Layout, turn: int, *, adapter: bool = False) -> Sequence[Held]:
    """What each engine behind a sampler with a `weights_dtype` holds of what is laid out so."""
    if adapter:
        return sampler.held_adapter(layout)  # type: ignore[attr-defined,no-any-return]
    return sampler.held(layout, turn)  # type: ignore[attr-defined,no-any-return]


def let_sleep(sampler: Sampler) -> None:
    """Have a sampler that can (a method `sleep`) leave its device's memory to the learner until the next sync."""
    sleep = getattr(sampler, "sleep", None)
    if sleep is not None:
        sleep()


def engines_of(sampler: Sampler) -> Sequence[Sampler]:
    """Each engine behind a sampler that has several (it tells by a method `engines`), else the sampler itself."""
    engines = getattr(sampler, "engines", None)
    return (sampler,) if engines is None else engines()


def figures_of(sampler: Sampler) -> Mapping[str, float]:
    """Figures that a sampler keeps about itself (a method `figures`); most have none."""
    figures = getattr(sampler, "figures", None)
    return {} if figures is None else figures()
