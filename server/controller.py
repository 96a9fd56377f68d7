"""Which stitch answers which request: pure decisions, with time and load as arguments.

`allow` turns a budget into the stitches it admits, once, when the request arrives. `plan` chooses among those when the
engine is free; `observe` tells how long the batch really took. How to choose is a policy's business.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from copy import deepcopy
from functools import lru_cache
from operator import attrgetter
from typing import Any, NamedTuple

from lookup_tables.table import Entry, LookupTable, UnknownStitch
from server.allowance import Allowed, allow
from server.baselines import Fixed, MaxAccuracy, Periodic
from server.batch_costs import Costs
from server.budget import Budget
from server.drift import Drift
from server.forecast import Forecast
from server.pace import Pace
from server.policy import Policy, View, up_to
from server.queue import DeadlineQueue, Waiting
from server.slackfit import SlackFit

STITCH = attrgetter("stitch")
KEPT_BUDGETS = 1024
MISS_PROBABILITY = 0.01

POLICIES: Mapping[str, Callable[[Costs], Policy]] = {
    "pace": Pace,
    "slackfit": SlackFit,
    "cheapest": lambda costs: Fixed(costs, costs.frontier[0], "cheapest"),
    "max-accuracy": MaxAccuracy,
    "periodic": Periodic,
}
POLICY_NAMES = f"{', '.join(POLICIES)} or fixed:<stitch>"


class Time(NamedTuple):
    """What time a batch had: seconds to its first deadline, for how many; that deadline, if asked for; the SLO."""

    slack: float
    queued: int
    deadline: float | None
    slo: float

    def __str__(self) -> str:
        slack = max(0.0, self.slack) * 1e3
        if self.queued > 1:
            return f"{slack:.0f} ms shared by {self.queued} waiting"
        if self.slack > self.slo:
            return f"an SLO of {self.slo * 1e3:g} ms, with others expected"
        whole = f"SLO of {self.slo * 1e3:g} ms" if self.deadline is None else f"deadline of {self.deadline * 1e3:g} ms"
        return f"the {slack:.0f} ms left of the {whole}"


class Plan(NamedTuple):
    """One batch: after `doomed` requests, to be refused, a stitch for each of the next ones.

    `level` is the dearest stitch that it could afford, `predicted` its seconds by the table and `expected` with drift
    and `headroom`; `reason` says why it holds no more, `time` what time there was. `untimed` is
    the policy where another thing than time decided.
    """

    doomed: int
    entries: tuple[Entry, ...]
    level: Entry
    predicted: float
    expected: float
    reason: str
    time: Time
    headroom: float = 1.0
    crowded: bool = False
    untimed: str | None = None

    def why(self, allowed: Allowed, entry: Entry) -> str:
        """Why a request of this batch got its stitch."""
        if self.untimed and entry is not allowed.entries[-1]:
            return f"stitch {entry.stitch} by the policy {self.untimed}"
        return allowed.why(entry, self.time)


class Controller:
    """A policy, and what it stands on: the table's costs and the drift from them. `slo` in seconds may be changed."""

    def __init__(
        self,
        table: LookupTable,
        *,
        max_batch: int,
        slo: float,
        policy: str = "pace",
        miss_probability: float | None = MISS_PROBABILITY,
    ) -> None:
        self.table = table
        self.costs = Costs(table, max_batch)
        self.frontier = self.costs.frontier
        self.slo = slo
        self.drifts = {False: Drift(miss_probability)}
        """What was learned from batches, apart from those that ran while the machine was `crowded`."""
        self._crowded = False
        self.forecast = Forecast()
        self.level: Entry = self.frontier[-1]
        self._last: tuple[float, int] | None = None
        self._turned_away = 0
        self.predicted = self.observed = 0.0
        """Seconds of all batches that succeeded: by the table, and those they took."""
        self.policy = self._policy(policy)
        self._allow = lru_cache(KEPT_BUDGETS)(lambda budget, nearest: allow(self.costs, budget, nearest=nearest))

    def allow(self, budget: Budget, *, nearest: bool = False) -> Allowed:
        """What the budget admits on an idle machine; equal budgets get the same object. Raises as `allowance.allow`."""
        return self._allow(budget, nearest)

    def use(self, policy: str) -> None:
        """Decide by this policy from now on. ValueError for one that does not exist."""
        self.policy = self._policy(policy)

    @property
    def drift(self) -> Drift:
        """What batches like the last one taught."""
        return self.drifts[self._crowded]

    def plan(self, waiting: DeadlineQueue[Any], now: float, headroom: float = 1.0, *, crowded: bool = False) -> Plan:
        """The next batch of a queue that is not empty.

        `now` is in the deadlines' clock; `headroom` in (0, 1] is the share of the machine that is ours; `crowded` tells
        that more is done for requests beside the engine than usual, which makes batches slower while it lasts.
        """
        if crowded not in self.drifts:
            self.drifts[crowded] = deepcopy(self.drift)
        self._crowded = crowded
        arrived, self._turned_away = self._turned_away, 0
        if self._last:
            then, left = self._last
            arrived += max(0, len(waiting) - left)
            self.forecast.observe(arrived, now - then, self.slo)
        plan = self._decide(waiting, now, headroom, arrived)
        self._last = now, len(waiting) - plan.doomed - len(plan.entries)
        return plan

    def explain(
        self, waiting: Iterable[Waiting], asked: Waiting, now: float, headroom: float = 1.0
    ) -> tuple[Entry, Plan]:
        """The stitch that this request would get if it waited too, and the plan for it; nothing is learned from it."""
        queue: DeadlineQueue[Waiting] = DeadlineQueue()
        for request in (*waiting, asked):
            queue.push(request)
        plan = self._decide(queue, now, headroom, arrived=0)
        place = next(index for index, request in enumerate(queue) if request is asked) - plan.doomed
        soon = 0 <= place < len(plan.entries)
        return plan.entries[place] if soon else self._later(asked.allowed, plan.level), plan

    def _decide(self, waiting: DeadlineQueue[Any], now: float, headroom: float, arrived: int) -> Plan:
        drift = self.drift
        left, pad = drift.left(headroom), drift.margin.pad
        safe, likely = left / drift.upper, left / drift.center
        chosen = self.policy.decide(View(waiting, now, self.slo, safe, pad, likely, self.forecast, arrived))
        predicted = chosen.predicted
        if predicted is None:
            predicted = self.costs.batch(Counter(map(STITCH, chosen.entries)))
        first, queued = waiting[chosen.doomed], len(waiting) - chosen.doomed
        time = Time(first.deadline - now, queued, first.allowed.budget.deadline, self.slo)
        expected = drift.expected(predicted, headroom)
        return Plan(
            chosen.doomed,
            chosen.entries,
            chosen.level,
            predicted,
            expected,
            chosen.reason,
            time,
            headroom,
            self._crowded,
            None if self.policy.timed else self.policy.name,
        )

    def _later(self, allowed: Allowed, level: Entry) -> Entry:
        """What a request that is not in this batch would get in one like it."""
        rank = max((rank for rank, entry in enumerate(self.frontier) if entry.flops <= level.flops), default=0)
        return up_to(allowed, rank)

    @property
    def turning_away(self) -> bool:
        """Whether somebody was not let in since the last plan."""
        return self._turned_away > 0

    def turn_away(self) -> None:
        """Somebody was not let in for the load: who is to be expected, all the same, counts them too."""
        self._turned_away += 1

    def observe(self, plan: Plan, seconds: float) -> None:
        """Learn from a batch that succeeded."""
        self.level = plan.level
        self.predicted += plan.predicted
        self.observed += seconds
        self.drifts[plan.crowded].observe(plan.predicted, seconds, plan.headroom)

    def drain_seconds(self, floor: float, headroom: float = 1.0) -> float:
        """Seconds in which requests with this sum of floors are likely answered, each by the cheapest it admits."""
        return self.drift.expected(self.costs.drain(floor), headroom)

    def _policy(self, name: str) -> Policy:
        kind, _, stitch = name.partition(":")
        if name in POLICIES:
            return POLICIES[name](self.costs)
        if kind == "fixed" and stitch.isascii() and stitch.isdecimal():
            try:
                return Fixed(self.costs, self.table.entry(int(stitch[:9])), name)
            except UnknownStitch as error:
                raise ValueError(f"policy: {error}") from None
        raise ValueError(f"policy: {name[:40]!r} is none of {POLICY_NAMES}")
