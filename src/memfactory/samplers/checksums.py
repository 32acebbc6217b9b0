"""Checksums of weights: what a learner sent, held against what a sampler's own memory has.

Log-probabilities cannot prove a transfer: at a learning rate of 1e-6 a sampler that never gets a weight differs by less
than rounding. Checksums are exact, in the narrower of the two sides' types.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

#: Up to this many columns a packed matrix is read whole; of wider ones `SAMPLED` columns, others in each turn.
FEW_COLUMNS = 256
SAMPLED = 16
#: Elements that are summed at once; so few stay in a processor's cache.
_CHUNK = 2**17
#: How many of those are handed over in one go: on a GPU every call costs more than what it computes.
_AT_ONCE = {"cpu": 1, "cuda": 128}
_FACTOR = 0x9E3779B97F4A7C15 - 2**64  # odd, its bits well mixed: 2^64 divided by the golden ratio


def digest(tensor: torch.Tensor) -> int:
    """A number of 64 bits that depends on every element and its place, the same on all devices; -0 counts as 0."""
    import torch

    kinds = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}
    kind = torch.int64 if tensor.nbytes % 8 == 0 else kinds[tensor.element_size()]
    width = _CHUNK * tensor.element_size() // kind.itemsize
    factors = _factors(tensor.device)
    sums: list[torch.Tensor] = []
    for part in tensor.detach().reshape(-1).split(_CHUNK * _AT_ONCE.get(tensor.device.type, 1)):
        plain = part + 0 if part.is_floating_point() else part.contiguous()
        words = plain.view(kind).to(torch.int64)
        whole = words.numel() // width
        if whole:
            sums.append((words[: whole * width].view(whole, width) * factors[:width]).sum(1))
        if words.numel() % width:
            rest = words[whole * width :]
            sums.append((rest * factors[: rest.numel()]).sum().reshape(1))
    if not sums:
        return 0
    # Only here does anybody wait for the device.
    total = torch.cat(sums)
    return int((total * factors[: total.numel()]).sum()) % 2**64


@lru_cache(maxsize=8)
def _factors(device: torch.device) -> torch.Tensor:
    """An odd number for each place of a part."""
    import torch

    return (torch.arange(1, 1 + _CHUNK, device=device) * _FACTOR) | 1


def sampled_columns(width: int, turn: int) -> list[int]:
    """The columns of a packed matrix that are compared in this turn; over the turns every column is."""
    if width <= FEW_COLUMNS:
        return list(range(width))
    stride = -(-width // SAMPLED)
    return [start + turn % stride for start in range(0, width, stride) if start + turn % stride < width]


@dataclass(frozen=True)
class Sent:
    """One tensor as it left the learner; `columns` is a checksum of some columns of a wide matrix."""

    shape: tuple[int, ...]
    dtype: str
    whole: int
    columns: int | None


@dataclass(frozen=True)
class Held:
    """What one engine has: name of a sent tensor -> checksum (of some columns where `packed` has the name).

    `empty` are its parameters that nothing sent belongs to; `unread` are sent names for which it has no place that can
    be read (experts that are fused, shards). `where` names the engine.
    """

    digests: Mapping[str, int]
    packed: Sequence[str] = ()
    empty: Sequence[str] = ()
    unread: Sequence[str] = ()
    where: str = "the sampler"


@dataclass
class Ledger:
    """Records tensors on their way to samplers whose weights are of type `dtype`. `turn` chooses columns."""

    dtype: str
    turn: int = 0
    sent: dict[str, Sent] = field(default_factory=dict)

    def watch(self, tensors: Iterable[tuple[str, torch.Tensor]]) -> Iterator[tuple[str, torch.Tensor]]:
        """The same tensors, recorded as they pass."""
        import torch

        theirs = getattr(torch, self.dtype)
        for name, tensor in tensors:
            narrow = tensor.detach()
            if tensor.is_floating_point() and theirs.itemsize < tensor.dtype.itemsize:
                narrow = narrow.to(theirs)
            columns = None
            if narrow.ndim == 2 and narrow.shape[1] > FEW_COLUMNS:
                chosen = sampled_columns(narrow.shape[1], self.turn)
                columns = digest(narrow[:, chosen].t().contiguous())
            kind = str(narrow.dtype).removeprefix("torch.")
            self.sent[name] = Sent(tuple(narrow.shape), kind, digest(narrow), columns)
            yield name, tensor

    def layout(self) -> dict[str, list[str | int]]:
        """Name -> type and shape of what was sent, as plain values: what an engine needs to look its copies up."""
        return {name: [sent.dtype, *sent.shape] for name, sent in self.sent.items()}

    def faults(self, held: Held) -> list[str]:
        """What is wrong with what an engine holds, in words; empty if it has every tensor bit for bit."""
        said = []
        if held.empty and not held.unread:
            said.append(f"{len(held.empty)} of its parameters did not come, '{held.empty[0]}' first")
        wrong = []
        for name, found in held.digests.items():
            sent = self.sent[name]
            if found != (sent.columns if name in held.packed else sent.whole):
                wrong.append(name)
        if wrong:
            said.append(
                f"{len(wrong)} of {len(self.sent)} tensors differ from those sent, '{wrong[0]}' first"
            )
        lost = [name for name in self.sent if name not in held.digests and name not in held.unread]
        if lost:
            said.append(f"{len(lost)} tensors that were sent are not there, '{lost[0]}' first")
        return [f"{held.where}: {words}" for words in said]


def perturbed(tensors: Iterable[tuple[str, torch.Tensor]]) -> Iterator[tuple[str, torch.Tensor]]:
    """Every tensor plainly changed, zeros too, one copy at a time."""
    for name, tensor in tensors:
        yield name, (tensor.detach() * 1.25 + 1 / 64 if tensor.is_floating_point() else tensor)
