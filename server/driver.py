"""What is asked of a device that works through queues: by whom batches are staged and recorded. CUDA's is cuda.py."""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor

Steps = Sequence[Callable[[Tensor], Tensor]]
"""Work on features, each on what the one before it gave."""


class Recorded(NamedTuple):
    """A graph and the bytes it took: its own, and more of the pool that all graphs work in."""

    graph: Any
    own: int
    shared: int


class Driver(Protocol):
    """What is asked of the device. Its two contexts are queues of work: nothing asked inside is waited for."""

    @property
    def graph_limit(self) -> int:
        """Bytes that all graphs may take."""

    def pinned(self, *shape: int, dtype: torch.dtype) -> Tensor:
        """Memory of the host that is copied from and to without waiting."""

    def memory(self, *shape: int, dtype: torch.dtype) -> Tensor:
        """Memory of the device, zeros in it."""

    def copying(self) -> AbstractContextManager[object]:
        """The queue of copies to the device."""

    def computing(self) -> AbstractContextManager[object]:
        """The queue of computing, and of copies to the host."""

    def mark(self) -> Any:
        """An event that comes when all that was asked before it in the same queue is done; `synchronize` waits."""

    def compute_after(self, event: Any) -> None:
        """Have the computing that is asked from now on wait for an event."""

    def record(self, work: Callable[[], None], *, fresh_pool: bool) -> Recorded:
        """A graph of what `work` asks the device for; its `replay` asks for all of it again. Nothing runs now.

        `work` has been done before on this thread, and leaves nothing allocated: all graphs share one pool of memory,
        which `fresh_pool` starts anew because no graph is left in the old one. Raises OutOfMemoryError, or RuntimeError
        for work that cannot be recorded.
        """

    def timed(self, steps: Steps, x: Tensor, *, fresh_pool: bool) -> Callable[[], list[float]]:
        """The steps on `x` as a graph -> what runs it, and gives the device's seconds in each. As `record` else."""

    def settle(self) -> None:
        """Wait until all computing is done."""

    def release(self) -> None:
        """Give unused memory back to the device."""

    def fault(self) -> str | None:
        """Why the device is of no use any more; None when it still computes."""
