"""One process needs no exchange, a launcher's variables are understood, shares come back in order."""

from __future__ import annotations

import dataclasses
import threading
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from memfactory.core.errors import BadInput
from memfactory.core.ranks import ALONE, Ranks, find_place, first_host

TORCHRUN = {
    "RANK": "5",
    "WORLD_SIZE": "8",
    "LOCAL_RANK": "1",
    "LOCAL_WORLD_SIZE": "4",
    "MASTER_ADDR": "a",
    "MASTER_PORT": "29501",
}
SLURM = {
    "SLURM_PROCID": "9",
    "SLURM_STEP_NUM_TASKS": "16",
    "SLURM_LOCALID": "1",
    "SLURM_STEP_TASKS_PER_NODE": "8(x2)",
    "SLURM_STEP_NODELIST": "gpu[07-08]",
    "SLURM_JOB_ID": "123456",
}


class Meeting:
    """Ranks as threads that exchange values: `Ranks` with the network taken out."""

    def __init__(self, world: int) -> None:
        self.world, self.box, self.gate = world, [None] * world, threading.Barrier(world)

    def ranks(self, rank: int) -> Ranks:
        meeting = self

        class Threaded(Ranks):
            def gather(self, value: Any) -> list[Any]:
                meeting.box[self.rank] = value
                meeting.gate.wait(10)
                values = list(meeting.box)
                meeting.gate.wait(10)
                return values

        return Threaded(rank, self.world)

    def run(self, work: Any) -> list[Any]:
        results: list[Any] = [None] * self.world

        def one(rank: int) -> None:
            results[rank] = work(self.ranks(rank))

        threads = [threading.Thread(target=one, args=(rank,)) for rank in range(self.world)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(20)
        return results


def test_alone_everything_is_the_identity() -> None:
    assert ALONE.first and ALONE.world == 1
    assert ALONE.gather("x") == ["x"]
    assert ALONE.broadcast("x") == "x"
    assert ALONE.join_shares(ALONE.share([1, 2, 3])) == [1, 2, 3]
    ALONE.barrier()


@given(st.lists(st.one_of(st.integers(), st.none()), max_size=12), st.integers(1, 5))
def test_shares_are_disjoint_even_and_come_back_in_order(items: list[int | None], world: int) -> None:
    numbered = list(enumerate(items))
    shares = [Ranks(rank, world).share(numbered) for rank in range(world)]
    assert sorted(item for share in shares for item in share) == sorted(numbered, key=lambda i: i[0])
    assert max(map(len, shares)) - min(map(len, shares)) <= 1
    got = Meeting(world).run(lambda ranks: ranks.join_shares(ranks.share(items)))
    assert got == [items] * world


def test_torchrun_and_the_deepspeed_launcher_are_joined() -> None:
    place = find_place(TORCHRUN)
    assert place is not None
    assert (place.rank, place.world, place.local_rank, place.local_world) == (5, 8, 1, 4)
    assert place.variables() == {**TORCHRUN}
    without = {
        key: value for key, value in TORCHRUN.items() if key != "LOCAL_WORLD_SIZE"
    }  # deepspeed sets none
    assert find_place(without) == dataclasses.replace(place, local_world=8)


def test_srun_is_joined_and_its_batch_script_is_not() -> None:
    place = find_place(SLURM)
    assert place is not None
    assert (place.rank, place.world, place.local_rank, place.local_world) == (9, 16, 1, 8)
    assert (place.address, place.port) == ("gpu07", 23456)
    assert find_place({**SLURM, "MASTER_ADDR": "10.0.0.1", "MASTER_PORT": "5"}).address == "10.0.0.1"  # type: ignore
    batch = {key: value for key, value in SLURM.items() if "STEP" not in key}
    assert find_place(batch) is None
    assert find_place({}) is None
    assert find_place({**TORCHRUN, "WORLD_SIZE": "1", "RANK": "0"}) is None


@pytest.mark.parametrize(
    "broken", [{"RANK": "8"}, {"RANK": "x"}, {"MASTER_PORT": ""}, {"WORLD_SIZE": "0"}], ids=str
)
def test_a_broken_environment_is_one_clear_line(broken: dict[str, str]) -> None:
    with pytest.raises(BadInput, match="launcher's environment"):
        find_place({**TORCHRUN, **broken})


@pytest.mark.parametrize(
    ("nodes", "first"),
    [
        ("node1", "node1"),
        ("node1,node2", "node1"),
        ("gpu[07-09,12],login", "gpu07"),
        ("r1[3,5]-ib", "r13-ib"),
        ("a-b[001-128]", "a-b001"),
    ],
)
def test_first_host_of_a_node_list(nodes: str, first: str) -> None:
    assert first_host(nodes) == first


def test_alone_one_gives_back_ones_own_group_and_nobody_elses() -> None:
    import torch.distributed as dist

    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)  # as an engine of vLLM does
    try:
        ALONE.ensure_process_group()
        ALONE.leave()
        assert dist.is_initialized()
    finally:
        dist.destroy_process_group()
    ALONE.ensure_process_group()
    assert dist.is_initialized()
    ALONE.leave()
    assert not dist.is_initialized()
