"""Which stitch answers which request: pure decisions, with time and load as arguments.

`allow` turns a budget into the stitches it admits, once, when the request arrives. `plan` chooses among those when the
engine is free; `observe` tells how long the batch really took.
"""

import re
from bisect import bisect_right
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache

from lookup_tables.table import Entry, LookupTable, UnknownStitch
from server.budget import Budget
from server.errors import Infeasible
from server.errors import UnknownStitch as UnknownStitchRefusal

DRIFT_WEIGHT = 0.1
DRIFT_BOUNDS = (0.25, 8.0)
UNIT = re.compile("[A-Za-z]+$")


@dataclass(frozen=True)
class Allowed:
    """The stitches one budget admits, by ascending cost and worth, and why the last of them is the best."""

    entries: tuple[Entry, ...]
    reason: str
    floor_reason: str


@dataclass(frozen=True)
class Waiting:
    """A request in the queue: what its budget admits, and its absolute deadline in seconds."""

    allowed: Allowed
    deadline: float


@dataclass(frozen=True)
class Choice:
    """A stitch for one request, and why."""

    entry: Entry
    reason: str


@dataclass(frozen=True)
class Plan:
    """One batch: a choice per request, in their order, the level, and the seconds the table predicts for it."""

    choices: tuple[Choice, ...]
    level: Entry
    predicted: float


class Controller:
    """Shares the slack of the most urgent request over the queue and spends it on the most accurate stitches.

    A batch may take `slack * rows / queued * headroom / drift` seconds by the table's 99th percentiles. The level is
    the best frontier stitch at which it fits; every request gets the best stitch that its budget admits up to it.
    """

    policy = "shared-slack"

    def __init__(self, table: LookupTable) -> None:
        self.table = table
        self.frontier = table.frontier()
        self.drift = 1.0
        self.level: Entry = self.frontier[-1]
        self._worth = {entry.stitch: rank for rank, entry in enumerate(self.frontier)}
        self._seconds = cache(table.seconds)

    def allow(self, budget: Budget, *, nearest: bool = False) -> Allowed:
        """What the budget admits on an idle machine.

        Raises UnknownStitch for a pinned id that does not exist and Infeasible, naming the nearest stitch, when nothing
        is admitted; with `nearest` that stitch is taken instead.
        """
        if budget.stitch is not None:
            return self._pinned(budget.stitch, budget, nearest)
        within = tuple(entry for entry in self.frontier if self._meets(entry, budget))
        if within:
            return Allowed(within, _best_reason(budget), _floor_reason(budget))
        entry = self.table.nearest(budget.max_flops, budget.deadline, budget.min_top1)
        if nearest:
            reason = f"nearest stitch; none meets {', '.join(budget.terms())}"
            return Allowed((entry,), reason, reason)
        raise Infeasible(self._infeasible(budget, entry), nearest_stitch=entry.stitch, nearest=_facts(entry))

    def plan(self, waiting: Sequence[Waiting], queued: int, now: float, headroom: float = 1.0) -> Plan:
        """Stitches for the requests of the next batch.

        `waiting` are those requests, most urgent first; `queued` is how many wait in all, these included; `now` is in
        the deadlines' clock; `headroom` in (0, 1] is the share of the machine that is ours.
        """
        slack = max(0.0, waiting[0].deadline - now)
        time = slack * len(waiting) / queued * headroom / self.drift
        for level in reversed(self.frontier):
            entries = [self._up_to(request.allowed, level) for request in waiting]
            if self._batch_seconds(entries, "p99") <= time:
                break
        share = f"{slack * 1e3:.0f} ms shared by {queued} waiting" if queued > 1 else f"the {slack * 1e3:.0f} ms left"
        choices = tuple(_choice(r.allowed, entry, share) for r, entry in zip(waiting, entries, strict=True))
        return Plan(choices, level, self._batch_seconds(entries, "p50"))

    def observe(self, plan: Plan, seconds: float) -> None:
        """Learn from a batch that succeeded: drift follows observed over predicted seconds."""
        self.level = plan.level
        low, high = DRIFT_BOUNDS
        ratio = min(high, max(low, seconds / plan.predicted))  # one batch that stalled says little about the next
        self.drift += DRIFT_WEIGHT * (ratio - self.drift)

    def drain_seconds(self, requests: int, max_batch: int) -> float:
        """Seconds in which that many requests would be answered at the cheapest level."""
        rows = min(requests, max_batch)
        return self._seconds(self.frontier[0].stitch, rows) * self.drift * requests / rows if requests else 0.0

    def _pinned(self, stitch: int, budget: Budget, nearest: bool) -> Allowed:
        try:
            entry = self.table.entry(stitch)
        except UnknownStitch as error:
            raise UnknownStitchRefusal(str(error), field="stitch") from None
        if not self._meets(entry, budget) and not nearest:
            raise Infeasible(self._infeasible(budget, entry), nearest_stitch=entry.stitch, nearest=_facts(entry))
        reason = f"stitch {stitch} as asked"
        return Allowed((entry,), reason, reason)

    def _meets(self, entry: Entry, budget: Budget) -> bool:
        in_time = budget.deadline is None or self._seconds(entry.stitch, 1) <= budget.deadline
        return in_time and budget.met_by(entry.flops, entry.top1)

    def _infeasible(self, budget: Budget, nearest: Entry) -> str:
        asked = ", ".join(budget.terms())
        if budget.stitch is not None:
            return f"stitch {budget.stitch} does not meet {asked}: it has {_describe(nearest)}"
        if budget.min_top1 is not None and nearest.top1 is None:
            return f"no top-1 is known for family {self.table.family.name!r}; budget by FLOPs or time"
        took = self._seconds(nearest.stitch, 1) * 1e3
        return f"no stitch meets {asked}; stitch {nearest.stitch} comes nearest: {_describe(nearest)}, {took:.3g} ms"

    def _up_to(self, allowed: Allowed, level: Entry) -> Entry:
        """The best admitted stitch up to the level; the cheapest admitted one where all lie above it."""
        if len(allowed.entries) == 1:
            return allowed.entries[0]
        count = bisect_right(allowed.entries, self._worth[level.stitch], key=lambda entry: self._worth[entry.stitch])
        return allowed.entries[max(0, count - 1)]

    def _batch_seconds(self, entries: Sequence[Entry], quantile: str) -> float:
        # A row costs its share of a batch of its own stitch: mixing is taken to be additive.
        seconds: Callable[..., float] = self._seconds
        return sum(seconds(entry.stitch, len(entries), quantile) for entry in entries) / len(entries)


def _choice(allowed: Allowed, entry: Entry, share: str) -> Choice:
    if entry is allowed.entries[-1]:
        return Choice(entry, allowed.reason)
    if entry is allowed.entries[0]:
        return Choice(entry, f"{allowed.floor_reason}; no time for more in {share}")
    return Choice(entry, f"best stitch that fits {share}")


def _best_reason(budget: Budget) -> str:
    caps = Budget(max_flops=budget.max_flops, deadline=budget.deadline).terms()
    return f"best stitch within {' and '.join(map(_spaced, caps))}" if caps else "most accurate stitch"


def _floor_reason(budget: Budget) -> str:
    reaching = f" reaching {budget.min_top1 * 100:g}%" if budget.min_top1 is not None else ""
    return f"cheapest stitch{reaching}"


def _spaced(term: str) -> str:
    """`2GFLOPs` -> `2 GFLOPs`."""
    return UNIT.sub(r" \g<0>", term)


def _describe(entry: Entry) -> str:
    top1 = "top-1 not known" if entry.top1 is None else f"{entry.top1 * 100:.2f}% top-1"
    return f"{entry.flops / 1e9:.4g} GFLOPs, {top1}"


def _facts(entry: Entry) -> dict[str, object]:
    """What a program needs to know of a stitch."""
    top1 = None if entry.top1 is None else round(entry.top1 * 100, 4)
    return {"id": entry.stitch, "name": entry.route, "flops": entry.flops, "top1": top1}
