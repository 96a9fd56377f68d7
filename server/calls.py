"""The module calls of batches that are not recorded as a whole, on a device that records them.

A mixture of stitches hardly ever comes twice, so that a graph of it would be of no use, and hundreds of stitches take
seconds to record. But all are made of calls that come again and again: of each module a graph is kept, for each bucket
of rows. Launching one stands for launching the dozen operations in it.
"""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from server.driver import Driver
from server.graphs import Buckets
from server.recording import Recorder
from stitching.anchors import Step


class Calls:
    """Runs steps, by their graphs where they have one. Whoever holds the device's computing queue may ask it.

    Features of one shape have one place in memory: steps read what lies there and leave there what they give. Rows
    beyond those asked for keep older features, which harm nobody.
    """

    def __init__(self, driver: Driver, buckets: Buckets, recorder: Recorder) -> None:
        self._driver, self._buckets, self._recorder = driver, buckets, recorder
        self._places: dict[object, Tensor] = {}
        self._ends: dict[str, tuple[Tensor, Tensor]] = {}
        """By a step's name the places of what it takes and of what it gives."""

    def __call__(self, step: Step, x: Tensor, passing: bool) -> Tensor:
        """The step's output for features (rows, ...); it stays as it is until the next call, or for good.

        The latter unless it is `passing`: then the next call must take it.
        """
        rows = len(x)
        if rows > self._buckets.largest:  # another thread has had it halved since these were put together
            return step(x)
        bucket = self._buckets.fit(rows)
        key = step.name, bucket
        graph = self._recorder.graphs.find(key)
        if graph is None:
            y = step(x)
            if self._recorder.graphs.wanted(key):
                self._record(step, bucket, x, y)
            return y
        source, goal = self._ends[step.name]
        if x.data_ptr() != source.data_ptr():
            source[:rows].copy_(x)
        graph.replay()
        return goal[:rows] if passing else goal[:rows].clone()

    def learn(self, path: Sequence[Step], bucket: int, images: Callable[[], Tensor]) -> None:
        """Record all steps of a path that are not yet at a bucket; `images` gives its input, so many, if need be."""
        lacking = {step.name for step in path if self._recorder.graphs.lacks((step.name, bucket))}
        if not lacking:
            return
        x = images()
        for step in path:
            y = step(x)
            if step.name in lacking:
                self._record(step, bucket, x, y)
            x = y

    def clear(self) -> None:
        """Let all memory go that no graph is left to use."""
        self._places.clear()
        self._ends.clear()

    def _record(self, step: Step, bucket: int, x: Tensor, y: Tensor) -> None:
        source, goal = self._ends.setdefault(step.name, (self._place(x), self._place(y)))

        def work() -> None:
            goal[:bucket].copy_(step(source[:bucket]))

        self._recorder.record((step.name, bucket), work)

    def _place(self, x: Tensor) -> Tensor:
        last = x.ndim == 4 and x.is_contiguous(memory_format=torch.channels_last)  # as convolutions like it
        key = x.shape[1:], x.dtype, last
        if key not in self._places:
            shape = (self._buckets.largest, *x.shape[1:])
            if last:
                rows, width, height, across = shape
                place = self._driver.memory(rows, height, across, width, dtype=x.dtype).permute(0, 3, 1, 2)
            else:
                place = self._driver.memory(*shape, dtype=x.dtype)
            self._places[key] = place
        return self._places[key]
