"""A batch's time, spread over its requests: most of them at one level of the hull, some at the next."""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence

from lookup_tables.table import Entry
from server.allowance import Allowed
from server.batch_costs import Costs, Level
from server.policy import up_to
from server.queue import Waiting
from server.tenants import Tenant

Price = Callable[[Mapping[int, int]], float]
"""Seconds of a batch that has so many rows of each stitch."""


def spread(costs: Costs, requests: Sequence[Waiting], seconds: float) -> tuple[tuple[Entry, ...], Entry]:
    """A stitch for each request so that the batch takes about `seconds`, and the dearest level that was afforded.

    Most requests stand at one level of the convex hull and some at the next, each kept within its own budget.
    """
    return _spread(requests, seconds, costs.levels(len(requests)), costs.batch)


def _spread(
    requests: Sequence[Waiting], seconds: float, levels: Sequence[Level], price: Price
) -> tuple[tuple[Entry, ...], Entry]:
    groups = Counter(request.allowed for request in requests)
    low, high = 0, len(levels) - 1
    while low < high:  # the dearest level at which all of them fit
        middle = (low + high + 1) // 2
        if price(_counts(groups, levels[middle].rank)) <= seconds:
            low = middle
        else:
            high = middle - 1
    entries = [up_to(request.allowed, levels[low].rank) for request in requests]
    if low + 1 == len(levels) or not (raised := _raise(requests, entries, levels[low + 1].rank, seconds, price)):
        return tuple(entries), levels[low].entry
    for index in raised:
        entries[index] = up_to(requests[index].allowed, levels[low + 1].rank)
    return tuple(entries), levels[low + 1].entry


def _raise(
    requests: Sequence[Waiting], entries: Sequence[Entry], rank: int, seconds: float, price: Price
) -> Sequence[int]:
    """Which requests can go up to the level of that rank within `seconds`."""
    able = [i for i, request in enumerate(requests) if up_to(request.allowed, rank) is not entries[i]]
    counts = Counter(entry.stitch for entry in entries)
    lowest = price(counts)
    whole = _raised(counts, [(entries[i], up_to(requests[i].allowed, rank)) for i in able])
    rise = price(whole) - lowest
    count = len(able) if rise <= 0 else min(len(able), int(len(able) * (seconds - lowest) / rise))
    while count > 0:
        took = price(_raised(counts, [(entries[i], up_to(requests[i].allowed, rank)) for i in able[:count]]))
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


def divide(
    costs: Costs, requests: Sequence[Waiting], seconds: float, waiting: Mapping[Tenant, int]
) -> tuple[tuple[Entry, ...], Entry]:
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
        return price(_counts(Counter(requests[i].allowed for i in own), rank))

    least = {tenant: at(own, 0) for tenant, own in of_tenant.items()}
    most = {tenant: at(own, top) for tenant, own in of_tenant.items()}
    claims = {t: t.weight / waiting[t] * len(own) for t, own in of_tenant.items()}
    surplus = fill(seconds - sum(least.values()), claims, {t: most[t] - least[t] for t in of_tenant})
    entries: list[Entry] = [costs.frontier[0]] * rows
    level = costs.frontier[0]
    for tenant, own in of_tenant.items():
        entitled = least[tenant] + surplus[tenant]
        chosen, reached = _spread([requests[i] for i in own], entitled, costs.levels(rows), price)
        level = max(level, reached, key=lambda entry: costs.rank[entry.stitch])
        for index, entry in zip(own, chosen, strict=True):
            entries[index] = entry
    return tuple(entries), level


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
