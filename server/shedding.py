"""Who has to leave the queue when not all can be in time: those whose tenant has more in it than its share."""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from typing import TypeVar

from server.controller import Controller
from server.queue import DeadlineQueue, Waiting
from server.tenants import Tenant, share

Request = TypeVar("Request", bound=Waiting)


def shed(queue: DeadlineQueue[Request], controller: Controller, now: float, headroom: float = 1.0) -> Sequence[Request]:
    """Take out of the queue, and return, what is to be refused for the sake of tenants within their shares.

    Up to every deadline by which not all can be answered, even each by the cheapest stitch that it admits, the last to
    be due go, as long as their tenants have more in the queue than their shares. Of one tenant alone nobody goes.
    """
    gone: list[Request] = []
    if len(queue.tenants) < 2 or controller.drain_seconds(queue.floor, headroom) <= queue[0].deadline - now:
        return gone
    over: dict[Tenant, float] = {}
    end, work = 0, 0.0
    while end < len(queue):
        batch = queue[end : end + controller.costs.max_batch]
        end, work, due = end + len(batch), work + _work(batch), batch[-1].deadline
        late = work - _fits(controller, work, due - now, headroom)
        if late <= 0 or due <= now:
            continue
        over = over or _over(queue, controller, due, now, headroom)
        for request in _last(queue[:end], over, late):
            queue.remove(request)
            gone.append(request)
            end, work = end - 1, work - request.allowed.floor
    return gone


def _over(
    queue: DeadlineQueue[Request], controller: Controller, due: float, now: float, headroom: float
) -> dict[Tenant, float]:
    """What each tenant has above its share of the time, as a sum of floors; below zero what it might still have.

    Among those due until `due`, or within one SLO if that is longer: of a few requests most are one's by chance.
    """
    ends = min(queue[-1].deadline, max(due, now + controller.slo))
    work: dict[Tenant, float] = defaultdict(float)
    for request in queue:
        if request.deadline <= ends:
            work[request.tenant] += request.allowed.floor
    fits = _fits(controller, sum(work.values()), ends - now, headroom)
    return {tenant: mine - fits * share(tenant, work) for tenant, mine in work.items()}


def _last(requests: Sequence[Request], over: dict[Tenant, float], late: float) -> Iterator[Request]:
    """The last of those whose tenants are above their shares, until they sum up to `late`; `over` goes down with it."""
    for request in reversed(requests):
        floor = request.allowed.floor
        if late <= 0:
            return
        if over.get(request.tenant, 0.0) >= floor:
            over[request.tenant] -= floor
            late -= floor
            yield request


def _work(requests: Sequence[Waiting]) -> float:
    return sum(request.allowed.floor for request in requests)


def _fits(controller: Controller, work: float, seconds: float, headroom: float) -> float:
    """The sum of floors that can be answered in so many seconds, as fast as this `work` is."""
    return work * seconds / controller.drain_seconds(work, headroom)
