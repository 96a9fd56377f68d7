"""The queue keeps its order and its sum whatever comes and goes."""

from hypothesis import given
from hypothesis import strategies as st
from made_up import Waiting, small_table

from server.allowance import allow
from server.batch_costs import Costs
from server.budget import Budget
from server.queue import DeadlineQueue

COSTS = Costs(small_table(), max_batch=8)
CHEAP, DEAR = allow(COSTS, Budget()), allow(COSTS, Budget(stitch=3))


def filled(*deadlines: float) -> DeadlineQueue[Waiting]:
    queue: DeadlineQueue[Waiting] = DeadlineQueue()
    for deadline in deadlines:
        queue.push(Waiting(CHEAP, deadline))
    return queue


def test_the_most_urgent_come_first_and_equals_in_the_order_they_came() -> None:
    queue = filled(3.0, 1.0, 2.0)
    first, second = Waiting(CHEAP, 1.5), Waiting(CHEAP, 1.5)
    queue.push(first)
    queue.push(second)
    assert [request.deadline for request in queue] == [1.0, 1.5, 1.5, 2.0, 3.0]
    assert queue[1] is first
    assert queue[2] is second
    assert [request.deadline for request in queue.take(2)] == [1.0, 1.5]
    assert len(queue) == 3


def test_the_late_are_those_whose_deadline_has_passed() -> None:
    queue = filled(3.0, 1.0, 2.0)
    assert [request.deadline for request in queue.take_late(2.0)] == [1.0]
    assert [request.deadline for request in queue] == [2.0, 3.0], "due right now is not late"


def test_only_the_one_asked_for_is_removed() -> None:
    queue = filled(1.0, 1.0, 1.0)
    middle = queue[1]
    queue.remove(middle)
    assert len(queue) == 2
    assert middle not in list(queue)
    queue.remove(middle)
    assert len(queue) == 2, "it was no longer here"


def test_the_floor_before_a_deadline_is_the_share_of_those_due_before() -> None:
    queue = filled(1.0, 2.0, 3.0, 4.0)
    assert queue.floor_before(2.5) == queue.floor / 2
    assert queue.floor_before(0.5) == 0.0


@given(st.lists(st.tuples(st.sampled_from(["push", "dear", "take", "remove", "late"]), st.integers(0, 9))))
def test_order_and_sum_hold_through_any_history(history: list[tuple[str, int]]) -> None:
    queue: DeadlineQueue[Waiting] = DeadlineQueue()
    for what, number in history:
        if what in {"push", "dear"}:
            queue.push(Waiting(CHEAP if what == "push" else DEAR, float(number)))
        elif what == "take":
            queue.take(number)
        elif what == "late":
            queue.take_late(float(number))
        elif queue:
            queue.remove(queue[number % len(queue)])
        deadlines = [request.deadline for request in queue]
        assert deadlines == sorted(deadlines)
        assert abs(queue.floor - sum(request.allowed.floor for request in queue)) < 1e-9
