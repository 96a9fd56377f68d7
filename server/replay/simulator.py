"""The server's own controller, limiter and queue on a virtual clock, against the latencies of a table."""

from collections.abc import Callable
from dataclasses import dataclass

from lookup_tables.table import Entry
from server.admission import Limiter
from server.allowance import Allowed
from server.budget import Budget
from server.controller import Controller
from server.errors import Overloaded
from server.queue import DeadlineQueue
from server.replay.traces import Trace

Noise = Callable[[], float]
"""What a batch's predicted seconds are multiplied by."""


@dataclass(frozen=True, eq=False)
class Request:
    """A request of the trace."""

    number: int
    arrival: float
    deadline: float
    allowed: Allowed


@dataclass(frozen=True)
class Outcome:
    """What came of a request: when it was answered and by which stitch, or None where it was refused."""

    arrival: float
    deadline: float
    answered: float | None
    entry: Entry | None

    @property
    def in_time(self) -> bool:
        """Whether it was answered by its deadline."""
        return self.answered is not None and self.answered <= self.deadline

    @property
    def worth(self) -> float:
        """Its part of the effective accuracy: the top-1 of its stitch in time, else 0."""
        return self.entry.top1 or 0.0 if self.in_time and self.entry else 0.0


def simulate(trace: Trace, controller: Controller, limiter: Limiter, noise: Noise = lambda: 1.0) -> list[Outcome]:
    """One outcome for each arrival, in their order: an engine that runs batch after batch, nothing else taking time."""
    allowed = controller.allow(Budget())
    slo = controller.slo
    outcomes: list[Outcome | None] = [None] * len(trace.arrivals)
    queue: DeadlineQueue[Request] = DeadlineQueue()
    arrivals = trace.arrivals.tolist()
    now, free_at, next_one = 0.0, 0.0, 0

    def settle(request: Request, answered: float | None = None, entry: Entry | None = None) -> None:
        limiter.leave(allowed)
        outcomes[request.number] = Outcome(request.arrival, request.deadline, answered, entry)

    while next_one < len(arrivals) or queue:
        now = max(free_at, queue[0].arrival if queue else arrivals[next_one])
        while next_one < len(arrivals) and arrivals[next_one] <= now:
            at = arrivals[next_one]
            request = Request(next_one, at, at + slo, allowed)
            next_one += 1
            try:
                limiter.check(allowed, slo, queue.floor, max(0.0, free_at - at))
            except Overloaded:
                outcomes[request.number] = Outcome(at, request.deadline, None, None)
            else:
                limiter.enter(allowed)
                queue.push(request)
        for request in queue.take_late(now):
            settle(request)
        if not queue:
            continue
        plan = controller.plan(queue, queue.floor, now)
        for request in queue.take(plan.doomed):
            settle(request)
        seconds = plan.predicted * noise()
        free_at = now + seconds
        for request, entry in zip(queue.take(len(plan.entries)), plan.entries, strict=True):
            settle(request, free_at, entry)
        controller.observe(plan, seconds)
    return [outcome for outcome in outcomes if outcome is not None]
