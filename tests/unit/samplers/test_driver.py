"""The loop between agents and an engine, with engines that are scripts."""

from __future__ import annotations

import asyncio
import gc
import math
from collections.abc import Sequence
from dataclasses import replace

import pytest

from memfactory.core.errors import ServiceError, TaskError
from memfactory.core.types import Completion, SamplingParams, SamplingRequest
from memfactory.samplers.driver import Driver


def request(steps: int) -> SamplingRequest:
    """A request that `CountingEngine` finishes after so many steps."""
    return SamplingRequest((steps,), SamplingParams(), seed=0)


class CountingEngine:
    """Finishes each request after as many steps as its only prompt id says; logs what happens."""

    def __init__(self) -> None:
        self.left: dict[int, int] = {}
        self.log: list[str] = []
        self.failing_step: Exception | None = None

    def add(self, number: int, request: SamplingRequest) -> None:
        if request.prompt_ids[0] == 13:
            raise TaskError("thirteen")
        if request.prompt_ids[0] == 666:
            raise ValueError("broken\nsecond line")
        self.left[number] = request.prompt_ids[0]
        self.log.append(f"add {number}")

    def abort(self, numbers: Sequence[int]) -> None:
        for number in numbers:
            self.left.pop(number, None)
            self.log.append(f"abort {number}")

    def step(self) -> list[tuple[int, Completion]]:
        if self.failing_step:
            raise self.failing_step
        self.log.append("step " + ",".join(map(str, self.left)))
        self.left = {n: k - 1 for n, k in self.left.items()}
        done = [n for n, k in self.left.items() if k <= 0]
        for number in done:
            del self.left[number]
        # Out of order on purpose: the driver must put them right.
        return [(n, Completion((n,), (0.0,), "stop")) for n in reversed(done)]


@pytest.mark.parametrize("odd", [math.nan, math.inf, -math.inf])
def test_a_log_probability_that_is_no_number_is_one_line_and_no_completion(odd: float) -> None:
    class Diverged(CountingEngine):
        def step(self) -> list[tuple[int, Completion]]:
            return [
                (n, replace(completion, logprobs=(odd,)) if n == 1 else completion)
                for n, completion in super().step()
            ]

    first, second, third = run(Driver(Diverged(), "fake"), 1, 2, 3)
    assert isinstance(first, Completion) and isinstance(third, Completion)
    assert isinstance(second, ServiceError)
    assert str(second).startswith("the fake engine computes log-probabilities that are no numbers")


@pytest.fixture
def engine() -> CountingEngine:
    return CountingEngine()


@pytest.fixture
def driver(engine: CountingEngine) -> Driver:
    return Driver(engine, "fake")


def run(driver: Driver, *steps: int) -> list[object]:
    async def main() -> list[object]:
        return await asyncio.gather(*(driver.submit(request(k)) for k in steps), return_exceptions=True)

    return asyncio.run(main())


def test_requests_of_one_turn_share_steps(engine: CountingEngine, driver: Driver) -> None:
    results = run(driver, 1, 2, 1)
    assert [r.token_ids for r in results] == [(0,), (1,), (2,)]  # type: ignore[attr-defined]
    assert engine.log == ["add 0", "add 1", "add 2", "step 0,1,2", "step 1"]
    assert driver.idle


def test_an_agent_joins_the_very_next_step(engine: CountingEngine, driver: Driver) -> None:
    async def agent(turns: int) -> None:
        for _ in range(turns):
            await asyncio.wait_for(driver.submit(request(1)), timeout=10)  # a few loop turns each
            await asyncio.sleep(0)

    async def main() -> None:
        await asyncio.gather(agent(3), agent(1), driver.submit(request(3)))

    asyncio.run(main())
    steps = [line for line in engine.log if line.startswith("step")]
    assert steps == ["step 0,1,2", "step 0,3", "step 0,4"]


def test_finished_requests_resolve_in_order_of_arrival(driver: Driver) -> None:
    order: list[int] = []

    async def agent(number: int) -> None:
        await driver.submit(request(1))
        order.append(number)

    async def main() -> None:
        await asyncio.gather(*(agent(n) for n in range(20)))

    asyncio.run(main())
    assert order == list(range(20))


def test_an_agent_that_never_rests_does_not_hold_up_the_others(driver: Driver) -> None:
    async def main() -> Completion:
        async def busy() -> None:
            while True:
                await asyncio.sleep(0)

        task = asyncio.create_task(busy())
        try:
            return await asyncio.wait_for(driver.submit(request(3)), timeout=10)
        finally:
            task.cancel()

    assert asyncio.run(main()).token_ids == (0,)


def test_a_refused_request_fails_alone(driver: Driver) -> None:
    first, refused, last = run(driver, 1, 13, 2)
    assert isinstance(refused, TaskError)
    assert isinstance(first, Completion)
    assert isinstance(last, Completion)


def test_an_engine_error_fails_all_and_stays(engine: CountingEngine, driver: Driver) -> None:
    engine.failing_step = RuntimeError("out of memory\nwith a long story")
    results = run(driver, 1, 2, 3)
    assert [str(r) for r in results] == ["the fake engine failed: out of memory"] * 3
    assert all(isinstance(r, ServiceError) for r in results)
    engine.failing_step = None
    assert isinstance(run(driver, 1)[0], ServiceError)


def test_an_engine_that_breaks_while_taking_a_request_fails_all(driver: Driver) -> None:
    assert [type(r) for r in run(driver, 1, 666, 2)] == [ServiceError] * 3


def test_cancelled_agents_are_aborted(engine: CountingEngine, driver: Driver) -> None:
    async def main() -> None:
        slow = asyncio.create_task(driver.submit(request(1000)))
        await driver.submit(request(2))
        slow.cancel()
        await driver.submit(request(2))

    asyncio.run(main())
    assert "abort 1" in engine.log
    assert not engine.left


def test_a_loop_that_ends_in_the_middle_leaves_nothing_behind(
    engine: CountingEngine, driver: Driver, recwarn: pytest.WarningsRecorder
) -> None:
    async def main() -> None:
        task = asyncio.create_task(driver.submit(request(1000)))
        await driver.submit(request(3))
        assert not task.done()

    asyncio.run(main())
    assert driver.idle
    assert not engine.left
    assert isinstance(run(driver, 2)[0], Completion)
    gc.collect()
    assert not [w for w in recwarn if "never" in str(w.message)]


def test_a_loop_that_was_dropped_unclosed_does_not_matter(engine: CountingEngine, driver: Driver) -> None:
    loop = asyncio.new_event_loop()
    task = loop.create_task(driver.submit(request(1000)))
    loop.run_until_complete(asyncio.sleep(0.01))
    assert isinstance(run(driver, 2)[0], Completion)
    assert not engine.left
    task.cancel()
    loop.run_until_complete(asyncio.gather(task, return_exceptions=True))
    loop.close()
    assert isinstance(run(driver, 2)[0], Completion)
