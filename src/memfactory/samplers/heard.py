"""A sampler of which somebody hears each reply, as it comes."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

from memfactory.core.types import Completion, SamplingRequest
from memfactory.samplers.base import Sampler

if TYPE_CHECKING:
    import torch


class HeardSampler:
    """Only samples: weights go to the sampler itself."""

    def __init__(self, sampler: Sampler, heard: Callable[[], None]) -> None:
        self._sampler = sampler
        self._heard = heard

    @property
    def max_model_len(self) -> int:
        """See `Sampler`."""
        return self._sampler.max_model_len

    @property
    def policy_version(self) -> int:
        """See `Sampler`."""
        return self._sampler.policy_version

    async def sample(self, request: SamplingRequest) -> Completion:
        """Draw one completion, and say that it came; see `Sampler.sample`."""
        completion = await self._sampler.sample(request)
        self._heard()
        return completion

    def load_weights(self, named_tensors: Iterable[tuple[str, torch.Tensor]], version: int) -> None:
        """Not through this one."""
        raise RuntimeError("weights go to the sampler itself")

    def close(self) -> None:
        """The sampler belongs to whoever opened it."""
