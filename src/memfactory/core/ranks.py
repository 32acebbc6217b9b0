"""The processes of one run: which of them this one is, and how they talk.

With one process every method is the identity, so callers need no second code path. Values must be known to
pickle; what one rank sends, all of them must ask for, in the same order.
"""

from __future__ import annotations

import os
import re
import weakref
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import timedelta
from itertools import chain, zip_longest
from typing import Any, TypeVar

from memfactory.core.errors import BadInput
from memfactory.core.rank_watch import RankWatch, limit_of

T = TypeVar("T")
_NOTHING: Any = object()


@dataclass(frozen=True)
class Ranks:
    """This process's number among `world` processes (0-based), and its number on its machine.

    `group` is the torch.distributed group over which Python objects travel (None: there is one process).
    """

    rank: int = 0
    world: int = 1
    local_rank: int = 0
    group: Any = field(default=None, repr=False, compare=False)
    watch: RankWatch | None = field(default=None, repr=False, compare=False)

    @property
    def first(self) -> bool:
        """Whether this is the rank that prints and writes."""
        return self.rank == 0

    def gather(self, value: T) -> list[T]:
        """The values of all ranks, in the order of ranks, on every rank."""
        if self.world == 1:
            return [value]
        import torch.distributed as dist

        values: list[Any] = [None] * self.world
        dist.all_gather_object(values, value, group=self.group)
        return values

    def broadcast(self, value: T) -> T:
        """What rank 0 passed, on every rank; what the others passed is ignored."""
        if self.world == 1:
            return value
        import torch.distributed as dist

        box = [value if self.first else None]
        dist.broadcast_object_list(box, src=0, group=self.group)
        return box[0]  # type: ignore[return-value]

    def barrier(self) -> None:
        """Wait until every rank has come here."""
        self.gather(None)

    def beat(self) -> None:
        """Tell the watch that something was done which costs no processor time here; see `rank_watch`."""
        if self.watch is not None:
            self.watch.beat()

    @contextmanager
    def watched(self, give_up: Callable[[str], None], limit: float) -> Iterator[Ranks]:
        """These ranks while somebody watches that they do not wait for each other for ever; see `RankWatch`."""
        if self.world == 1:
            yield self
            return
        import torch.distributed as dist

        address, port = os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])
        # A connection of its own: on that of the process groups an exchange may be waiting.
        store = dist.TCPStore(address, port, is_master=False, timeout=timedelta(seconds=max(5.0, limit / 4)))
        watch = RankWatch(self.rank, self.world, store, give_up, limit)
        with watch.watching():
            yield replace(self, watch=watch)

    def leave(self) -> None:
        """Give the process groups back, if we made any: their threads may not be there when the program ends.

        All ranks call it, when their work is done. A process alone may hold those of somebody else, such as an engine
        of vLLM that it goes on with.
        """
        import torch.distributed as dist

        if not (dist.is_available() and dist.is_initialized()):
            return
        if self.world > 1 or dist.group.WORLD in _alone:
            self.barrier()
            dist.destroy_process_group()

    def ensure_process_group(self) -> None:
        """Give a single process the group of one that DeepSpeed asks for."""
        import torch.distributed as dist

        os.environ.setdefault("LOCAL_RANK", str(self.local_rank))  # it asks for that too
        if not dist.is_initialized():
            dist.init_process_group(_backend(), store=dist.HashStore(), rank=0, world_size=1)
            _alone.add(dist.group.WORLD)

    def apart(self) -> Ranks:
        """The same ranks with a group of their own, for a thread that talks while another does; all ranks call it."""
        if self.world == 1:
            return self
        import torch.distributed as dist

        return replace(self, group=dist.new_group(backend="gloo", timeout=_TIMEOUT))

    def share(self, items: Sequence[T]) -> list[T]:
        """The items of this rank: every `world`-th, so that neighbours go to different ranks."""
        return list(items[self.rank :: self.world])

    def join_shares(self, items: Sequence[T]) -> list[T]:
        """All ranks' items in the order that `share` took them from."""
        if self.world == 1:
            return list(items)
        rows: Iterable[tuple[Any, ...]] = zip_longest(*self.gather(list(items)), fillvalue=_NOTHING)
        return [item for item in chain.from_iterable(rows) if item is not _NOTHING]


ALONE = Ranks()
#: The group that `ensure_process_group` made in this process.
_alone: weakref.WeakSet[Any] = weakref.WeakSet()

#: A rank may wait this long for another: rollouts can take much longer on one than on the next.
_TIMEOUT = timedelta(hours=6)


def join_ranks(environment: Mapping[str, str] = os.environ) -> Ranks:
    """Join the processes that a launcher started together with this one; alone when there is no launcher.

    torchrun, the deepspeed launcher, `memfactory train --nproc` and SLURM's srun are known by the variables that they
    set. Call it once, before anything else uses torch.distributed.
    """
    place = find_place(environment)
    if place is None:
        return ALONE
    import torch
    import torch.distributed as dist

    if torch.cuda.is_available():
        torch.cuda.set_device(place.local_rank)
    for name, value in place.variables().items():
        os.environ[name] = value  # for what reads them later: DeepSpeed, vLLM
    # NCCL's waits spin, which the watch takes for work; none of ours is long, as waits for rollouts go over gloo.
    limit = min(_TIMEOUT, timedelta(seconds=2 * limit_of(environment)))
    dist.init_process_group(_backend(), timeout=limit if _backend() == "nccl" else _TIMEOUT)
    group = dist.new_group(backend="gloo", timeout=_TIMEOUT)
    return Ranks(place.rank, place.world, place.local_rank, group)


def _backend() -> str:
    import torch

    return "nccl" if torch.cuda.is_available() else "gloo"


@dataclass(frozen=True)
class Place:
    """What a launcher says about this process: its numbers, and where rank 0 can be met."""

    rank: int
    world: int
    local_rank: int
    local_world: int
    address: str
    port: int

    def variables(self) -> dict[str, str]:
        """The same as the environment variables that torch reads."""
        return {
            "RANK": str(self.rank),
            "WORLD_SIZE": str(self.world),
            "LOCAL_RANK": str(self.local_rank),
            "LOCAL_WORLD_SIZE": str(self.local_world),
            "MASTER_ADDR": self.address,
            "MASTER_PORT": str(self.port),
        }


def find_place(environment: Mapping[str, str]) -> Place | None:
    """This process's place among several, or None when nothing launched several.

    Raises `BadInput` for variables that contradict each other.
    """
    try:
        if "RANK" in environment and "WORLD_SIZE" in environment:
            return _place_of_torch(environment)
        if int(environment.get("SLURM_STEP_NUM_TASKS", "1")) > 1:
            return _place_of_slurm(environment)
    except (KeyError, ValueError) as error:
        raise BadInput(f"the launcher's environment is not complete: {error}") from error
    return None


def _place_of_torch(environment: Mapping[str, str]) -> Place | None:
    world, rank = int(environment["WORLD_SIZE"]), int(environment["RANK"])
    if world == 1:
        return None
    if not 0 <= rank < world:
        raise ValueError(f"RANK={rank} does not fit WORLD_SIZE={world}")
    local = int(environment.get("LOCAL_RANK", rank))
    return Place(
        rank,
        world,
        local,
        int(environment.get("LOCAL_WORLD_SIZE", world)),
        environment["MASTER_ADDR"],
        int(environment["MASTER_PORT"]),
    )


def _place_of_slurm(environment: Mapping[str, str]) -> Place:
    """`srun` started one task a rank; the job's number gives all of them the same free-looking port."""
    return Place(
        int(environment["SLURM_PROCID"]),
        int(environment["SLURM_STEP_NUM_TASKS"]),
        int(environment["SLURM_LOCALID"]),
        int(environment["SLURM_STEP_TASKS_PER_NODE"].split("(")[0].split(",")[0]),
        environment.get("MASTER_ADDR") or first_host(environment["SLURM_STEP_NODELIST"]),
        int(environment.get("MASTER_PORT") or 20000 + int(environment["SLURM_JOB_ID"]) % 20000),
    )


def first_host(nodes: str) -> str:
    """The first name of a SLURM node list: `gpu[07-09,12],login` is `gpu07`."""
    match = re.match(r"([^,\[]+)(?:\[(\d+)[^\]]*\]([^,\[]*))?", nodes)
    if match is None:
        raise ValueError(f"SLURM_STEP_NODELIST={nodes!r} names no host")
    return match[1] + (match[2] or "") + (match[3] or "")
