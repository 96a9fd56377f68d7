"""A batch's time, spread over its requests: most of them at one level of the hull, some at the next."""

from bisect import bisect_right
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from operator import attrgetter
from typing import NamedTuple

from lookup_tables.table import Entry
from server.allowance import Allowed
from server.batch_costs import Costs, Level
from server.policy import up_to
from server.queue import Waiting
from server.tenants import Tenant

ALLOWED = attrgetter("allowed")

Price = Callable[[Mapping[int, int]], float]
"""Seconds of a batch that has so many rows of each stitch."""


class Batch(NamedTuple):
    """A stitch for each request, the dearest level that was afforded, and the seconds that they take if known."""

    entries: tuple[Entry, ...]
    level: Entry
    seconds: float | None


def spread(costs: Costs, requests: Sequence[Waiting], seconds: float) -> Batch:
    """A stitch for each request so that the batch takes about `seconds`.

    Most requests stand at one level of the convex hull and some at the next, each kept within its own budget.
    """
    return _spread(list(map(ALLOWED, requests)), seconds, costs.levels(len(requests)), costs.batch)


def _spread(budgets: Sequence[Allowed], seconds: float, levels: Sequence[Level], price: Price) -> Batch:
    rows = _counted(budgets)
    known: dict[int, float] = {}

    def all_at(place: int) -> float:
        found = known.get(place)
        if found is None:
            found = known[place] = price(_counts(rows, levels[place].rank))
        return found

    low = _dearest(levels, seconds, all_at)
    base = {allowed: up_to(allowed, levels[low].rank) for allowed in rows}
    if low + 1 == len(levels):
        return Batch(_each(base, budgets), levels[low].entry, all_at(low))
    better = {allowed: up_to(allowed, levels[low + 1].rank) for allowed in rows}
    able: Sequence[int] = range(len(budgets))
    if any(better[allowed] is base[allowed] for allowed in rows):
        able = [place for place in able if better[budgets[place]] is not base[budgets[place]]]
    step = Step(base, better)
    count, took = _affordable(
        (all_at(low), all_at(low + 1)),
        len(able),
        seconds,
        lambda count: price(step.counts(rows, budgets[: able[count - 1] + 1])),
    )
    risen = able[count - 1] + 1 if count else 0
    entries = _each(better, budgets[:risen]) + _each(base, budgets[risen:])
    return Batch(entries, levels[low + min(1, count)].entry, took)


def _each(entries: Mapping[Allowed, Entry], budgets: Sequence[Allowed]) -> tuple[Entry, ...]:
    if len(entries) == 1:
        return tuple(entries.values()) * len(budgets)
    return tuple(map(entries.__getitem__, budgets))


def _counted(budgets: Sequence[Allowed]) -> Mapping[Allowed, int]:
    """How many are which; mostly all are one."""
    if budgets and budgets.count(budgets[0]) == len(budgets):
        return {budgets[0]: len(budgets)}
    return Counter(budgets)


class Step(NamedTuple):
    """For each budget the entry at one level and at the next."""

    base: Mapping[Allowed, Entry]
    better: Mapping[Allowed, Entry]

    def counts(self, rows: Mapping[Allowed, int], raised: Sequence[Allowed]) -> Mapping[int, int]:
        """Rows of each stitch when these are raised."""
        counts: dict[int, int] = {}
        risen = _counted(raised)
        for allowed, number in rows.items():
            up = risen.get(allowed, 0)
            for entry, here in ((self.better[allowed], up), (self.base[allowed], number - up)):
                if here:
                    counts[entry.stitch] = counts.get(entry.stitch, 0) + here
        return counts


def _dearest(levels: Sequence[Level], seconds: float, all_at: Callable[[int], float]) -> int:
    """Place of the dearest level that all rows, which take `all_at` a place, fit at, or 0.

    The levels' own seconds tell it where budgets cap nobody.
    """
    low, high = 0, len(levels) - 1
    uncapped = bisect_right(levels, seconds, key=attrgetter("seconds")) - 1
    for place in (uncapped, max(0, uncapped) + 1):
        if low < place <= high:
            low, high = (place, high) if all_at(place) <= seconds else (low, place - 1)
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if all_at(middle) <= seconds else (low, middle - 1)
    return low


def _affordable(
    ends: tuple[float, float], able: int, seconds: float, took: Callable[[int], float]
) -> tuple[int, float]:
    """How many of the `able` ones can be raised so that the batch, which `took` so long with as many, fits; how long.

    `ends`: what it takes with none of them raised and with all.
    """
    lowest, highest = ends
    rise = highest - lowest
    count = able if rise <= 0 else min(able, int(able * (seconds - lowest) / rise))
    while count > 0:
        needed = took(count)
        if needed <= seconds:
            return count, needed
        # Mixing costs more than its share: as many fewer as the excess says.
        count = min(count - 1, int(count * (seconds - lowest) / (needed - lowest)))
    return 0, lowest


def _counts(rows: Mapping[Allowed, int], rank: int) -> Mapping[int, int]:
    counts: dict[int, int] = {}
    for allowed, number in rows.items():
        stitch = up_to(allowed, rank).stitch
        counts[stitch] = counts.get(stitch, 0) + number
    return counts


def divide(costs: Costs, requests: Sequence[Waiting], seconds: float, waiting: Mapping[Tenant, int]) -> Batch:
    """As `spread`, but what is left above the cheapest stitches is divided between tenants by their weights.

    `waiting` is how many requests each has in the whole queue: many of one tenant's share what it is entitled to. What
    a tenant cannot use goes to the others.
    """
    if len(waiting) <= 1:
        return spread(costs, requests, seconds)
    of_tenant: dict[Tenant, list[int]] = {}
    for index, request in enumerate(requests):
        of_tenant.setdefault(request.tenant, []).append(index)
    rows, top = len(requests), len(costs.frontier) - 1

    def price(counts: Mapping[int, int]) -> float:  # a row costs its share of a batch of this size
        return sum(count * costs.seconds(stitch, rows) for stitch, count in counts.items()) / rows

    def at(own: Sequence[int], rank: int) -> float:
        return price(_counts(Counter(requests[place].allowed for place in own), rank))

    least = {tenant: at(own, 0) for tenant, own in of_tenant.items()}
    most = {tenant: at(own, top) for tenant, own in of_tenant.items()}
    claims = {t: t.weight / waiting[t] * len(own) for t, own in of_tenant.items()}
    surplus = fill(seconds - sum(least.values()), claims, {t: most[t] - least[t] for t in of_tenant})
    entries: list[Entry] = [costs.frontier[0]] * rows
    level = costs.frontier[0]
    for tenant, own in of_tenant.items():
        entitled = least[tenant] + surplus[tenant]
        chosen = _spread([requests[place].allowed for place in own], entitled, costs.levels(rows), price)
        level = max(level, chosen.level, key=lambda entry: costs.rank[entry.stitch])
        for index, entry in zip(own, chosen.entries, strict=True):
            entries[index] = entry
    return Batch(tuple(entries), level, None)


def fill(total: float, claims: Mapping[Tenant, float], limits: Mapping[Tenant, float]) -> Mapping[Tenant, float]:
    """`total` divided in proportion to `claims`, nobody beyond its limit; what is over goes to the others."""
    given: dict[Tenant, float] = {}
    left, open_to = max(0.0, total), dict(claims)
    while open_to:
        share = left / sum(open_to.values())
        sated = [tenant for tenant, claim in open_to.items() if claim * share >= limits[tenant]]
        if not sated:
            return given | {tenant: claim * share for tenant, claim in open_to.items()}
        for tenant in sated:
            given[tenant] = limits[tenant]
            left -= limits[tenant]
            del open_to[tenant]
    return given
