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
from server.replay.report import Outcome
from server.replay.traces import Trace
from server.tenants import ANYONE, Tenant

Noise = Callable[[], float]
"""What a batch's predicted seconds are multiplied by."""


@dataclass(frozen=True, eq=False)
class Request:
    """A request of the trace."""

    number: int
    arrival: float
    deadline: float
    allowed: Allowed
    tenant: Tenant = ANYONE


def simulate(trace: Trace, controller: Controller, limiter: Limiter, noise: Noise = lambda: 1.0) -> list[Outcome]:
    """One outcome for each arrival, in their order: an engine that runs batch after batch, nothing else taking time."""
    allowed = controller.allow(Budget())
    slo = controller.slo
    outcomes: dict[int, Outcome] = {}
    queue: DeadlineQueue[Request] = DeadlineQueue()
    arrivals = trace.arrivals.tolist()
    now, free_at, next_one = 0.0, 0.0, 0

    def refuse(request: Request) -> None:
        outcomes[request.number] = Outcome(request.arrival, None, slo, status="503")

    def answer(request: Request, entry: Entry) -> None:
        latency = free_at - request.arrival
        outcomes[request.number] = Outcome(
            request.arrival, latency, slo, stitch=entry.stitch, top1=entry.top1, flops=entry.flops
        )

    while next_one < len(arrivals) or queue:
        now = max(free_at, queue[0].arrival if queue else arrivals[next_one])
        while next_one < len(arrivals) and arrivals[next_one] <= now:
            at = arrivals[next_one]
            request = Request(next_one, at, at + slo, allowed)
            next_one += 1
            try:
                limiter.check(allowed, slo, queue.floor, max(0.0, free_at - at))
            except Overloaded:
                refuse(request)
            else:
                limiter.enter(allowed)
                queue.push(request)
        lost = queue.take_late(now)
        if queue:
            plan = controller.plan(queue, now)
            lost += queue.take(plan.doomed)
            seconds = plan.predicted * noise()
            free_at = now + seconds
            batch = queue.take(len(plan.entries))
            for request, entry in zip(batch, plan.entries, strict=True):
                limiter.leave(allowed)
                answer(request, entry)
            controller.observe(plan, seconds)
        for request in lost:
            limiter.leave(allowed)
            refuse(request)
    return [outcome for _, outcome in sorted(outcomes.items())]
