"""The queue and the dispatch loop, with a fake engine and a clock that the test moves."""

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from dataclasses import replace
from threading import Event

import pytest

from lookup_tables.table import Latency, LookupTable, Measurement, folder
from server.batcher import Batcher
from server.budget import Budget
from server.controller import Controller, Plan
from server.errors import DeadlinePassed, Draining, InternalError, Overloaded
from server.tenants import ANYONE, Tenant


class Clock:
    """Stands still until told."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


class Engine:
    """Answers each image with itself; while `gate` is closed a batch does not end."""

    def __init__(self) -> None:
        self.batches: list[tuple[list[str], list[int]]] = []
        self.gate, self.entered = Event(), Event()
        self.gate.set()
        self.failure: Exception | None = None

    def run(self, images: Sequence[str], stitches: Sequence[int]) -> list[str]:
        self.batches.append((list(images), list(stitches)))
        self.entered.set()
        assert self.gate.wait(30)
        if self.failure:
            raise self.failure
        return [f"answer to {image}" for image in images]


class House:
    """A running batcher and all that it stands on."""

    def __init__(self, table: LookupTable, thread: ThreadPoolExecutor, max_batch: int) -> None:
        self.engine, self.clock, self.controller = Engine(), Clock(), Controller(table, max_batch=max_batch, slo=10.0)
        self.rows: list[int] = []
        self.reasons: list[str] = []
        self.batcher: Batcher[str, str] = Batcher(
            self.engine, self.controller, thread, on_batch=self.note, clock=self.clock
        )
        self.any = self.controller.allow(Budget())

    def note(self, plan: Plan) -> None:
        self.rows.append(len(plan.entries))
        self.reasons.append(plan.reason)

    def submit(self, image: str, slack: float = 10.0, tenant: Tenant = ANYONE) -> "asyncio.Task[object]":
        return asyncio.create_task(self.batcher.submit(image, self.any, self.clock.now + slack, tenant))

    async def until_running(self) -> None:
        await asyncio.get_running_loop().run_in_executor(None, self.engine.entered.wait, 30)
        self.engine.entered.clear()

    async def until(self, condition: Callable[[], bool]) -> None:
        while not condition():
            await asyncio.sleep(0)

    async def until_queued(self, count: int) -> None:
        await self.until(lambda: self.batcher.queued >= count)


@asynccontextmanager
async def house(table: LookupTable, max_batch: int = 4) -> AsyncIterator[House]:
    with ThreadPoolExecutor(1) as thread:
        built = House(table, thread, max_batch)
        loop = asyncio.create_task(built.batcher.run())
        yield built
        built.engine.gate.set()
        built.batcher.stop()
        await loop


@pytest.fixture
def table() -> LookupTable:
    shipped = LookupTable.load(folder("deit_ti_s_b"))
    times = tuple(Measurement(e.stitch, 1, e.flops * 1e-12, e.flops * 1e-12, 100) for e in shipped.entries)
    return replace(shipped, latency=Latency("made-up", times, {}))


def test_a_lone_request_is_answered_with_its_choice_and_times(table: LookupTable) -> None:
    async def scenario() -> None:
        async with house(table) as home:
            answer = await home.batcher.submit("a", home.any, home.clock.now + 10)
            assert answer.result == "answer to a"
            assert answer.entry is home.controller.frontier[-1]
            assert (answer.queue, answer.compute) == (0.0, 0.0)
            assert home.rows == [1]

    asyncio.run(scenario())


def test_a_batch_forms_while_another_runs_most_urgent_first(table: LookupTable) -> None:
    async def scenario() -> None:
        async with house(table) as home:
            home.engine.gate.clear()
            first = home.submit("first")
            await home.until_running()
            later = [home.submit(f"slack {slack}", slack) for slack in (9.0, 5.0, 7.0, 6.0, 8.0)]
            await home.until_queued(5)
            home.engine.gate.set()
            await asyncio.gather(first, *later)
            batches = [images for images, _ in home.engine.batches]
            assert batches == [["first"], ["slack 5.0", "slack 6.0", "slack 7.0", "slack 8.0"], ["slack 9.0"]]
            assert home.rows == [1, 4, 1]
            assert home.reasons == ["drained", "full", "drained"]

    asyncio.run(scenario())


def test_a_caller_that_left_is_not_run(table: LookupTable) -> None:
    async def scenario() -> None:
        async with house(table) as home:
            home.engine.gate.clear()
            first = home.submit("first")
            await home.until_running()
            leaving, staying = home.submit("leaving"), home.submit("staying")
            await home.until_queued(2)
            leaving.cancel()
            await home.until(lambda: home.batcher.queued == 1)
            home.engine.gate.set()
            await asyncio.gather(first, staying)
            assert [images for images, _ in home.engine.batches] == [["first"], ["staying"]]

    asyncio.run(scenario())


def test_a_late_request_is_refused_without_being_run(table: LookupTable) -> None:
    async def scenario() -> None:
        async with house(table) as home:
            home.engine.gate.clear()
            first = home.submit("first")
            await home.until_running()
            late, patient = home.submit("late", slack=0.5), home.submit("patient")
            await home.until_queued(2)
            home.clock.now += 1.0
            assert home.batcher.oldest == 1.0
            home.engine.gate.set()
            with pytest.raises(DeadlinePassed) as refusal:
                await late
            assert refusal.value.extra["queue_ms"] == 1000.0
            await asyncio.gather(first, patient)
            assert [images for images, _ in home.engine.batches] == [["first"], ["patient"]]

    asyncio.run(scenario())


def test_whoever_cannot_be_in_time_any_more_is_refused_for_those_who_can(table: LookupTable) -> None:
    """The cheapest stitch takes 1.3 ms: of two due in 1 ms and four due in a second the two are lost."""

    async def scenario() -> None:
        async with house(table) as home:
            home.engine.gate.clear()
            first = home.submit("first")
            await home.until_running()
            lost = [home.submit(f"lost {number}", slack=0.001) for number in range(2)]
            kept = [home.submit(f"kept {number}", slack=1.0) for number in range(4)]
            await home.until_queued(6)
            home.engine.gate.set()
            for task in lost:
                with pytest.raises(Overloaded, match="even with the cheapest") as refusal:
                    await task
                assert refusal.value.retry_after is not None
            await asyncio.gather(first, *kept)
            assert home.engine.batches[1][0] == [f"kept {number}" for number in range(4)]

    asyncio.run(scenario())


def test_whose_tenant_has_more_than_its_share_leaves_for_those_within_theirs(table: LookupTable) -> None:
    async def scenario() -> None:
        async with house(table) as home:
            home.engine.gate.clear()
            first = home.submit("first")
            await home.until_running()
            flood = [home.submit("a", 0.02, Tenant("shop")) for _ in range(25)]
            few = [home.submit("b", 0.02) for _ in range(5)]
            await home.until_queued(30)
            home.engine.gate.set()
            await asyncio.gather(first, *few)
            outcomes = await asyncio.gather(*flood, return_exceptions=True)
            shed = [(out.reason, out.stage) for out in outcomes if isinstance(out, Overloaded)]
            assert shed == [("share", "queue")] * 12, "eighteen of the thirty can be in time"

    asyncio.run(scenario())


def test_what_runs_and_for_how_long_can_be_asked(table: LookupTable) -> None:
    async def scenario() -> None:
        async with house(table) as home:
            assert (home.batcher.running, home.batcher.running_floor) == (0.0, 0.0)
            home.engine.gate.clear()
            first = home.submit("first")
            await home.until_running()
            assert home.batcher.running == pytest.approx(home.batcher.predicted)
            assert home.batcher.predicted > 0
            assert home.batcher.running_floor == home.any.floor
            home.clock.now += 100.0
            assert home.batcher.running == 0.0
            home.engine.gate.set()
            await first
            assert home.batcher.running_since is None

    asyncio.run(scenario())


def test_a_failing_batch_fails_its_own_and_nothing_else(table: LookupTable) -> None:
    async def scenario() -> None:
        async with house(table) as home:
            home.engine.failure = RuntimeError("device lost")
            drift = home.controller.drift.center
            with pytest.raises(InternalError, match="device lost"):
                await home.submit("doomed")
            assert home.controller.drift.center == drift, "nothing is learned from a failed batch"
            home.engine.failure = None
            await home.submit("fine")
            assert home.rows == [1]

    asyncio.run(scenario())


def test_stopping_answers_what_is_queued_and_refuses_the_rest(table: LookupTable) -> None:
    async def scenario() -> None:
        async with house(table) as home:
            home.engine.gate.clear()
            first = home.submit("first")
            await home.until_running()
            second = home.submit("second")
            await home.until_queued(1)
            home.batcher.stop()
            with pytest.raises(Draining):
                await home.submit("too late to come")
            home.engine.gate.set()
            await asyncio.gather(first, second)

    asyncio.run(scenario())


def test_the_stitches_run_are_the_ones_told(table: LookupTable) -> None:
    async def scenario() -> None:
        async with house(table) as home:
            allowed = [home.controller.allow(Budget(stitch=i)) for i in (2, 0, 1)]
            home.engine.gate.clear()
            first = home.submit("first")
            await home.until_running()
            tasks = [
                asyncio.create_task(home.batcher.submit(f"pinned {a.entries[0].stitch}", a, home.clock.now + 10 + n))
                for n, a in enumerate(allowed)
            ]
            await home.until_queued(3)
            home.engine.gate.set()
            answers = await asyncio.gather(*tasks)
            await first
            assert [answer.entry.stitch for answer in answers] == [2, 0, 1]
            assert home.engine.batches[1] == (["pinned 2", "pinned 0", "pinned 1"], [2, 0, 1])

    asyncio.run(scenario())


def test_it_tells_since_when_a_batch_runs_and_how_many_failed_in_a_row(table: LookupTable) -> None:
    async def scenario() -> None:
        async with house(table) as home:
            batcher = home.batcher
            assert (batcher.running_since, batcher.failed_in_a_row) == (None, 0)
            home.engine.gate.clear()
            first = home.submit("first")
            await home.until_running()
            home.clock.now += 1
            assert batcher.running_since == home.clock.now - 1
            assert batcher.predicted > 0
            home.engine.gate.set()
            await first
            home.engine.failure = RuntimeError("device lost")
            for count in (1, 2):
                with pytest.raises(InternalError):
                    await home.submit("doomed")
                assert batcher.running_since is None
                assert batcher.failed_in_a_row == count
            assert batcher.failed_at == home.clock.now
            home.engine.failure = None
            await home.submit("fine")
            assert batcher.failed_in_a_row == 0

    asyncio.run(scenario())
