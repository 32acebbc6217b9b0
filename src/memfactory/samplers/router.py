"""Requests over several servers: by load, again elsewhere when one fails, and back when it has recovered.

A request is one awaited call until some server has answered it, so it is never counted twice and never lost: either
its completion comes, or an error that says why no server could give one. Which server answers cannot change a draw
(`draw.py`): only rounding, in batches of another size, can.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from typing import Protocol, TypeVar

from memfactory.core.errors import ServiceError
from memfactory.core.types import Completion, SamplingRequest

T = TypeVar("T")

#: Attempts of one request: one that takes down every server it comes to must end some time.
ATTEMPTS = 4


class ServerFailed(Exception):
    """A server gave no usable answer: it is gone, hangs, or holds other weights. The request may go elsewhere."""


class Server(Protocol):
    """One engine behind a URL."""

    name: str

    async def complete(self, request: SamplingRequest) -> Completion:
        """Ask once. Raises `ServerFailed` when another server should be asked, `TaskError` when none should."""
        ...

    def recover(self) -> None:
        """Make it serve the current weights again, whatever that takes; blocks.

        Raises `ServiceError`, in one line, when it cannot be had back within its time limit.
        """
        ...


@dataclass
class _Place:
    """A server and what the router knows of it."""

    server: Server
    keeper: ThreadPoolExecutor
    outstanding: int = 0
    """Tokens of requests under way: prompt plus the most that may be sampled."""
    generation: int = 0
    """How often it was recovered: a failure from before the last recovery starts no further one."""
    recovery: Future[None] | None = None
    gone: str | None = None
    requests: int = 0


class Router:
    """Spreads requests by least outstanding tokens; works with any number of successive event loops."""

    def __init__(self, servers: Sequence[Server], attempts: int = ATTEMPTS) -> None:
        # Each server has a thread that lives as long as the router: Linux ends a child process together with the
        # *thread* that started it (`server_guard`), so a server must not be restarted from a passing one.
        self._places = [
            _Place(server, ThreadPoolExecutor(1, thread_name_prefix=f"keeper-{number}"))
            for number, server in enumerate(servers)
        ]
        self._attempts = attempts
        self.retries = 0
        """Requests that had to be asked again, so far."""
        self.recoveries = 0
        """Times a server was found failing, so far."""

    @property
    def idle(self) -> bool:
        """True when no request is under way."""
        return all(place.requests == 0 for place in self._places)

    async def submit(self, request: SamplingRequest, only: int | None = None) -> Completion:
        """Await the completion of one request, from server number `only` if that is given.

        Raises `TaskError` when a server refuses it, `ServiceError` when no server is left, or when the request
        failed on as many as `ATTEMPTS`.
        """
        places = self._places if only is None else [self._places[only]]
        cost = len(request.prompt_ids) + request.params.max_tokens
        for attempt in range(1, self._attempts + 1):
            place = await self._choose(places)
            generation = place.generation
            place.outstanding += cost
            place.requests += 1
            try:
                return await place.server.complete(request)
            except ServerFailed as error:
                self._lose(place, generation)
                if attempt == self._attempts:
                    raise ServiceError(
                        f"{request.label or 'a request'} failed on {attempt} attempts; last: {error}"
                    ) from error
                self.retries += 1
            finally:
                place.outstanding -= cost
                place.requests -= 1
        raise AssertionError("unreachable: the last attempt raises")

    def refresh(self) -> None:
        """Let every server recover, also those that were given up; blocks. For calls between rollouts.

        Raises `ServiceError` when one cannot be had back.
        """
        for place in self._places:
            if place.recovery is not None:
                place.recovery.exception()  # waits; what it says is said again by the next try
            place.gone, place.recovery = None, place.keeper.submit(place.server.recover)
        for place in self._places:
            if place.recovery is not None:
                place.recovery.exception()
                self._settle(place)
        gone = [place.gone for place in self._places if place.gone is not None]
        if gone:
            raise ServiceError(gone[0])

    def each(self, work: Callable[[int], T]) -> list[T]:
        """`work(number)` for every server at once, each on its own thread; blocks. Raises what the first raised."""
        futures = [place.keeper.submit(work, number) for number, place in enumerate(self._places)]
        wait(futures)
        return [future.result() for future in futures]

    def close(self) -> None:
        """Let the threads go; recoveries under way are waited for."""
        for place in self._places:
            place.keeper.shutdown(wait=True, cancel_futures=True)

    async def _choose(self, places: Sequence[_Place]) -> _Place:
        while True:
            for place in places:
                self._settle(place)
            ready = [place for place in places if place.recovery is None and place.gone is None]
            if ready:
                return min(ready, key=lambda place: place.outstanding)  # of equals the first
            waiting = [asyncio.wrap_future(place.recovery) for place in places if place.recovery is not None]
            if not waiting:
                raise ServiceError(next(place.gone for place in places if place.gone is not None))
            done, _ = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
            for future in done:
                future.exception()  # `_settle` deals with it; asyncio only wants it looked at

    def _lose(self, place: _Place, generation: int) -> None:
        if place.recovery is None and place.gone is None and place.generation == generation:
            self.recoveries += 1
            place.recovery = place.keeper.submit(place.server.recover)

    def _settle(self, place: _Place) -> None:
        """Take note of a recovery that has ended."""
        if place.recovery is None or not place.recovery.done():
            return
        error = place.recovery.exception()
        place.recovery = None
        if error is None:
            place.generation += 1
        elif isinstance(error, ServiceError):
            place.gone = str(error)
        else:
            raise error
