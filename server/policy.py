"""What every scheduling policy sees and says. Times inside are the table's: what drift and load take is taken off."""

from bisect import bisect_left
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from lookup_tables.table import Entry
from server.allowance import Allowed
from server.costs import Costs
from server.forecast import Forecast
from server.queue import Waiting


@dataclass(frozen=True)
class View:
    """The queue at the moment when the engine is free.

    `waiting`: every request, most urgent first; `floor`: the sum of their floors; `now` in the deadlines' clock; `slo`:
    seconds that a request without a deadline of its own has. `safe` and `likely`: seconds by the table that one second
    of this machine is good for, with a margin to promise on, and at present. `forecast`: the arrivals to expect, after
    `arrived` since the last batch.
    """

    waiting: Sequence[Waiting]
    floor: float
    now: float
    slo: float
    safe: float
    likely: float
    forecast: Forecast
    arrived: int = 0

    def slack(self, index: int) -> float:
        """Seconds by the table, to promise on, until that request's deadline."""
        return (self.waiting[index].deadline - self.now) * self.safe

    def in_time(self, seconds: float) -> int:
        """How many requests, the last to be due, would likely make their deadlines in a batch of so many seconds."""
        ends = self.now + seconds / self.likely
        return len(self.waiting) - bisect_left(self.waiting, ends, key=_deadline)


@dataclass(frozen=True)
class Decision:
    """One batch: after `doomed` requests, which cannot be answered in time any more, the next `entries` are run.

    `level` is the dearest stitch that the batch could afford; `reason` tells why the batch holds no more requests.
    """

    entries: tuple[Entry, ...]
    level: Entry
    reason: str
    doomed: int = 0


def _deadline(request: Waiting) -> float:
    return request.deadline


class Policy(Protocol):
    """Chooses batches. May learn from what it is shown; acts on nothing."""

    name: str

    def decide(self, view: View) -> Decision:
        """The next batch of a queue that is not empty."""


FULL, DRAINED = "full", "drained"
"""Why a batch holds no more: it has as many rows as it may, or nobody else waits."""


def why(rows: int, left: int, costs: Costs, otherwise: str) -> str:
    """The reason for a batch of `rows` that leaves `left` waiting."""
    if not left:
        return DRAINED
    return FULL if rows == costs.max_batch else otherwise


def up_to(allowed: Allowed, rank: int) -> Entry:
    """The best admitted stitch up to a place on the frontier; the cheapest admitted one where all lie above it."""
    entries, ranks = allowed.entries, allowed.ranks
    for index in range(len(ranks) - 1, 0, -1):
        if ranks[index] <= rank:
            return entries[index]
    return entries[0]


def spread(costs: Costs, requests: Sequence[Waiting], seconds: float) -> tuple[tuple[Entry, ...], Entry]:
    """A stitch for each request so that the batch takes about `seconds`, and the dearest level that was afforded.

    Most requests stand at one level of the convex hull and some at the next, each kept within its own budget.
    """
    levels = costs.levels(len(requests))
    groups = Counter(request.allowed for request in requests)
    low, high = 0, len(levels) - 1
    while low < high:  # the dearest level at which all of them fit
        middle = (low + high + 1) // 2
        if costs.batch(_counts(groups, levels[middle].rank)) <= seconds:
            low = middle
        else:
            high = middle - 1
    entries = [up_to(request.allowed, levels[low].rank) for request in requests]
    if low + 1 == len(levels) or not (raised := _raise(costs, requests, entries, levels[low + 1].rank, seconds)):
        return tuple(entries), levels[low].entry
    for index in raised:
        entries[index] = up_to(requests[index].allowed, levels[low + 1].rank)
    return tuple(entries), levels[low + 1].entry


def _raise(
    costs: Costs, requests: Sequence[Waiting], entries: Sequence[Entry], rank: int, seconds: float
) -> Sequence[int]:
    """Which requests can go up to the level of that rank within `seconds`."""
    able = [i for i, request in enumerate(requests) if up_to(request.allowed, rank) is not entries[i]]
    counts = Counter(entry.stitch for entry in entries)
    lowest = costs.batch(counts)
    whole = _raised(counts, [(entries[i], up_to(requests[i].allowed, rank)) for i in able])
    rise = costs.batch(whole) - lowest
    count = len(able) if rise <= 0 else min(len(able), int(len(able) * (seconds - lowest) / rise))
    while count > 0:
        took = costs.batch(_raised(counts, [(entries[i], up_to(requests[i].allowed, rank)) for i in able[:count]]))
        if took <= seconds:
            return able[:count]
        # Mixing costs more than its share: as many fewer as the excess says.
        count = min(count - 1, int(count * (seconds - lowest) / (took - lowest)))
    return ()


def _raised(counts: Counter[int], moves: Sequence[tuple[Entry, Entry]]) -> Counter[int]:
    changed = counts.copy()
    for old, new in moves:
        changed[old.stitch] -= 1
        changed[new.stitch] += 1
    return +changed


def _counts(groups: Counter[Allowed], rank: int) -> Counter[int]:
    counts: Counter[int] = Counter()
    for allowed, rows in groups.items():
        counts[up_to(allowed, rank).stitch] += rows
    return counts
