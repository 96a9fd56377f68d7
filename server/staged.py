"""Runs batches on a device that is fed by copies: pieces are staged while the ones before them compute."""

import logging
import queue
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from server.calls import Calls
from server.driver import Driver, Steps
from server.graphs import Buckets
from server.recording import GaveWay, Recorder, Turn
from stitching.anchors import Step
from stitching.model import plainly
from stitching.wavefront import Through

log = logging.getLogger(__name__)

SLOTS = 2  # one is copied in while the other computes
RECORD_WHOLE_AT = 128
"""The use at which a stitch is recorded as a whole where no quiet moment came before: under load that takes some 50 ms,
and launching its dozen steps one by one has cost twice as much by then, some 63 us each (benchmarks/engine)."""


class Pass(NamedTuple):
    """Rows that run together: images, uint8 (3, size, size) each, and a stitch for each."""

    images: Sequence[Tensor]
    stitches: Sequence[int]


Forward = Callable[[Tensor, Sequence[int], Through[Step]], Tensor]
"""Pixels, uint8 (N, 3, size, size), on the device, a stitch for each and what runs a step -> answers there,
(N, 2, classes kept)."""


class _Slot:
    """Memory for one piece on its way: pixels on the host and on the device, answers on the host."""

    def __init__(self, driver: Driver, pixels: tuple[int, ...], answers: tuple[int, ...]) -> None:
        self.host = driver.pinned(*pixels, dtype=torch.uint8)
        self.device = driver.memory(*pixels, dtype=torch.uint8)
        self.answers = driver.pinned(*answers, dtype=torch.float32)


class _Flight(NamedTuple):
    """A piece that was launched: its slot, its rows, and the event that comes when its answers are there."""

    slot: _Slot
    rows: int
    done: Any


class Staged:
    """Passes in, answers out, through slots of pinned memory, buckets of rows and recorded graphs.

    Two threads may call `run` at once: then the second one's images are copied in while the first one's compute.
    Out of memory, the largest bucket is halved and the passes run again in smaller pieces; with a bucket of one row
    that error goes to the caller, as all others do.
    """

    def __init__(self, driver: Driver, forward: Forward, largest: int, size: int, kept: int) -> None:
        """`largest`: most rows at once; `size` of an image in pixels; `kept`: how many classes an answer has."""
        self.buckets = Buckets(largest)
        self._recorder = Recorder(driver)
        self.graphs = self._recorder.graphs
        self.calls = Calls(driver, self.buckets, self._recorder)
        self._timed: dict[tuple[int, int], Callable[[], list[float]]] = {}
        self._untimed = False
        """Whether steps cannot be timed in graphs here."""
        self._driver, self._forward = driver, forward
        pixels, answers = (largest, 3, size, size), (largest, 2, kept)
        # Graphs read and write here, whatever the slot. Rows beyond a piece's keep older pixels, which harm nobody.
        self._pixels = driver.memory(*pixels, dtype=torch.uint8)
        self._answers = driver.memory(*answers, dtype=torch.float32)
        self._free: queue.SimpleQueue[_Slot] = queue.SimpleQueue()
        for _ in range(SLOTS):
            self._free.put(_Slot(driver, pixels, answers))
        driver.settle()  # or zeros might still come after the first copy
        self._launching = Turn()

    def run(self, passes: Sequence[Pass]) -> Tensor:
        """The answers of all passes' rows, (rows, 2, classes kept), on the host, in their order."""
        while True:
            largest = self.buckets.largest
            try:
                return self._run(passes)
            except torch.OutOfMemoryError:
                if largest == 1:
                    raise
            # Behind the except clause, whose error keeps the failed pass's tensors alive.
            self._shrink(largest)

    def fault(self) -> str | None:
        """Why the device is of no use any more, if it is."""
        return self._driver.fault()

    def learn(self, rows: int, prepared: Callable[[Tensor], Tensor], path: Sequence[Step]) -> None:
        """Record the steps of a path at the bucket of `rows`, on what `prepared` makes, each by itself."""
        largest = self.buckets.largest
        try:
            with self._launching, self._driver.computing():
                bucket = self.buckets.fit(min(rows, self.buckets.largest))
                self.calls.learn(path, bucket, lambda: prepared(self._pixels[:bucket]))
        except torch.OutOfMemoryError:
            if largest == 1:
                raise
        else:
            return
        self._shrink(largest)

    def learn_whole(self, stitch: int, rows: int) -> bool:
        """Record a stitch as a whole, at the buckets of its pieces when it has so many rows.

        False where that was left undone because a batch waited for it.
        """
        buckets = {self.buckets.fit(piece.stop - piece.start) for piece in self.buckets.pieces(rows)}
        if not any(self.graphs.lacks((stitch, bucket)) for bucket in buckets):
            return True  # without waiting for whoever computes
        try:
            with self._launching, self._driver.computing():
                for bucket in buckets:
                    if self.graphs.lacks((stitch, bucket)):
                        self._record(stitch, bucket, self._launching.while_nobody_waits)
        except GaveWay:
            return False
        return True

    def laps(self, stitch: int, rows: int, steps: Steps) -> list[float] | None:
        """The device's seconds for `rows` in each of the steps that are this stitch; None where nothing is recorded."""
        if self._untimed:
            return None
        pieces = self.buckets.pieces(rows)
        key = stitch, self.buckets.fit(min(rows, self.buckets.largest))
        with self._launching, self._driver.computing():
            timed = self._timed.get(key)
            try:
                if timed is None:
                    fresh = not len(self.graphs)
                    timed = self._timed[key] = self._driver.timed(steps, self._pixels[: key[1]], fresh_pool=fresh)
                return [seconds * len(pieces) for seconds in timed()]
            except RuntimeError as error:
                self._untimed = True
                log.warning("modules are timed outside of graphs from now on: %s", str(error).partition("\n")[0])
                return None

    def forget_laps(self) -> None:
        """Let the graphs go that `laps` has made."""
        with self._launching:
            self._timed.clear()

    def _run(self, passes: Sequence[Pass]) -> Tensor:
        flights: deque[_Flight] = deque()
        answers: list[Tensor] = []
        try:
            for images, stitches in passes:
                for rows in self.buckets.pieces(len(images)):
                    slot = self._slot(flights, answers)
                    flights.append(self._launch(slot, Pass(images[rows], stitches[rows])))
            while flights:
                answers.append(self._land(flights.popleft()))
        finally:
            for flight in flights:
                self._free.put(flight.slot)  # copies of an earlier flight are done before those of a later one
        return answers[0] if len(answers) == 1 else torch.cat(answers)

    def _slot(self, flights: deque[_Flight], answers: list[Tensor]) -> _Slot:
        """A free slot. Whoever holds one lands it first rather than wait for another thread's."""
        while flights:
            try:
                return self._free.get_nowait()
            except queue.Empty:
                answers.append(self._land(flights.popleft()))
        return self._free.get()

    def _launch(self, slot: _Slot, piece: Pass) -> _Flight:
        rows = len(piece.images)
        try:
            if any(image.shape != slot.host.shape[1:] for image in piece.images):  # stack would make another tensor
                raise RuntimeError(f"images are {tuple(slot.host.shape[1:])}")
            torch.stack(list(piece.images), out=slot.host[:rows])
            with self._driver.copying():
                slot.device[:rows].copy_(slot.host[:rows], non_blocking=True)
                arrived = self._driver.mark()
            with self._launching, self._driver.computing():
                self._driver.compute_after(arrived)
                self._pixels[:rows].copy_(slot.device[:rows])
                slot.answers[:rows].copy_(self._compute(piece.stitches), non_blocking=True)
                return _Flight(slot, rows, self._driver.mark())
        except BaseException:
            self._free.put(slot)
            raise

    def _land(self, flight: _Flight) -> Tensor:
        try:
            flight.done.synchronize()
            return flight.slot.answers[: flight.rows].clone()
        finally:
            self._free.put(flight.slot)

    def _compute(self, stitches: Sequence[int]) -> Tensor:
        """Answers on the device for the rows in `_pixels`: by a graph, else by those of its steps."""
        rows = len(stitches)
        if len(set(stitches)) > 1:
            return self._forward(self._pixels[:rows], stitches, self.calls)
        key = stitches[0], self.buckets.fit(rows)
        graph = self.graphs.find(key)
        if graph is not None:
            graph.replay()
            return self._answers[:rows]
        answers = self._forward(self._pixels[:rows], stitches, self.calls)
        if self.graphs.due(key, RECORD_WHOLE_AT):
            self._record(*key)
        return answers

    def _record(self, stitch: int, bucket: int, through: Through[Step] = plainly) -> None:
        pixels, stitches = self._pixels[:bucket], [stitch] * bucket

        def work() -> None:
            self._answers[:bucket].copy_(self._forward(pixels, stitches, through))

        self._recorder.record((stitch, bucket), work)

    def _shrink(self, largest: int) -> None:
        """After a piece of up to `largest` rows had no room: smaller pieces, unless another thread saw to it."""
        with self._launching:
            if self.buckets.largest == largest:
                self.buckets.halve()
                log.warning("out of memory: at most %d rows at once from now on", self.buckets.largest)
            self._driver.settle()
            self.graphs.clear()
            self.calls.clear()
            self._timed.clear()
            self._driver.release()
