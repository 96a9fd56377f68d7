"""Open-loop replay of a trace: every request leaves when it is due, whatever became of those before it.

Latency counts from the scheduled arrival, not from the send, so that neither a stalled server nor a late generator
hides how long the requests meant for that time wait (coordinated omission).
"""

import asyncio
import gc
import select
import selectors
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np

from server.replay.report import OK, Outcome
from server.replay.traces import Trace

Result = TypeVar("Result")

NOT_SENT = "not sent"
START = 0.1  # seconds before a trace begins, so that its first request is not late


@dataclass(frozen=True, slots=True)
class Reply:
    """What one request came back with; see Outcome. Any status but OK is no answer."""

    status: str
    stitch: int | None = None
    top1: float | None = None
    flops: float | None = None


Ask = Callable[[int], Awaitable[Reply]]
"""Sends the request of this index and gives what came back; faults of the network are replies, not errors."""


@dataclass(frozen=True)
class Replayed:
    """Outcomes in the order they ended, and for each request sent by how many seconds it left late."""

    outcomes: Sequence[Outcome]
    lateness: Sequence[float]

    def late(self, percent: float) -> float:
        """A percentile of the lateness in seconds."""
        return float(np.percentile(self.lateness, percent)) if self.lateness else 0.0

    def bottleneck(self, deadline: float) -> str | None:
        """What to say when the figures are the generator's as much as the server's, by a tenth of the deadline."""
        late = self.late(99)
        if late <= deadline / 10:
            return None
        return (
            f"the generator was the bottleneck: 1 % of the requests left {late * 1e3:.1f} ms late or more, "
            "which counts in their latency; give it a core of its own or less load"
        )


async def replay(
    trace: Trace, ask: Ask, deadline: float, *, most: int = 1000, tell: Callable[[Outcome], None] = lambda _: None
) -> Replayed:
    """Every request of the trace, sent when due and judged by `deadline` in seconds.

    With `most` requests unanswered a further one is not sent and counts as failed. `tell` hears of every outcome.
    """
    loop = asyncio.get_running_loop()
    start = loop.time() + START
    outcomes: list[Outcome] = []
    lateness: list[float] = []

    def end(arrival: float, latency: float | None, reply: Reply) -> None:
        outcomes.append(Outcome(arrival, latency, deadline, reply.stitch, reply.top1, reply.status, reply.flops))
        tell(outcomes[-1])

    async def send(index: int, arrival: float) -> None:
        lateness.append(loop.time() - start - arrival)
        reply = await ask(index)
        end(arrival, loop.time() - start - arrival if reply.status == OK else None, reply)

    unanswered: set[asyncio.Task[None]] = set()
    async with asyncio.TaskGroup() as group:
        for index, arrival in enumerate(trace.arrivals.tolist()):
            # Also when late: answers must be let in between two sends.
            await asyncio.sleep(max(0.0, start + arrival - loop.time()))
            if len(unanswered) >= most:
                end(arrival, None, Reply(NOT_SENT))
                continue
            task = group.create_task(send(index, arrival))
            unanswered.add(task)
            task.add_done_callback(unanswered.discard)
    return Replayed(outcomes, lateness)


class PreciseSelector(selectors.DefaultSelector):
    """Wakes within some 0.1 ms of a timer: epoll_wait takes whole milliseconds, so asyncio's own is up to 1 ms late."""

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        """As the base class."""
        if timeout is not None and timeout > 0:
            select.select([self.fileno()], [], [], timeout)
            timeout = 0
        return super().select(timeout)


def run(main: Coroutine[Any, Any, Result]) -> Result:
    """As asyncio.run, with timers that are not rounded to milliseconds."""
    gc.freeze()  # a collection of all that was imported would have requests leave tens of milliseconds late
    with asyncio.Runner(loop_factory=lambda: asyncio.SelectorEventLoop(PreciseSelector())) as runner:
        return runner.run(main)
