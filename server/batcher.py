"""The queue and the dispatch loop: a batch forms while the one before it runs, most urgent first."""

import asyncio
import heapq
import logging
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass, field
from typing import Generic, Protocol, TypeVar

from server.controller import Allowed, Choice, Controller, Waiting
from server.errors import DeadlinePassed, Draining, InternalError, ServeError

log = logging.getLogger(__name__)

Image = TypeVar("Image")
Result = TypeVar("Result")
Image_contra = TypeVar("Image_contra", contravariant=True)
Result_co = TypeVar("Result_co", covariant=True)


class Runner(Protocol[Image_contra, Result_co]):
    """What runs a batch: an image and a stitch id for each row in, a result for each row out."""

    def run(self, images: Sequence[Image_contra], stitches: Sequence[int]) -> Sequence[Result_co]:
        """The results of one batch, in the order of its rows."""


@dataclass(frozen=True)
class Answer(Generic[Result]):
    """What came of a request: the result, the stitch and why, and the seconds spent waiting and running."""

    result: Result
    choice: Choice
    queue: float
    compute: float


@dataclass(order=True)
class _Request(Generic[Image, Result]):
    deadline: float
    number: int
    image: Image = field(compare=False)
    allowed: Allowed = field(compare=False)
    submitted: float = field(compare=False)
    answer: "asyncio.Future[Answer[Result]]" = field(compare=False)


class Batcher(Generic[Image, Result]):
    """Holds the requests that wait and runs them in batches of at most `max_batch` on `thread`.

    `headroom` is asked before every batch, `on_batch` told the rows of each. All methods belong to the event loop.
    """

    def __init__(
        self,
        engine: Runner[Image, Result],
        controller: Controller,
        thread: Executor,
        max_batch: int,
        *,
        headroom: Callable[[], float] = lambda: 1.0,
        on_batch: Callable[[int], object] = bool,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._engine, self._controller, self._thread, self._max_batch = engine, controller, thread, max_batch
        self._headroom, self._on_batch, self._clock = headroom, on_batch, clock
        self._queue: list[_Request[Image, Result]] = []
        self._arrived = asyncio.Event()
        self._submitted = 0
        self._stopped = False
        self.running_since: float | None = None
        """When the batch that runs now began, by the clock."""
        self.predicted = 0.0
        """The seconds that the last batch begun was to take."""
        self.failed_in_a_row = 0
        """How many batches failed since the last that did not, and when the last of them did, by the clock."""
        self.failed_at = 0.0

    @property
    def queued(self) -> int:
        """How many requests wait, those whose caller has left included until the next batch forms."""
        return len(self._queue)

    async def submit(self, image: Image, allowed: Allowed, deadline: float) -> Answer[Result]:
        """The answer to one request; `deadline` is absolute, by the batcher's clock.

        Cancelling this drops the request unless it is already running. Raises DeadlinePassed when the deadline comes
        before it could run, InternalError when its batch fails, Draining after `stop`.
        """
        if self._stopped:
            raise Draining("the server is stopping; send the request to another replica")
        answer: asyncio.Future[Answer[Result]] = asyncio.get_running_loop().create_future()
        self._submitted += 1
        request = _Request(deadline, self._submitted, image, allowed, self._clock(), answer)
        heapq.heappush(self._queue, request)
        self._arrived.set()
        return await answer

    def stop(self) -> None:
        """Take no more requests; `run` returns when those inside are answered."""
        self._stopped = True
        self._arrived.set()

    async def run(self) -> None:
        """The dispatch loop; returns after `stop`, once the queue is empty."""
        while True:
            self._drop_gone_and_late()
            if self._queue:
                await self._run_batch()
            elif self._stopped:
                return
            else:
                self._arrived.clear()
                await self._arrived.wait()
                # One turn of the loop: whoever arrived in the same instant joins the batch.
                await asyncio.sleep(0)

    def _drop_gone_and_late(self) -> None:
        now = self._clock()
        late = [request for request in self._queue if request.deadline <= now]
        for request in late:
            if not request.answer.done():
                waited = (now - request.submitted) * 1e3
                request.answer.set_exception(
                    DeadlinePassed(f"the deadline passed after {waited:.0f} ms in the queue", queue_ms=round(waited, 3))
                )
        if late or any(request.answer.done() for request in self._queue):
            self._queue = [request for request in self._queue if not request.answer.done()]
            heapq.heapify(self._queue)

    async def _run_batch(self) -> None:
        queued = len(self._queue)
        batch = [heapq.heappop(self._queue) for _ in range(min(queued, self._max_batch))]
        try:
            await self._answer(batch, queued)
        except Exception as error:
            # The batch's boundary: whatever went wrong fails these requests and no others.
            log.exception("a batch of %d failed", len(batch))
            self.failed_in_a_row, self.failed_at = self.failed_in_a_row + 1, self._clock()
            failure = error if isinstance(error, ServeError) else InternalError(f"{type(error).__name__}: {error}")
            for request in batch:
                if not request.answer.done():
                    request.answer.set_exception(failure)

    async def _answer(self, batch: list[_Request[Image, Result]], queued: int) -> None:
        started = self._clock()
        waiting = [Waiting(request.allowed, request.deadline) for request in batch]
        plan = self._controller.plan(waiting, queued, started, self._headroom())
        stitches = [choice.entry.stitch for choice in plan.choices]
        images = [request.image for request in batch]
        self.running_since, self.predicted = started, plan.predicted
        try:
            results = await asyncio.get_running_loop().run_in_executor(self._thread, self._engine.run, images, stitches)
        finally:
            self.running_since = None
        self.failed_in_a_row = 0
        seconds = self._clock() - started
        self._controller.observe(plan, seconds)
        self._on_batch(len(batch))
        for request, choice, result in zip(batch, plan.choices, results, strict=True):
            if not request.answer.done():
                request.answer.set_result(Answer(result, choice, started - request.submitted, seconds))
