"""All that is asked of CUDA to run batches: pinned memory, two streams, graphs. What is asked when is staged.py's."""

from collections.abc import Callable
from contextlib import AbstractContextManager, suppress

import torch
from torch import Tensor

from server.staged import Recorded

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
        """A CUDA graph. What other processes take meanwhile counts as its own: it errs towards fewer graphs."""
        if fresh_pool:  # torch refuses a pool whose last graph is gone
            self._pool = torch.cuda.graph_pool_handle()
        self.settle()
        free, reserved = self._memory()
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
        left, held = self._memory()
        shared = max(0, held - reserved)
        return Recorded(graph, max(0, free - left - shared), shared)

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
