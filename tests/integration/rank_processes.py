"""Ranks as processes: run one function on each, let it write what the test reads."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable
from typing import Any

import torch

from tests.integration.launching import fork_server


def on_ranks(world: int, work: Callable[..., None], *arguments: Any) -> None:
    """Call `work(ranks, *arguments)` in `world` new processes and wait; what one of them raises is raised here."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    fork_server()  # says what it is to load, before its first process
    torch.multiprocessing.start_processes(  # type: ignore[no-untyped-call]
        _rank, args=(world, port, work, arguments), nprocs=world, start_method="forkserver"
    )


def _rank(rank: int, world: int, port: int, work: Callable[..., None], arguments: tuple[Any, ...]) -> None:
    from memfactory.core.ranks import join_ranks

    torch.set_num_threads(1)
    os.environ.update(
        RANK=str(rank),
        WORLD_SIZE=str(world),
        LOCAL_RANK=str(rank),
        MASTER_ADDR="127.0.0.1",
        MASTER_PORT=str(port),
        OMP_NUM_THREADS="1",
    )
    ranks = join_ranks()
    work(ranks, *arguments)
    ranks.leave()
