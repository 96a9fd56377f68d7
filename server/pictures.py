"""What a front end reads: images, on threads, into the memory that it shares with the engine's process."""

import asyncio
import json
import logging
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from queue import Empty, SimpleQueue

from lookup_tables.records import Preprocessing
from server.channel import LATE, READ, WRONG
from server.errors import ServeError
from server.images import Limits, finished, read
from server.shared import Shared

log = logging.getLogger(__name__)


class Pictures:
    """Readings by their numbers, on `threads`; `tell` is called with the number and with what a READ says of it."""

    def __init__(
        self,
        memory: Shared,
        preprocessing: Preprocessing,
        limits: Limits,
        *,
        exact: bool,
        threads: int,
        tell: Callable[[int, bytes], object],
    ) -> None:
        self._memory, self._preprocessing, self._limits, self._exact = memory, preprocessing, limits, exact
        self._tell = tell
        self._pool = ThreadPoolExecutor(threads, "decode")
        self._jobs: dict[int, Future[bytes]] = {}
        self._places: SimpleQueue[int] = SimpleQueue()
        for place in range(memory.places):
            self._places.put(place)

    def begin(self, number: int, body: bytes, due: float) -> None:
        """Have an image read, unless its turn comes when it is `due` or later, by time.monotonic."""
        loop = asyncio.get_running_loop()
        job = self._jobs[number] = self._pool.submit(self._read, body, due)
        job.add_done_callback(lambda done: loop.call_soon_threadsafe(self._end, number, done))

    def drop(self, number: int) -> None:
        """Nobody waits for it any more."""
        if number in self._jobs:
            self._jobs[number].cancel()

    def free(self, place: int) -> None:
        """Another image may lie there."""
        self._places.put(place)

    def _end(self, number: int, job: "Future[bytes]") -> None:
        del self._jobs[number]
        if not job.cancelled():
            self._tell(number, job.result())

    def _read(self, body: bytes, due: float) -> bytes:
        began = time.monotonic()
        if began >= due:
            return READ.pack(began, LATE)
        try:
            picture = read(body, self._preprocessing, self._limits, exact=self._exact)
            planes = finished(picture, self._preprocessing).transpose(2, 0, 1)
        except ServeError as error:
            return READ.pack(began, WRONG) + json.dumps([type(error).__name__, error.detail, error.extra]).encode()
        except Exception as error:
            log.exception("an image could not be read")
            return READ.pack(began, WRONG) + json.dumps(["InternalError", str(error), {}]).encode()
        try:
            place = self._places.get(timeout=max(0.0, due - time.monotonic()))
        except Empty:
            return READ.pack(began, LATE)
        self._memory.put(place, planes)
        return READ.pack(began, place)
