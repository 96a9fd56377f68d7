"""Policies that others use or that bound the rest: one stitch, the cheapest, the most accurate, re-solved at times."""

from lookup_tables.table import Entry
from server.allowance import Allowed
from server.batch_costs import Costs
from server.policy import Decision, View, up_to, why

PERIOD = 30.0
"""Seconds between two decisions of the periodic policy, as in Proteus (Ahmad et al., ASPLOS'24)."""
PERIODIC_LOAD = 0.9
"""Share of a stitch's capacity that the periodic policy plans with."""


class Fixed:
    """Every request gets the same stitch, or the best below it that its own budget admits."""

    timed = False

    def __init__(self, costs: Costs, entry: Entry, name: str) -> None:
        self.name, self._costs, self._entry = name, costs, entry
        self._below = max((rank for rank, other in enumerate(costs.frontier) if other.flops <= entry.flops), default=0)

    def decide(self, view: View) -> Decision:
        """The next batch: whoever waits."""
        rows = min(len(view.waiting), self._costs.max_batch)
        entries = tuple(self._for(request.allowed) for request in view.waiting[:rows])
        return Decision(entries, self._entry, why(rows, len(view.waiting) - rows, self._costs, ""))

    def _for(self, allowed: Allowed) -> Entry:
        free = allowed.budget.stitch is None and len(allowed.entries) > 1
        meets = free and allowed.budget.met_by(self._entry.flops, self._entry.top1)
        return self._entry if meets else up_to(allowed, self._below)


class MaxAccuracy:
    """The most accurate stitch that the most urgent request's slack is long enough for, then as many as fit."""

    name, timed = "max-accuracy", True

    def __init__(self, costs: Costs) -> None:
        self._costs = costs

    def decide(self, view: View) -> Decision:
        """The next batch."""
        costs, slack = self._costs, view.slack(0)
        fitting = [rank for rank, entry in enumerate(costs.frontier) if costs.seconds(entry.stitch, 1) <= slack]
        rank = fitting[-1] if fitting else 0
        stitch = costs.frontier[rank].stitch
        rows = min(len(view.waiting), costs.max_batch)
        while rows > 1 and costs.seconds(stitch, rows) > slack:
            rows -= 1
        return at(costs, view, rank, rows)


class Periodic:
    """One stitch for half a minute: the most accurate one that would have carried the last half minute's arrivals."""

    name, timed = "periodic", False

    def __init__(self, costs: Costs) -> None:
        self._costs, self._rank = costs, 0
        self._since: float | None = None
        self._arrived = 0

    def decide(self, view: View) -> Decision:
        """The next batch: whoever waits."""
        if self._since is None:
            self._since = view.now
        self._arrived += view.arrived
        seconds = view.now - self._since
        if seconds >= PERIOD:
            rate = self._arrived / seconds / view.likely
            able = [r for r, e in enumerate(self._costs.frontier) if PERIODIC_LOAD / self._costs.row(e.stitch) >= rate]
            self._rank, self._since, self._arrived = (able[-1] if able else 0), view.now, 0
        return at(self._costs, view, self._rank, min(len(view.waiting), self._costs.max_batch))


def at(costs: Costs, view: View, rank: int, rows: int) -> Decision:
    """The most urgent rows, all at one place of the frontier."""
    entries = tuple(up_to(request.allowed, rank) for request in view.waiting[:rows])
    return Decision(entries, costs.frontier[rank], why(rows, len(view.waiting) - rows, costs, "deadline"))
