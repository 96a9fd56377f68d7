"""What a policy sees of the time there is, and how many it lets go together when not all can be in time."""

import pytest
from made_up import MS, Waiting, queued, small_table

from server.batch_costs import Costs
from server.budget import Budget
from server.controller import Controller
from server.forecast import Forecast
from server.pace import Pace
from server.policy import View


def view(*deadlines: float, safe: float = 1.0, pad: float = 0.0) -> View:
    allowed = Controller(small_table(), max_batch=8, slo=1.0).allow(Budget())
    waiting = queued(Waiting(allowed, deadline) for deadline in deadlines)
    return View(waiting, 0.0, slo=1.0, safe=safe, pad=pad, likely=1.0, forecast=Forecast())


def test_without_a_spread_as_many_are_in_time_as_are_due_after_the_batch() -> None:
    seen = view(1 * MS, 3 * MS, 5 * MS)
    assert seen.in_time(4 * MS) == seen.surely_in_time(4 * MS) == 1
    assert seen.mean_in_time(3, 4 * MS) == pytest.approx(1)
    assert seen.mean_in_time(2, 2 * MS) == pytest.approx(2)


def test_with_a_spread_whoever_is_due_as_the_batch_ends_is_in_time_mostly() -> None:
    seen = view(*[4.1 * MS] * 3, safe=0.5, pad=1 * MS)
    assert seen.mean_in_time(3, 4 * MS) == pytest.approx(3 * 5 / 6)
    assert seen.mean_in_time(3, 3 * MS) == pytest.approx(3 * 5 / 6)
    assert seen.mean_in_time(3, 1 * MS) == pytest.approx(3)


@pytest.mark.parametrize(("safe", "rows"), [(1.0, 6), (0.5, 3), (0.1, 6)])
def test_in_overload_a_batch_is_as_long_as_brings_most_answers_in_time(safe: float, rows: int) -> None:
    seen = view(*[6.5 * MS] * 20, safe=safe)
    # One row of the cheapest takes 1 ms, and in one batch of a hundred 1 / safe; from some spread on no size is surer.
    assert len(Pace(Costs(small_table(), 8)).decide(seen).entries) == rows
