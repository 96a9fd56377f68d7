"""Two batches begun at a time: batches that the test ends by hand, on a clock that it moves."""

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from concurrent.futures import Executor, Future
from contextlib import asynccontextmanager
from typing import Any

import pytest
from made_up import MS, small_table

from server.batcher import Answer, Batcher
from server.budget import Budget
from server.controller import Controller, Plan
from server.errors import DeadlinePassed, InternalError
from server.queue import DeadlineQueue

ROWS = 4
Asked = asyncio.Task[Answer[str]]


class Noted(Controller):
    """Keeps as of when it planned, and how long batches are said to have taken."""

    def __init__(self) -> None:
        super().__init__(small_table(), max_batch=ROWS, slo=10.0)
        self.moments: list[float] = []
        self.seconds: list[float] = []

    def plan(self, waiting: DeadlineQueue[Any], now: float, headroom: float = 1.0, *, crowded: bool = False) -> Plan:
        self.moments.append(now)
        return super().plan(waiting, now, headroom, crowded=crowded)

    def observe(self, plan: Plan, seconds: float) -> None:
        self.seconds.append(seconds)
        super().observe(plan, seconds)


class ByHand(Executor):
    """Keeps what it is given; nothing is done before the test says so."""

    def __init__(self) -> None:
        self.begun: list[Future[Any]] = []
        self.images: list[list[str]] = []

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        future: Future[Any] = Future()
        self.begun.append(future)
        self.images.append(list(args[0]))
        return future

    def end(self, number: int, error: Exception | None = None) -> None:
        """That batch ends now."""
        if error:
            self.begun[number].set_exception(error)
        else:
            self.begun[number].set_result([f"answer to {image}" for image in self.images[number]])


class Never:
    """An engine that only the executor could ask."""

    def run(self, images: Sequence[str], stitches: Sequence[int]) -> list[str]:
        raise AssertionError


class House:
    """A running batcher and all that it stands on."""

    def __init__(self, lanes: int) -> None:
        self.now = 1000.0
        self.controller, self.hands = Noted(), ByHand()
        self.batcher: Batcher[str, str] = Batcher(
            Never(), self.controller, self.hands, lanes=lanes, clock=lambda: self.now
        )
        self.any = self.controller.allow(Budget())

    async def ask(self, *images: str, slack: float = 10.0) -> list[Asked]:
        """Requests that have come in, in this order."""
        deadline = self.now + slack
        tasks = [asyncio.create_task(self.batcher.submit(image, self.any, deadline)) for image in images]
        await self.settle()
        return tasks

    async def end(self, number: int, error: Exception | None = None) -> None:
        self.hands.end(number, error)
        await self.settle()

    async def settle(self) -> None:
        """Until nothing moves any more: every step of these tasks takes a turn or two of the loop."""
        for _ in range(20):
            await asyncio.sleep(0)


@asynccontextmanager
async def house(lanes: int = 2) -> AsyncIterator[House]:
    built = House(lanes)
    dispatch = asyncio.create_task(built.batcher.run())
    yield built
    built.batcher.stop()
    for _ in range(9):
        for number, future in enumerate(built.hands.begun):
            if not future.done():
                built.hands.end(number)
        await built.settle()
    assert dispatch.done()
    await dispatch


def test_another_batch_is_begun_beside_one_only_when_it_is_full() -> None:
    async def scenario() -> None:
        async with house() as home:
            await home.ask("a")
            await home.ask("b", "c", "d")
            assert home.hands.images == [["a"]], "waiting may add a row"
            await home.ask("urgent", slack=5.0)
            assert home.hands.images == [["a"], ["urgent", "b", "c", "d"]]

    asyncio.run(scenario())


def test_no_more_are_begun_than_there_are_lanes_and_the_first_to_end_makes_place() -> None:
    async def scenario() -> None:
        async with house() as home:
            await home.ask("a")
            rest = await home.ask(*(f"{number}" for number in range(11)))
            assert [len(images) for images in home.hands.images] == [1, 4]
            await home.end(0)
            assert [len(images) for images in home.hands.images] == [1, 4, 4]
            await home.end(1)
            assert [len(images) for images in home.hands.images] == [1, 4, 4], "three do not fill a batch"
            await home.end(2)
            assert [len(images) for images in home.hands.images] == [1, 4, 4, 3]
            await home.end(3)
            answers = await asyncio.gather(*rest)
            assert [answer.result for answer in answers] == [f"answer to {number}" for number in range(11)]

    asyncio.run(scenario())


def test_with_one_lane_a_full_batch_waits_until_the_engine_is_free() -> None:
    async def scenario() -> None:
        async with house(lanes=1) as home:
            await home.ask("a")
            await home.ask(*"bcdefghi")
            assert home.hands.images == [["a"]]
            home.now += 0.5
            await home.end(0)
            assert home.hands.images == [["a"], [*"bcde"]]
            assert home.controller.moments == [1000.0, 1000.5]

    asyncio.run(scenario())


def test_the_second_is_planned_as_of_when_the_first_should_end() -> None:
    async def scenario() -> None:
        async with house() as home:
            await home.ask("a")
            assert home.batcher.predicted == pytest.approx(4 * MS)
            home.now += 1 * MS
            await home.ask(*"bcde")
            assert home.controller.moments == [1000.0, pytest.approx(1000.0 + 4 * MS, abs=1e-9)]

    asyncio.run(scenario())


def test_its_requests_get_only_what_fits_behind_the_first() -> None:
    async def scenario() -> None:
        async with house() as home:
            await home.ask("a")
            tasks = await home.ask(*"bcde", slack=4 * MS + 5 * MS)
            await home.end(0)
            await home.end(1)
            assert {(await task).entry.stitch for task in tasks} == {0}, "four rows of 1 ms in the 5 ms that are left"

    asyncio.run(scenario())


def test_one_that_overruns_is_expected_to_end_now() -> None:
    async def scenario() -> None:
        async with house() as home:
            await home.ask("a")
            home.now += 1.0
            assert home.batcher.running == 0.0
            await home.ask(*"bcde")
            assert home.controller.moments[1] == home.now

    asyncio.run(scenario())


def test_each_is_said_to_have_taken_the_time_in_which_the_engine_was_its_own() -> None:
    async def scenario() -> None:
        async with house() as home:
            await home.ask("a")
            home.now += 1.0
            (answer, *_) = await home.ask(*"bcde")
            home.now += 2.0
            await home.end(0)
            home.now += 0.5
            await home.end(1)
            assert home.controller.seconds == [3.0, 0.5]
            assert ((await answer).queue, (await answer).compute) == (2.0, 0.5)

    asyncio.run(scenario())


def test_the_first_that_runs_tells_whether_the_engine_hangs() -> None:
    async def scenario() -> None:
        async with house() as home:
            await home.ask("a")
            home.now += 1 * MS
            await home.ask(*"bcde")
            batcher, first = home.batcher, 4 * MS
            assert batcher.running_since == 1000.0
            assert batcher.predicted == pytest.approx(first)
            assert batcher.running_floor == pytest.approx(5 * MS)
            second = batcher.running - 3 * MS
            assert second > 3 * MS
            home.now += 9.0
            assert batcher.running == pytest.approx(second), "the second still has all before it"
            await home.end(0)
            assert batcher.running_since == home.now
            assert batcher.predicted == pytest.approx(second)
            assert batcher.running == pytest.approx(second)
            assert batcher.running_floor == pytest.approx(4 * MS)
            await home.end(1)
            assert (batcher.predicted, batcher.running, batcher.running_floor) == (0.0, 0.0, 0.0)

    asyncio.run(scenario())


def test_a_second_that_ends_before_the_first_leaves_it_as_it_was() -> None:
    async def scenario() -> None:
        async with house() as home:
            (first,) = await home.ask("a")
            home.now += 1.0
            await home.ask(*"bcde")
            home.now += 1.0
            await home.end(1)
            assert home.batcher.running_since == 1000.0
            home.now += 1.0
            await home.end(0)
            assert home.controller.seconds == [1.0, 3.0]
            assert (await first).result == "answer to a"

    asyncio.run(scenario())


def test_a_batch_that_fails_leaves_the_one_behind_it() -> None:
    async def scenario() -> None:
        async with house() as home:
            (first,) = await home.ask("a")
            others = await home.ask(*"bcde")
            home.now += 1.0
            await home.end(0, RuntimeError("out of luck"))
            with pytest.raises(InternalError, match="out of luck"):
                await first
            assert home.batcher.failed_in_a_row == 1
            assert home.batcher.running_since == home.now
            await home.end(1)
            assert home.batcher.failed_in_a_row == 0
            assert [(await task).result for task in others] == [f"answer to {image}" for image in "bcde"]

    asyncio.run(scenario())


def test_late_ones_are_refused_when_the_lanes_look_again() -> None:
    async def scenario() -> None:
        async with house() as home:
            await home.ask("a")
            (late,) = await home.ask("late", slack=1.0)
            home.now += 2.0
            await home.ask(*"bcd")
            assert home.hands.images == [["a"]], "the late one fills no batch"
            with pytest.raises(DeadlinePassed):
                await late

    asyncio.run(scenario())


def test_stopping_answers_what_both_lanes_hold_and_what_waits() -> None:
    async def scenario() -> None:
        async with house() as home:
            tasks = await home.ask("a")
            tasks += await home.ask(*"bcdefgh")
            home.batcher.stop()
            for number in range(3):
                await home.end(number)
            assert len(await asyncio.gather(*tasks)) == 8
            assert home.hands.images == [["a"], [*"bcde"], [*"fgh"]]

    asyncio.run(scenario())
