"""Permits: taken, given back on every way out, refused when none is left or the deadline cannot be kept."""

import pytest
from made_up import MS, small_table

from server.admission import Limiter
from server.budget import Budget
from server.controller import Controller
from server.errors import Overloaded
from server.tenants import Tenant

SHOP, LAB, HALF = Tenant("shop"), Tenant("lab"), Tenant("half", 0.5)


@pytest.fixture
def controller() -> Controller:
    return Controller(small_table(), max_batch=8, slo=50 * MS)


def test_permits_come_back_after_success_and_failure(controller: Controller) -> None:
    limiter, allowed = Limiter(1, controller), controller.allow(Budget())
    with limiter.admit(allowed):
        assert limiter.inside == 1
        assert limiter.floor == pytest.approx(1 * MS)
    with pytest.raises(RuntimeError), limiter.admit(allowed):
        raise RuntimeError
    assert (limiter.inside, limiter.floor) == (0, 0.0)


def test_beyond_capacity_is_refused_with_the_time_to_drain(controller: Controller) -> None:
    limiter, allowed = Limiter(2, controller), controller.allow(Budget())
    with limiter.admit(allowed), limiter.admit(allowed):
        with pytest.raises(Overloaded, match="2 images are inside") as refusal:
            limiter.check(allowed, slack=1.0, ahead=0.0, running=5 * MS)
        assert refusal.value.retry_after == pytest.approx(7 * MS)
    limiter.check(allowed, slack=1.0, ahead=0.0, running=0.0)


def test_only_what_even_the_cheapest_stitches_cannot_keep_is_refused(controller: Controller) -> None:
    limiter, allowed = Limiter(100, controller), controller.allow(Budget())
    limiter.check(allowed, slack=20.1 * MS, ahead=9 * MS, running=10 * MS)
    with pytest.raises(Overloaded, match="20 ms even with the cheapest") as refusal:
        limiter.check(allowed, slack=19.9 * MS, ahead=9 * MS, running=10 * MS)
    assert refusal.value.retry_after == pytest.approx(20 * MS)


def test_a_dear_budget_is_refused_where_a_cheap_one_is_not(controller: Controller) -> None:
    limiter = Limiter(100, controller)
    limiter.check(controller.allow(Budget()), slack=3 * MS, ahead=0.0, running=1 * MS)
    with pytest.raises(Overloaded):
        limiter.check(controller.allow(Budget(stitch=3)), slack=3 * MS, ahead=0.0, running=1 * MS)


def test_a_slow_machine_and_others_load_count(controller: Controller) -> None:
    limiter, allowed = Limiter(100, controller), controller.allow(Budget())
    limiter.check(allowed, slack=5 * MS, ahead=3 * MS, running=0.0)
    with pytest.raises(Overloaded):
        limiter.check(allowed, slack=5 * MS, ahead=3 * MS, running=0.0, headroom=0.5)


def test_nobody_comes_in_while_memory_is_short(controller: Controller) -> None:
    limiter = Limiter(100, controller, short=lambda: True)
    with pytest.raises(Overloaded, match="short of memory"):
        limiter.check(controller.allow(Budget()), slack=1.0, ahead=0.0, running=0.0)


def test_an_idle_server_lets_everybody_in_to_learn_how_slow_it_is(controller: Controller) -> None:
    for _ in range(100):
        controller.drift.observe(1.0, 100.0)
    Limiter(100, controller).check(controller.allow(Budget()), slack=3 * MS, ahead=0.0, running=0.0)


def full_of(controller: Controller, tenant: Tenant, images: int, capacity: int = 100, due: float = 49 * MS) -> Limiter:
    """A limiter with so many of one tenant's images inside, each of 1 ms at least."""
    limiter = Limiter(capacity, controller)
    for _ in range(images):
        limiter.enter(controller.allow(Budget()), tenant, due)
    return limiter


def lets_in(limiter: Limiter, controller: Controller, tenant: Tenant, slack: float, ahead: float) -> bool:
    try:
        limiter.check(controller.allow(Budget()), slack, ahead, running=0.0, tenant=tenant, due=slack)
    except Overloaded:
        return False
    return True


@pytest.mark.parametrize(("tenant", "fits"), [(HALF, 17), (LAB, 25), (Tenant("big", 3.0), 37)])
def test_a_full_queue_takes_whoever_is_within_its_share_by_weight_and_nobody_else(
    controller: Controller, tenant: Tenant, fits: int
) -> None:
    limiter = full_of(controller, SHOP, 60)
    assert not lets_in(limiter, controller, SHOP, 49 * MS, 60 * MS)
    for inside in range(fits):
        assert lets_in(limiter, controller, tenant, 49 * MS, (60 + inside) * MS)
        limiter.enter(controller.allow(Budget()), tenant, 49 * MS)
    assert not lets_in(limiter, controller, tenant, 49 * MS, (60 + fits) * MS)


def test_what_is_due_later_does_not_count_against_its_tenant(controller: Controller) -> None:
    limiter = full_of(controller, LAB, 40, due=500 * MS)
    for _ in range(60):
        limiter.enter(controller.allow(Budget()), SHOP, 50 * MS)
    assert lets_in(limiter, controller, LAB, 50 * MS, 60 * MS)


def test_what_runs_already_does_not_count_against_its_tenant(controller: Controller) -> None:
    limiter = full_of(controller, SHOP, 60)
    for _ in range(30):
        limiter.enter(controller.allow(Budget()), LAB, 49 * MS)
    assert not lets_in(limiter, controller, LAB, 49 * MS, ahead=90 * MS)
    assert lets_in(limiter, controller, LAB, 49 * MS, ahead=60 * MS), "a third of all that is inside"


def test_a_share_is_of_no_use_where_the_request_would_be_late_all_the_same(controller: Controller) -> None:
    limiter = full_of(controller, SHOP, 60)
    with pytest.raises(Overloaded, match="even with the cheapest"):
        limiter.check(controller.allow(Budget()), 50 * MS, 60 * MS, running=49.5 * MS, tenant=LAB, due=50 * MS)


def test_above_its_share_a_tenant_leaves_some_time_to_the_others_inside(controller: Controller) -> None:
    limiter = full_of(controller, SHOP, 40)
    assert lets_in(limiter, controller, SHOP, 50 * MS, 48 * MS), "nobody else is inside"
    with limiter.admit(controller.allow(Budget()), LAB, 50 * MS):
        assert not lets_in(limiter, controller, SHOP, 50 * MS, 48 * MS)
        assert lets_in(limiter, controller, SHOP, 50 * MS, 41 * MS)
        assert lets_in(limiter, controller, LAB, 50 * MS, 48 * MS), "it is within its own"
    assert lets_in(limiter, controller, SHOP, 50 * MS, 48 * MS)


def test_when_one_tenant_has_all_places_another_still_finds_its_share_of_them(controller: Controller) -> None:
    limiter = full_of(controller, SHOP, 10, capacity=10)
    for _ in range(5):
        limiter.check_room(tenant=LAB)
        limiter.enter(controller.allow(Budget()), LAB)
    for tenant in (LAB, SHOP):
        with pytest.raises(Overloaded, match="15 images are inside"):
            limiter.check_room(tenant=tenant)


def test_however_many_tenants_come_twice_the_places_are_all_there_are(controller: Controller) -> None:
    limiter = full_of(controller, SHOP, 10, capacity=10)
    came = 0
    for number in range(100):
        tenant = Tenant(f"{number}", 50.0)
        try:
            limiter.check_room(tenant=tenant)
        except Overloaded:
            continue
        limiter.enter(controller.allow(Budget()), tenant)
        came += 1
    assert (came, limiter.inside) == (10, 20)


def test_who_has_left_holds_nothing(controller: Controller) -> None:
    limiter, allowed = full_of(controller, SHOP, 10, capacity=10), controller.allow(Budget())
    for due in (3.0, 1.0, 2.0, 1.0):
        limiter.enter(allowed, LAB, due)
    for due in (1.0, 3.0, 2.0, 1.0):
        limiter.leave(allowed, LAB, due)
    for _ in range(10):
        limiter.leave(allowed, SHOP, 49 * MS)
    assert (limiter.inside, limiter.floor) == (0, 0.0)
    for _ in range(10):
        limiter.check_room(tenant=LAB)
        limiter.enter(allowed, LAB)
