"""A small made-up table, and requests that wait."""

from collections.abc import Iterable
from dataclasses import dataclass

from lookup_tables.records import Entry, Family, FlopsSource, Preprocessing, Top1Source
from lookup_tables.table import Latency, LookupTable, Measurement
from server.allowance import Allowed
from server.queue import DeadlineQueue
from server.tenants import ANYONE, Tenant

MS = 1e-3


@dataclass(frozen=True, eq=False)
class Waiting:
    """A request in the queue."""

    allowed: Allowed
    deadline: float
    tenant: Tenant = ANYONE


def queued(requests: Iterable[Waiting]) -> DeadlineQueue[Waiting]:
    """A queue of these."""
    queue: DeadlineQueue[Waiting] = DeadlineQueue()
    for request in requests:
        queue.push(request)
    return queue


def small_table(top1: tuple[float | None, ...] = (0.60, 0.70, 0.50, 0.80)) -> LookupTable:
    """Four stitches of 1, 2, 3 and 4 GFLOPs that take 1, 2, 3 and 4 ms an image; by default stitch 2 is dominated."""
    entries = tuple(Entry(i, f"a[0:{i + 1}]", (i + 1) * 10**9, 100, value) for i, value in enumerate(top1))
    times = tuple(
        Measurement(i, rows, (i + 1) * rows * MS, (i + 1) * rows * MS, 100) for i in range(4) for rows in (1, 8)
    )
    family = Family(
        schema=1,
        name="small",
        anchors=("a",),
        classes=2,
        labels="labels.txt",
        top1=Top1Source("made up"),
        flops=FlopsSource("made up", "made up"),
        preprocessing=Preprocessing(8, 1.0, "bicubic", (0.0, 0.0, 0.0), (1.0, 1.0, 1.0)),
        checkpoint=None,
    )
    return LookupTable(family, ("no", "yes"), entries, Latency("made-up", times, {}))
