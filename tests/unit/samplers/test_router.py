"""Which server gets a request, and what becomes of it when that server fails."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import pytest
from hypothesis import given
from hypothesis import strategies as st

from memfactory.core.errors import ServiceError, TaskError
from memfactory.core.types import Completion, SamplingParams, SamplingRequest
from memfactory.samplers.router import ATTEMPTS, Router, ServerFailed


class FakeServer:
    """Answers after `seconds`; fails as long as `down`, until it is recovered."""

    def __init__(self, name: str, seconds: float = 0.0) -> None:
        self.name = name
        self.seconds = seconds
        self.down = False
        self.poison: set[int] = set()
        self.beyond_help = False
        self.asked: list[int] = []
        self.recoveries = 0
        self.threads: set[str] = set()

    async def complete(self, request: SamplingRequest) -> Completion:
        self.asked.append(request.seed)
        await asyncio.sleep(self.seconds)
        if request.seed in self.poison:
            raise TaskError("too long")
        if self.down:
            raise ServerFailed(f"{self.name} is gone")
        return Completion((request.seed,), (-1.0,), "stop")

    def recover(self) -> None:
        self.recoveries += 1
        self.threads.add(threading.current_thread().name)
        time.sleep(0.005)
        if self.beyond_help:
            raise ServiceError(f"{self.name} does not come back")
        self.down = False


@contextmanager
def routed(*servers: FakeServer) -> Iterator[Router]:
    router = Router(servers)
    try:
        yield router
    finally:
        router.close()


def request(seed: int, prompt: int = 1, completion: int = 1) -> SamplingRequest:
    return SamplingRequest((0,) * prompt, SamplingParams(max_tokens=completion), seed, label=f"call {seed}")


def submit(router: Router, requests: Sequence[SamplingRequest]) -> list[Completion | BaseException]:
    async def main() -> list[Completion | BaseException]:
        return await asyncio.gather(*(router.submit(r) for r in requests), return_exceptions=True)

    return asyncio.run(main())


def seeds(answers: Sequence[Completion | BaseException]) -> list[int]:
    assert all(isinstance(answer, Completion) for answer in answers), answers
    return [answer.token_ids[0] for answer in answers if isinstance(answer, Completion)]


def test_the_server_with_the_fewest_tokens_under_way_is_asked() -> None:
    a, b = FakeServer("a", 0.02), FakeServer("b", 0.02)
    with routed(a, b) as router:
        # 100 tokens to a; then 10, 20 and 60 to b (0, 10, 30 < 100); 90 < 100: b again; 100 < 95 + ...: a.
        sizes = [(60, 40), (5, 5), (10, 10), (30, 30), (5, 15), (1, 1)]
        submit(router, [request(n, *size) for n, size in enumerate(sizes)])
        assert (a.asked, b.asked) == ([0, 5], [1, 2, 3, 4])
        assert router.idle


def test_a_slow_request_holds_nobody_up() -> None:
    slow, fast = FakeServer("slow", 2), FakeServer("fast")
    with routed(slow, fast) as router:

        async def main() -> None:
            hanging = asyncio.create_task(router.submit(request(0, 50, 50)))
            await asyncio.sleep(0)
            for seed in range(1, 20):
                await router.submit(request(seed))
            assert not hanging.done()
            await hanging

        asyncio.run(main())
    assert (slow.asked, fast.asked) == ([0], list(range(1, 20)))


def test_requests_of_a_lost_server_are_answered_once_by_another() -> None:
    a, b = FakeServer("a", 0.01), FakeServer("b", 0.01)
    a.down = True
    with routed(a, b) as router:
        assert seeds(submit(router, [request(n) for n in range(20)])) == list(range(20))
        assert sorted(b.asked) == list(range(20))
        assert a.recoveries == 1  # ten requests failed there, and it was had back once
        assert router.retries == 10
        a.asked.clear()
        assert seeds(submit(router, [request(n) for n in range(4)])) == [0, 1, 2, 3]
        assert a.asked == [0, 2]  # it takes part again
        assert {name.split("_")[0] for name in a.threads} == {"keeper-0"}


def test_without_another_server_requests_wait() -> None:
    a = FakeServer("a")
    a.down = True
    with routed(a) as router:
        assert seeds(submit(router, [request(n) for n in range(5)])) == list(range(5))


def test_what_cannot_be_had_back_is_reported_in_one_line() -> None:
    a, b = FakeServer("a"), FakeServer("b")
    a.down = b.down = a.beyond_help = b.beyond_help = True
    with routed(a, b) as router:
        answers = submit(router, [request(n) for n in range(6)])
        assert all(isinstance(answer, ServiceError) for answer in answers)
        assert {str(answer) for answer in answers} <= {"a does not come back", "b does not come back"}
        with pytest.raises(ServiceError, match="does not come back"):
            router.refresh()
        a.beyond_help = b.beyond_help = False
        router.refresh()
        assert seeds(submit(router, [request(1)])) == [1]


def test_a_request_that_fails_everywhere_ends() -> None:
    a = FakeServer("a")

    def never() -> None:
        a.recoveries += 1

    a.down, a.recover = True, never  # type: ignore[method-assign]
    with routed(a) as router:
        (answer,) = submit(router, [request(7)])
        assert isinstance(answer, ServiceError)
        assert "call 7 failed on" in str(answer)
    assert len(a.asked) == ATTEMPTS


def test_a_request_that_is_refused_is_not_asked_again() -> None:
    a, b = FakeServer("a"), FakeServer("b")
    a.poison = {1}
    with routed(a, b) as router:
        (answer,) = submit(router, [request(1)])
        assert isinstance(answer, TaskError)
        assert (a.recoveries, b.asked) == (0, [])


def test_one_server_can_be_asked_alone() -> None:
    a, b = FakeServer("a"), FakeServer("b")
    with routed(a, b) as router:
        assert asyncio.run(router.submit(request(3), only=1)).token_ids == (3,)
        assert (a.asked, b.asked) == ([], [3])


def test_a_cancelled_request_leaves_no_load_behind() -> None:
    a = FakeServer("a", 10.0)
    with routed(a) as router:

        async def main() -> None:
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.02):
                    await router.submit(request(1))

        asyncio.run(main())
        assert router.idle


@given(st.lists(st.tuples(st.integers(0, 2), st.booleans()), max_size=12), st.integers(1, 12))
def test_whatever_fails_each_request_is_answered_exactly_once(
    faults: list[tuple[int, bool]], count: int
) -> None:
    servers = [FakeServer(name) for name in "abc"]
    with routed(*servers) as router:

        async def main() -> list[Completion]:
            async def trouble() -> None:
                for number, pause in faults:
                    servers[number].down = True
                    await asyncio.sleep(0.001 if pause else 0)

            answers, _ = await asyncio.gather(
                asyncio.gather(*(patient(seed) for seed in range(count))), trouble()
            )
            return answers

        async def patient(seed: int) -> Completion:
            while True:
                try:
                    return await router.submit(request(seed))
                except ServiceError:  # as often as there are attempts
                    continue

        assert seeds(asyncio.run(main())) == list(range(count))
        assert router.idle
