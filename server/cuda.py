"""All that is asked of CUDA to run batches: pinned memory, two streams, graphs. What is asked when is staged.py's."""

from collections.abc import Callable
from contextlib import AbstractContextManager, suppress
from itertools import pairwise

import torch
from torch import Tensor

from server.driver import Recorded, Steps

GRAPH_SHARE = 0.1  # of the device's memory, for recorded graphs


class Cuda:
    """One GPU: a stream that copies images in, and a stream that computes and copies answers out. A `Driver`."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.graph_limit = round(GRAPH_SHARE * torch.cuda.mem_get_info(device)[1])
        self._copies: torch.cuda.Stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
        self._compute: torch.cuda.Stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
        self._compute.wait_stream(torch.cuda.current_stream(device))  # which brought the weights
        self._pool = torch.cuda.graph_pool_handle()

    def pinned(self, *shape: int, dtype: torch.dtype) -> Tensor:
        """Page-locked memory."""
        return torch.empty(shape, dtype=dtype, pin_memory=True)

    def memory(self, *shape: int, dtype: torch.dtype) -> Tensor:
        """Zeros, ready before any computing asked later."""
        with self.computing():
            return torch.zeros(shape, dtype=dtype, device=self.device)

    def copying(self) -> AbstractContextManager[object]:
        """The stream of copies in."""
        return torch.cuda.stream(self._copies)

    def computing(self) -> AbstractContextManager[object]:
        """The stream of everything else."""
        return torch.cuda.stream(self._compute)

    def mark(self) -> torch.cuda.Event:
        """An event on the current stream."""
        # Blocking: whoever waits for it leaves the core to a decoder instead of spinning.
        event: torch.cuda.Event = torch.cuda.Event(blocking=True)  # type: ignore[no-untyped-call]
        event.record()
        return event

    def compute_after(self, event: torch.cuda.Event) -> None:
        """Have the computing stream wait; the host does not."""
        self._compute.wait_event(event)

    def record(self, work: Callable[[], None], *, fresh_pool: bool) -> Recorded:
        """A CUDA graph. What others take meanwhile counts as its own: it errs towards fewer graphs.

        Others are processes, and nvJPEG, which decodes in this one.
        """
        self.settle()
        free, reserved = self._memory()
        graph = self._captured(work, fresh_pool=fresh_pool)
        left, held = self._memory()
        shared = max(0, held - reserved)
        return Recorded(graph, max(0, free - left - shared), shared)

    def timed(self, steps: Steps, x: Tensor, *, fresh_pool: bool) -> Callable[[], list[float]]:
        """A graph with an event after each step; what runs it waits for the last one."""
        marks = [_timer() for _ in range(len(steps) + 1)]

        def work() -> None:
            y = x
            marks[0].record()
            for step, mark in zip(steps, marks[1:], strict=True):
                y = step(y)
                mark.record()

        self.settle()
        graph = self._captured(work, fresh_pool=fresh_pool)

        def run() -> list[float]:
            graph.replay()
            marks[-1].synchronize()
            return [before.elapsed_time(after) / 1e3 for before, after in pairwise(marks)]

        return run

    def _captured(self, work: Callable[[], object], *, fresh_pool: bool) -> torch.cuda.CUDAGraph:
        if fresh_pool:  # torch refuses a pool whose last graph is gone
            self._pool = torch.cuda.graph_pool_handle()
        graph = torch.cuda.CUDAGraph()
        with self.computing():
            # Not torch.cuda.graph, which empties torch's cache of memory every time. Other threads may use CUDA.
            graph.capture_begin(pool=self._pool, capture_error_mode="thread_local")
            try:
                work()
            except BaseException:
                with suppress(RuntimeError):  # the first error is the one to tell
                    graph.capture_end()
                raise
            graph.capture_end()
        return graph

    def settle(self) -> None:
        """Wait for the computing stream."""
        self._compute.synchronize()

    def release(self) -> None:
        """Empty torch's cache of memory."""
        torch.cuda.empty_cache()

    def fault(self) -> str | None:
        """What CUDA says when it is asked again.

        After some errors (a failed assertion on the device, an illegal address, a fault of the hardware) every call
        fails until the process starts again.
        """
        try:
            torch.cuda.synchronize(self.device)
            torch.ones(1, device=self.device).add_(1).item()
        except torch.OutOfMemoryError:
            return None
        except RuntimeError as error:
            return str(error).splitlines()[0]
        return None

    def _memory(self) -> tuple[int, int]:
        """Bytes free on the device, and held by torch."""
        return torch.cuda.mem_get_info(self.device)[0], torch.cuda.memory_reserved(self.device)


def _timer() -> torch.cuda.Event:
    """An event of which a graph, each time it runs, keeps the time."""
    try:
        event: torch.cuda.Event = torch.cuda.Event(enable_timing=True, external=True)  # type: ignore[no-untyped-call]
    except TypeError as error:
        raise RuntimeError("this torch keeps no times in graphs") from error
    return event
