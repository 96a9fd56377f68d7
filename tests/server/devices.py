"""A device that is none: it does at once what it is asked, and counts. And a network that is slow to be recorded."""

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from server.calls import Calls
from server.driver import Recorded, Steps
from stitching.anchors import Step
from stitching.wavefront import Through


class Event:
    def synchronize(self) -> None:
        pass


class Graph:
    def __init__(self, work: Callable[[], None]) -> None:
        self.replay = work


class Device:
    """A driver that does at once what it is asked, and counts."""

    graph_limit = 10_000

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.fresh_pools: list[bool] = []
        self.timed_rows: list[int] = []
        self.refuses: Exception | None = None
        self.on_record: Callable[[], object] = lambda: None
        self.copied_in = threading.Semaphore(0)

    def pinned(self, *shape: int, dtype: torch.dtype) -> Tensor:
        return torch.empty(shape, dtype=dtype)

    def memory(self, *shape: int, dtype: torch.dtype) -> Tensor:
        return torch.zeros(shape, dtype=dtype)

    @contextmanager
    def copying(self) -> Iterator[None]:
        yield
        self.copied_in.release()

    @contextmanager
    def computing(self) -> Iterator[None]:
        yield

    def mark(self) -> Event:
        return Event()

    def compute_after(self, event: Any) -> None:
        assert isinstance(event, Event)

    def record(self, work: Callable[[], None], *, fresh_pool: bool) -> Recorded:
        self.on_record()
        if self.refuses:
            raise self.refuses
        self.fresh_pools.append(fresh_pool)
        return Recorded(Graph(work), 100, 1000)

    def timed(self, steps: Steps, x: Tensor, *, fresh_pool: bool) -> Callable[[], list[float]]:
        if self.refuses:
            raise self.refuses
        self.timed_rows.append(len(x))
        return lambda: [0.25] * len(steps)

    def settle(self) -> None:
        self.asked.append("settle")

    def release(self) -> None:
        self.asked.append("release")

    def fault(self) -> str | None:
        return "fell over"


class Endless:
    """Answers with the image's first pixel and the stitch; one of the times that it is recorded has no end."""

    def __init__(self, time: int) -> None:
        self.time, self.times, self.entered = time, 0, threading.Event()

    def __call__(self, pixels: Tensor, stitches: Sequence[int], through: Through[Step]) -> Tensor:
        first = pixels[:, 0, 0, 0]
        each = torch.stack((first.float(), torch.full_like(first, stitches[0]).float()), 1)
        if not isinstance(through, Calls):
            self.times += 1
            while self.times == self.time:
                self.entered.set()
                through(Step("same", "same", lambda x: x, ()), pixels, True)
        return each[:, :, None]
