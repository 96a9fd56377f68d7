"""What every scheduling policy sees and says. Times inside are the table's: what drift and load take is taken off."""

from bisect import bisect_right
from typing import Any, NamedTuple, Protocol

from lookup_tables.table import Entry
from server.allowance import Allowed
from server.batch_costs import Costs
from server.forecast import Forecast
from server.queue import DeadlineQueue

SPREAD = ((-0.743, 1 / 6), (0.0, 2 / 3), (0.743, 1 / 6))
"""How far a batch ends on the way from what is likely to what is promised, and how often: three points that stand for a
normal distribution (Gauss and Hermite's) whose 99th percentile is the promise."""


class View(NamedTuple):
    """The queue at the moment when the engine is free.

    `waiting`: every request, most urgent first; `now` in the deadlines' clock; `slo`: seconds that a request without a
    deadline of its own has. `safe` and `likely`: seconds by the table that one second of this machine is good for, to
    promise on, beside `pad` seconds that any batch may lose, and at present. `forecast`: the arrivals to expect, after
    `arrived` since the last batch.
    """

    waiting: DeadlineQueue[Any]
    now: float
    slo: float
    safe: float
    pad: float
    likely: float
    forecast: Forecast
    arrived: int = 0

    def slack(self, index: int) -> float:
        """Seconds by the table, to promise on, until that request's deadline."""
        return (self.waiting.deadlines[index] - self.now - self.pad) * self.safe

    def in_time(self, seconds: float) -> int:
        """How many requests, the last to be due, would likely make their deadlines in a batch of so many seconds."""
        return self._due_after(seconds / self.likely)

    def surely_in_time(self, seconds: float) -> int:
        """The same, to promise on."""
        return self._due_after(self.pad + seconds / self.safe)

    def mean_in_time(self, rows: int, seconds: float) -> float:
        """How many of a batch of the last `rows` to be due are in time, on average, when it takes about `seconds`."""
        likely, promised = seconds / self.likely, self.pad + seconds / self.safe
        return sum(often * min(rows, self._due_after(likely + far * (promised - likely))) for far, often in SPREAD)

    def _due_after(self, seconds: float) -> int:
        return len(self.waiting) - self.waiting.due_before(self.now + seconds)


class Decision(NamedTuple):
    """One batch: after `doomed` requests, which cannot be answered in time any more, the next `entries` are run.

    `level` is the dearest stitch that the batch could afford; `reason` tells why the batch holds no more requests;
    `predicted` its seconds by the table, where choosing told them.
    """

    entries: tuple[Entry, ...]
    level: Entry
    reason: str
    doomed: int = 0
    predicted: float | None = None


class Policy(Protocol):
    """Chooses batches. May learn from what it is shown; acts on nothing."""

    name: str
    timed: bool
    """Whether it is the time left that decides which stitch a request gets."""

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
    return allowed.entries[max(0, bisect_right(allowed.ranks, rank) - 1)]
