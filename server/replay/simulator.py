"""The server's own controller, limiter and queue on a virtual clock, against the latencies of a table."""

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from lookup_tables.table import Entry
from server.admission import Limiter
from server.allowance import Allowed
from server.budget import Budget
from server.controller import Controller
from server.errors import Overloaded
from server.front import unseen
from server.queue import DeadlineQueue
from server.replay.report import Outcome
from server.replay.traces import Trace
from server.shedding import shed
from server.tenants import ANYONE, Tenant

Noise = Callable[[], float]
"""What a batch's predicted seconds are multiplied by."""


@dataclass(frozen=True, eq=False)
class Request:
    """A request of the trace; `ready` is when it can be queued."""

    number: int
    arrival: float
    ready: float
    deadline: float
    allowed: Allowed
    tenant: Tenant = ANYONE


def simulate(
    trace: Trace,
    controller: Controller,
    limiter: Limiter,
    noise: Noise = lambda: 1.0,
    tenants: Sequence[Tenant] | None = None,
    *,
    front: float = 0.0,
    one_core: bool = False,
) -> list[Outcome]:
    """One outcome for each arrival, in their order: an engine that runs batch after batch.

    `tenants` says whose each arrival is; none: all are ANYONE's. `front`: seconds that each image takes before it is
    queued, one after the other, if it comes by HTTP: then some of the SLO is for the way to the client and back; on
    `one_core` the engine's batch takes as much longer as is done there meanwhile.
    """
    slo, slack = controller.slo, controller.slo - (unseen(controller.slo) if front else 0.0)
    outcomes: dict[int, Outcome] = {}
    queue: DeadlineQueue[Request] = DeadlineQueue()
    arrivals = trace.arrivals.tolist()
    now, free_at, next_one = 0.0, 0.0, 0
    coming: deque[Request] = deque()

    def refuse(request: Request) -> None:
        outcomes[request.number] = Outcome(request.arrival, None, slo, status="503")

    def answer(request: Request, entry: Entry) -> None:
        latency = free_at - request.arrival
        outcomes[request.number] = Outcome(
            request.arrival, latency, slo, stitch=entry.stitch, top1=entry.top1, flops=entry.flops
        )

    while next_one < len(arrivals) or coming or queue:
        now = max(free_at, 0.0 if queue else coming[0].ready if coming else arrivals[next_one])
        while next_one < len(arrivals) and arrivals[next_one] <= now:
            at, tenant = arrivals[next_one], tenants[next_one] if tenants else ANYONE
            allowed = controller.allow(Budget(min_top1=tenant.min_top1))
            ready = front + (max(at, coming[-1].ready) if coming else at)
            request = Request(next_one, at, ready, at + slack, allowed, tenant)
            next_one += 1
            through = ready - at - controller.drain_seconds(limiter.floor) if front and coming else 0.0
            running = max(0.0, free_at - at, through)
            try:
                limiter.check(allowed, slack, limiter.floor, running, tenant=tenant, due=request.deadline)
            except Overloaded:
                refuse(request)
            else:
                limiter.enter(allowed, tenant, request.deadline)
                coming.append(request)
        while coming and coming[0].ready <= now:
            queue.push(coming.popleft())
        lost = [*queue.take_late(now), *shed(queue, controller, now)]
        if queue:
            arriving = next_one
            plan = controller.plan(queue, now)
            lost += queue.take(plan.doomed)
            seconds = plan.predicted * noise()
            if one_core:  # of which the engine has half at least
                most = 2 * seconds
                seconds += max(0.0, coming[-1].ready - now) if coming else 0.0
                while seconds < most and arriving < len(arrivals) and arrivals[arriving] < now + seconds:
                    seconds, arriving = seconds + front, arriving + 1
                seconds = min(seconds, most)
            free_at = now + seconds
            batch = queue.take(len(plan.entries))
            for request, entry in zip(batch, plan.entries, strict=True):
                limiter.leave(request.allowed, request.tenant, request.deadline)
                answer(request, entry)
            controller.observe(plan, seconds)
        for request in lost:
            limiter.leave(request.allowed, request.tenant, request.deadline)
            refuse(request)
    return [outcome for _, outcome in sorted(outcomes.items())]
