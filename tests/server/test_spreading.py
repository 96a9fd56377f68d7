"""How a batch's time is divided: over requests, and between tenants."""

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st
from made_up import MS, Waiting, small_table

from server.allowance import Allowed, allow
from server.batch_costs import Costs
from server.budget import Budget
from server.spreading import divide, fill, spread
from server.tenants import Tenant

COSTS = Costs(small_table(), max_batch=16)  # 1, 2 and 4 ms a row for 60, 70 and 80 %
ANY = allow(COSTS, Budget())
SHOP, LAB = Tenant("shop"), Tenant("lab")


def of(*tenants: Tenant, allowed: Allowed = ANY) -> list[Waiting]:
    return [Waiting(allowed, 1.0, tenant) for tenant in tenants]


def divided(requests: list[Waiting], seconds: float, waiting: dict[Tenant, int]) -> dict[Tenant, list[int]]:
    entries, _, _ = divide(COSTS, requests, seconds, waiting)
    return {
        tenant: [entry.stitch for request, entry in zip(requests, entries, strict=True) if request.tenant is tenant]
        for tenant in waiting
    }


@pytest.mark.parametrize(
    ("seconds", "stitches"),
    [(0, [0, 0, 0, 0]), (5, [0, 0, 0, 1]), (8, [1, 1, 1, 1]), (13, [1, 1, 3, 3]), (16, [3] * 4), (99, [3] * 4)],
)
def test_a_batch_takes_what_time_there_is(seconds: float, stitches: list[int]) -> None:
    entries, level, took = spread(COSTS, of(*[SHOP] * 4), seconds * MS)
    assert sorted(entry.stitch for entry in entries) == stitches
    assert level.stitch == max(stitches)
    assert took == pytest.approx(COSTS.batch(Counter(stitches)))


@given(st.integers(1, 16), st.floats(0, 0.1), st.lists(st.sampled_from([None, 1e9, 2e9, 3e9]), min_size=16))
def test_the_time_is_kept_unless_even_the_cheapest_takes_longer(
    rows: int, seconds: float, caps: list[float | None]
) -> None:
    requests = [Waiting(allow(COSTS, Budget(max_flops=cap)), 1.0) for cap in caps[:rows]]
    entries, _, took = spread(COSTS, requests, seconds)
    counts = {entry.stitch: entries.count(entry) for entry in entries}
    assert COSTS.batch(counts) <= max(seconds, COSTS.least(rows)) + 1e-12
    assert took == pytest.approx(COSTS.batch(counts))
    assert all(entry in request.allowed.entries for request, entry in zip(requests, entries, strict=True))


def test_a_tenants_burst_costs_its_own_accuracy() -> None:
    alone = divided(of(SHOP, *[LAB] * 7), 12 * MS, {SHOP: 1, LAB: 7})
    burst = divided(of(SHOP, *[LAB] * 7), 12 * MS, {SHOP: 1, LAB: 70})
    assert burst[SHOP] == [3]
    assert burst[SHOP] >= alone[SHOP]
    assert sum(burst[LAB]) < sum(alone[LAB])


def test_weights_say_who_is_worth_more() -> None:
    heavy = Tenant("heavy", weight=3.0)
    stitches = divided(of(*[heavy] * 4, *[LAB] * 4), 12 * MS, {heavy: 4, LAB: 4})
    assert sum(stitches[heavy]) > sum(stitches[LAB])
    equal = divided(of(*[SHOP] * 4, *[LAB] * 4), 12 * MS, {SHOP: 4, LAB: 4})
    assert equal[SHOP] == equal[LAB]


def test_what_one_cannot_use_goes_to_the_other() -> None:
    capped = [*of(*[SHOP] * 4, allowed=allow(COSTS, Budget(max_flops=1e9))), *of(*[LAB] * 4)]
    assert divided(capped, 20 * MS, {SHOP: 4, LAB: 4}) == {SHOP: [0] * 4, LAB: [3] * 4}


claims = st.dictionaries(st.sampled_from([Tenant(name) for name in "abcd"]), st.floats(0.1, 10), min_size=1)


@given(claims, st.floats(0, 100), st.floats(0, 30))
def test_all_is_given_unless_everyone_is_sated(shares: dict[Tenant, float], total: float, limit: float) -> None:
    given_out = fill(total, shares, dict.fromkeys(shares, limit))
    assert set(given_out) == set(shares)
    assert all(0 <= amount <= limit + 1e-9 for amount in given_out.values())
    assert sum(given_out.values()) == pytest.approx(min(total, limit * len(shares)), abs=1e-6)
