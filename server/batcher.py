"""The dispatch loop: a batch forms while the one before it runs, most urgent first."""

import asyncio
import logging
import math
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass
from typing import Generic, NamedTuple, Protocol, TypeVar

from lookup_tables.table import Entry
from server.allowance import Allowed
from server.controller import Controller, Plan
from server.errors import DeadlinePassed, Draining, InternalError, Overloaded, ServeError
from server.queue import DeadlineQueue
from server.shedding import shed
from server.tenants import ANYONE, Tenant

log = logging.getLogger(__name__)

TURNS = 4
"""Of the event loop, after a batch: answers are given, leave, and who asks again at once is read, and queued."""

Image = TypeVar("Image")
Result = TypeVar("Result")
Image_contra = TypeVar("Image_contra", contravariant=True)
Result_co = TypeVar("Result_co", covariant=True)


class Runner(Protocol[Image_contra, Result_co]):
    """What runs a batch: an image and a stitch id for each row in, a result for each row out."""

    def run(self, images: Sequence[Image_contra], stitches: Sequence[int]) -> Sequence[Result_co]:
        """The results of one batch, in the order of its rows."""


class Answer(NamedTuple, Generic[Result]):
    """What came of a request: the result, the stitch and why, and the seconds spent waiting and running."""

    result: Result
    entry: Entry
    reason: str
    queue: float
    compute: float


@dataclass(slots=True, eq=False)
class _Request(Generic[Image, Result]):
    deadline: float
    image: Image
    allowed: Allowed
    tenant: Tenant
    submitted: float
    answer: "asyncio.Future[Answer[Result]]"

    def refuse(self, error: ServeError) -> None:
        if not self.answer.done():
            self.answer.set_exception(error)


@dataclass(eq=False)
class _Flight:
    """A batch that was begun: since when the engine has been its own, the seconds expected and its floors' sum."""

    since: float
    expected: float
    floor: float


class Batcher(Generic[Image, Result]):
    """Holds the requests that wait and runs them in batches on `threads`, as the controller plans them.

    Up to `lanes` batches are begun at a time, of which the first computes. Another one is begun beside it only when
    those who wait fill a whole batch: waiting would add nobody to it. It is planned as of when the engine is expected
    to be free. `headroom` and `crowded` are asked before every batch, `on_batch` told the plan of each that succeeded.
    All methods belong to the event loop.
    """

    def __init__(
        self,
        engine: Runner[Image, Result],
        controller: Controller,
        threads: Executor,
        *,
        lanes: int = 1,
        headroom: Callable[[], float] = lambda: 1.0,
        crowded: Callable[[], bool] = lambda: False,
        on_batch: Callable[[Plan], object] = lambda _: None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._engine, self._controller, self._threads, self._lanes = engine, controller, threads, lanes
        self._headroom, self._crowded, self._on_batch, self._clock = headroom, crowded, on_batch, clock
        self.queue: DeadlineQueue[_Request[Image, Result]] = DeadlineQueue()
        self._changed = asyncio.Event()
        self._stopped = False
        self._flights: list[_Flight] = []
        self.failed_in_a_row = 0
        """How many batches failed since the last that did not, and when the last of them did, by the clock."""
        self.failed_at = 0.0
        self._ended_at = -math.inf

    @property
    def queued(self) -> int:
        """How many requests wait."""
        return len(self.queue)

    @property
    def oldest(self) -> float:
        """Seconds for which the request that waits longest does; 0 when none waits."""
        return max(0.0, self._clock() - min((each.submitted for each in self.queue), default=math.inf))

    @property
    def idle(self) -> float:
        """Seconds since the last batch ended, well or not."""
        return self._clock() - self._ended_at

    @property
    def running_since(self) -> float | None:
        """When the batch that runs now began, by the clock."""
        return self._flights[0].since if self._flights else None

    @property
    def predicted(self) -> float:
        """The seconds that the batch which runs now was to take; 0 when none does."""
        return self._flights[0].expected if self._flights else 0.0

    @property
    def running(self) -> float:
        """Seconds until all batches begun will have ended, as predicted; 0 when none runs."""
        if not self._flights:
            return 0.0
        first, *others = self._flights
        return max(0.0, first.since + first.expected - self._clock()) + sum(flight.expected for flight in others)

    @property
    def running_floor(self) -> float:
        """Sum of the floors of those in batches begun."""
        return sum(flight.floor for flight in self._flights)

    async def submit(self, image: Image, allowed: Allowed, deadline: float, tenant: Tenant = ANYONE) -> Answer[Result]:
        """The answer to one request; `deadline` is absolute, by the batcher's clock.

        Cancelling this drops the request unless it is already running. Raises DeadlinePassed when the deadline comes
        before it could run, Overloaded once it cannot be kept any more, InternalError when its batch fails, Draining
        after `stop`.
        """
        if self._stopped:
            raise Draining("the server is stopping; send the request to another replica")
        answer: asyncio.Future[Answer[Result]] = asyncio.get_running_loop().create_future()
        request = _Request(deadline, image, allowed, tenant, self._clock(), answer)
        self.queue.push(request)
        if self._may_begin():
            self._changed.set()
        try:
            return await answer
        finally:
            if answer.cancelled():
                self.queue.remove(request)
            del answer, request  # a refusal knows this frame: until a collection it would keep itself, and the image

    def stop(self) -> None:
        """Take no more requests; `run` returns when those inside are answered."""
        self._stopped = True
        self._changed.set()

    async def run(self) -> None:
        """The dispatch loop; returns after `stop`, once the queue is empty."""
        lanes = [self._run_lane() for _ in range(self._lanes)]
        await (asyncio.gather(*lanes) if len(lanes) > 1 else lanes[0])

    async def _run_lane(self) -> None:
        while True:
            self._refuse_late()
            if self._may_begin():
                await self._run_batch()
                await self._let_others_join()
            elif self._stopped and not self.queue:
                self._changed.set()  # the other lanes have nothing to wait for either
                return
            else:
                self._changed.clear()
                await self._changed.wait()
                # One turn of the loop: whoever arrived in the same instant joins the batch.
                await asyncio.sleep(0)

    async def _let_others_join(self) -> None:
        """Give way to the event loop after a batch, whose clients may ask again, rather than run them in turns.

        That takes none of the engine's time on one core, and on two it cost nothing that was seen (benchmarks/served).
        Not on several lanes, which only a GPU has, and not while somebody is refused: whoever asks again and again then
        would take the time of all.
        """
        if self._lanes == 1 and not self._controller.turning_away:
            for _ in range(TURNS):
                await asyncio.sleep(0)

    def _may_begin(self) -> bool:
        return len(self.queue) >= (self._controller.costs.max_batch if self._flights else 1)

    def _refuse_late(self) -> None:
        now = self._clock()
        for request in self.queue.take_late(now):
            waited = (now - request.submitted) * 1e3
            detail = f"the deadline passed after {waited:.3f} ms in the queue"
            request.refuse(DeadlinePassed(detail, queue_ms=round(waited, 3)))

    async def _run_batch(self) -> None:
        started, busy, headroom = self._clock(), self.running, self._headroom()
        for request in shed(self.queue, self._controller, started + busy, headroom):
            detail = "the load is too much for all, and this client has more than its share of it; come back later"
            request.refuse(Overloaded(detail, retry_after=self._drain(), reason="share", stage="queue"))
        if not self._may_begin():
            return
        plan = self._controller.plan(self.queue, started + busy, headroom, crowded=self._crowded())
        for request in self.queue.take(plan.doomed):
            detail = "the load is too much to keep the deadline even with the cheapest stitch; come back later"
            request.refuse(Overloaded(detail, retry_after=self._drain(), stage="queue"))
        batch = self.queue.take(len(plan.entries))
        flight = _Flight(started, plan.expected, sum(request.allowed.floor for request in batch))
        self._flights.append(flight)
        try:
            await self._answer(batch, plan, flight)
        except Exception as error:
            # The batch's boundary: whatever went wrong fails these requests and no others.
            log.exception("a batch of %d failed", len(batch))
            self.failed_in_a_row, self.failed_at = self.failed_in_a_row + 1, self._clock()
            failure = error if isinstance(error, ServeError) else InternalError(f"{type(error).__name__}: {error}")
            for request in batch:
                request.refuse(failure)

    def _drain(self) -> float:
        return self.running + self._controller.drain_seconds(self.queue.floor, self._headroom())

    async def _answer(self, batch: Sequence[_Request[Image, Result]], plan: Plan, flight: _Flight) -> None:
        stitches = [entry.stitch for entry in plan.entries]
        images = [request.image for request in batch]
        try:
            results = await asyncio.get_running_loop().run_in_executor(
                self._threads, self._engine.run, images, stitches
            )
        finally:
            ended = self._land(flight)
        self.failed_in_a_row = 0
        seconds = ended - flight.since
        self._controller.observe(plan, seconds)
        self._on_batch(plan)
        for request, entry, result in zip(batch, plan.entries, results, strict=True):
            if not request.answer.done():
                reason = plan.why(request.allowed, entry)
                request.answer.set_result(Answer(result, entry, reason, flight.since - request.submitted, seconds))

    def _land(self, flight: _Flight) -> float:
        """The flight is over; the one behind it has the engine from this moment on, which is returned."""
        now, was_first = self._clock(), self._flights[0] is flight
        self._flights.remove(flight)
        self._ended_at = now
        if was_first and self._flights:
            self._flights[0].since = now
        return now
