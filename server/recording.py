"""Graphs as they are made: what cannot be recorded, or has no room, runs without one."""

import logging
import sys
import threading
from collections import deque
from collections.abc import Callable, Hashable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from server.driver import Driver
from server.graphs import Graphs
from stitching.anchors import Step

log = logging.getLogger(__name__)

SOON = 2e-5
"""Seconds after which a thread gives way to the one that records. Hundreds of operations let go of Python's lock one
after the other, and each would wait for it as long as 5 ms while the event loop is busy (benchmarks/engine)."""
_USUALLY = sys.getswitchinterval()
_hurried: list[None] = []
_counting = threading.Lock()


@contextmanager
def in_a_hurry() -> Iterator[None]:
    """Other threads of Python give way at once meanwhile."""
    with _counting:
        _hurried.append(None)
        sys.setswitchinterval(SOON)
    try:
        yield
    finally:
        with _counting:
            _hurried.pop()
            sys.setswitchinterval(SOON if _hurried else _USUALLY)


class GaveWay(Exception):  # noqa: N818 - it is no error
    """A recording was left for whoever waits for the device."""


class Turn:
    """The right to ask the device's computing queue for something; whoever has it can see whether others wait."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._waiting: deque[None] = deque()

    def __enter__(self) -> None:
        self._waiting.append(None)
        self._lock.acquire()
        self._waiting.pop()

    def __exit__(self, *_: object) -> None:
        self._lock.release()

    def while_nobody_waits(self, step: Step, x: Tensor, passing: bool) -> Tensor:  # noqa: ARG002 - as `Through` has it
        """The step's output; raises GaveWay instead once somebody waits."""
        if self._waiting:
            raise GaveWay
        return step(x)


class Recorder:
    """Records work on a device, and keeps the `graphs`. Whoever holds the device's computing queue may ask it."""

    def __init__(self, driver: Driver) -> None:
        self.graphs: Graphs[Any] = Graphs(driver.graph_limit)
        self._driver = driver

    def record(self, key: Hashable, work: Callable[[], None]) -> None:
        """Do `work`, and keep a graph of it under `key` if that can be had. What else `work` raises ends it."""
        try:
            with in_a_hurry():
                work()  # whatever is loaded or set up at first must not be while recording
                recorded = self._driver.record(work, fresh_pool=not len(self.graphs))
        except torch.OutOfMemoryError:
            log.warning("no memory to record %s: it runs without a graph", key)
            self.graphs.refuse(key)
        except RuntimeError as error:
            self.graphs.stop(str(error).splitlines()[0])
            log.warning("no graphs, all runs without them: %s", self.graphs.off)
        else:
            self.graphs.add(key, *recorded)
