"""What a decision takes, and what a queued request holds: 10,000 waiting, 10,000 stitches on the frontier.

    python -m benchmarks.decision.decision [--queued 10000] [--stitches 10000] [--budgets 1] [--rounds 300]

Every round plans one batch of 64 at a moment a microsecond later, so that no round finds the last one's mixture.
`idle`: all have time; `busy`: the batch gets a mixture; `tight`: the first ones are due; `overload`: 4,000 are lost.
The memory is that of the queue and of each request without its image, which is 3 x size x size bytes. The turns of an
empty loop say how fast this machine runs Python: how many of them a decision takes depends on it less than its time.
"""

import argparse
import time
import tracemalloc
from dataclasses import dataclass
from statistics import median
from timeit import repeat

from lookup_tables.latency import Latency, Measurement
from lookup_tables.records import Entry, Family, FlopsSource, Preprocessing, Top1Source
from lookup_tables.table import LookupTable
from server.allowance import Allowed
from server.budget import Budget
from server.controller import Controller
from server.queue import DeadlineQueue
from server.tenants import ANYONE, Tenant

MOMENTS = {"idle": -1e6, "busy": 99.5, "tight": 100.0, "overload": 102.0}
SPAN = 5.0  # seconds over which the deadlines lie, from 100.0 on


@dataclass(frozen=True, eq=False)
class Waiting:
    """A request without its image."""

    allowed: Allowed
    deadline: float
    tenant: Tenant = ANYONE


def table(stitches: int) -> LookupTable:
    """A made-up table: the dearer, the better, with diminishing returns; 1 to 2 ms for one image."""
    entries = tuple(
        Entry(i, f"a[0:{i + 1}]", 10**9 + i * 10**6, 1, 0.5 + 0.3 * (i / stitches) ** 0.5) for i in range(stitches)
    )
    measured = tuple(
        Measurement(s, rows, (1e-3 + 1e-3 * s / stitches) * (0.5 + rows / 2), 2e-3, 30)
        for s in (0, stitches // 2, stitches - 1)
        for rows in (1, 8, 64)
    )
    preprocessing = Preprocessing(8, 1.0, "bicubic", (0.0,) * 3, (1.0,) * 3)
    top1, flops = Top1Source("made up"), FlopsSource("made up", "made up")
    family = Family(1, "large", ("a",), 2, "labels.txt", top1, flops, preprocessing, None)
    return LookupTable(family, ("no", "yes"), entries, Latency("made-up", measured, {}))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--queued", type=int, default=10_000)
    parser.add_argument("--stitches", type=int, default=10_000)
    parser.add_argument("--budgets", type=int, default=1, help="so many different ones take turns")
    parser.add_argument("--rounds", type=int, default=300)
    given = parser.parse_args()
    controller = Controller(table(given.stitches), max_batch=64, slo=1.0)
    budgets = [controller.allow(Budget(max_flops=1e12 - number)) for number in range(given.budgets)]
    tracemalloc.start()
    queue: DeadlineQueue[Waiting] = DeadlineQueue()
    for i in range(given.queued):
        queue.push(Waiting(budgets[i % len(budgets)], 100.0 + i * 7919 % given.queued * SPAN / given.queued))
    held = tracemalloc.get_traced_memory()[0] / given.queued
    print(f"{len(controller.frontier)} on the frontier; {held:.0f} bytes for each request")
    tracemalloc.stop()
    for name, moment in MOMENTS.items():
        controller.plan(queue, moment)
        took = []
        for number in range(given.rounds):
            start = time.perf_counter()
            controller.plan(queue, moment + number * 1e-6)
            took.append((time.perf_counter() - start) * 1e6)
        took.sort()
        turn = min(repeat("for _ in range(1000): pass", repeat=30, number=1)) * 1e3
        fast = took[len(took) // 10]
        turns = f"{fast / turn:.0f} turns of {turn * 1e3:.0f} ns"
        print(f"{name:>8}: {median(took):6.1f} us (fastest tenth {fast:.1f}: {turns})")


if __name__ == "__main__":
    main()
