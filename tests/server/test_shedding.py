"""Who leaves a queue that cannot be kept: the last of those above their share, and nobody where all can be in time."""

from hypothesis import given
from hypothesis import strategies as st
from made_up import MS, Waiting, queued, small_table

from server.budget import Budget
from server.controller import Controller
from server.queue import DeadlineQueue
from server.shedding import shed
from server.tenants import ANYONE, Tenant

SHOP, LAB = Tenant("shop"), Tenant("lab")
TENANTS = (SHOP, LAB, Tenant("big", 3.0), ANYONE)


def controller() -> Controller:
    """One row takes 1 ms at the cheapest stitch, in batches of up to 8; the SLO is 50 ms."""
    return Controller(small_table(), max_batch=8, slo=50 * MS)


MADE = controller()
ANY, DEAR = MADE.allow(Budget()), MADE.allow(Budget(stitch=3))


def of(tenant: Tenant, *deadlines: float) -> list[Waiting]:
    return [Waiting(ANY, deadline, tenant) for deadline in deadlines]


def left(queue: DeadlineQueue[Waiting], tenant: Tenant) -> int:
    return sum(request.tenant is tenant for request in queue)


def test_where_all_can_be_in_time_nobody_leaves() -> None:
    queue = queued(of(SHOP, *[50 * MS] * 45) + of(LAB, *[50 * MS] * 5))
    assert shed(queue, MADE, 0.0) == []
    assert len(queue) == 50


def test_one_tenant_alone_is_left_to_the_policy() -> None:
    assert shed(queued(of(SHOP, *[10 * MS] * 90)), MADE, 0.0) == []


def test_an_empty_queue_stays_empty() -> None:
    assert shed(queued([]), MADE, 0.0) == []


def test_the_last_of_those_above_their_share_leave_as_many_as_are_too_many() -> None:
    flood = of(SHOP, *(40 * MS + number * 0.1 * MS for number in range(50)))
    queue = queued(flood + of(LAB, *[50 * MS] * 10))
    gone = shed(queue, MADE, 0.0)
    assert {request.tenant for request in gone} == {SHOP}
    assert left(queue, LAB) == 10
    assert 8 <= len(gone) <= 12
    assert max(flood, key=lambda request: request.deadline) in gone
    assert flood[0] not in gone


def test_what_can_wait_leaves_before_what_cannot() -> None:
    later = SHOP.asking(2)
    queue = queued(of(SHOP, *[40 * MS] * 35) + of(later, *[30 * MS] * 15))
    gone = shed(queue, MADE, 0.0)
    assert {request.tenant for request in gone} == {later}
    assert left(queue, SHOP) == 35


def test_nobody_goes_below_its_share() -> None:
    queue = queued(of(SHOP, *[20 * MS] * 40) + of(LAB, *[20 * MS] * 40))
    shed(queue, MADE, 0.0)
    assert 10 <= left(queue, SHOP) <= 11
    assert 10 <= left(queue, LAB) <= 11


def test_a_short_queue_of_one_goes_before_a_long_one_of_another() -> None:
    """What is due later is not what makes the first ones late."""
    queue = queued(of(SHOP, *[50 * MS] * 55) + of(LAB, *(60 * MS + number * 10 * MS for number in range(90))))
    gone = shed(queue, MADE, 0.0)
    assert gone == []
    queue = queued(of(SHOP, *[50 * MS] * 55) + of(LAB, *(40 * MS + number * 10 * MS for number in range(90))))
    gone = shed(queue, MADE, 0.0)
    assert {request.tenant for request in gone} == {SHOP}


def test_work_counts_and_not_requests() -> None:
    dear = [Waiting(DEAR, 48 * MS, LAB) for _ in range(12)]
    queue = queued(of(SHOP, *[48 * MS] * 20) + dear)
    gone = shed(queue, MADE, 0.0)
    assert {request.tenant for request in gone} == {LAB}, "twelve of 4 ms are more than twenty of 1 ms"
    assert 5 <= len(gone) <= 6


def test_a_slower_machine_sheds_more() -> None:
    def kept(headroom: float) -> int:
        queue = queued(of(SHOP, *[50 * MS] * 60) + of(LAB, *[50 * MS] * 10))
        shed(queue, MADE, 0.0, headroom)
        return len(queue)

    assert kept(1.0) > kept(0.5)


@given(
    st.lists(st.tuples(st.integers(0, 3), st.integers(0, 120), st.booleans()), max_size=120),
    st.sampled_from([0.0, 5 * MS, 200 * MS]),
)
def test_whatever_waits_order_and_sums_hold_and_nobody_loses_all(wait: list[tuple[int, int, bool]], now: float) -> None:
    everybody = [Waiting(DEAR if dear else ANY, due * MS, TENANTS[whose]) for whose, due, dear in wait]
    queue = queued(everybody)
    gone = shed(queue, MADE, now)
    assert sorted(map(id, [*queue, *gone])) == sorted(map(id, everybody))
    assert [request.deadline for request in queue] == sorted(request.deadline for request in queue)
    assert abs(queue.floor - sum(request.allowed.floor for request in queue)) < 1e-9
    assert {request.tenant for request in queue} == {request.tenant for request in everybody}
