"""The bound: right where it can be reckoned by hand, and never below what any policy reaches."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from made_up import MS, small_table

from server.admission import Limiter
from server.batch_costs import Costs
from server.controller import POLICIES, Controller
from server.replay.fluid import fluid_bound, taut_string
from server.replay.report import summarise
from server.replay.simulator import simulate
from server.replay.traces import Trace, gamma

COSTS = Costs(small_table(), max_batch=8)
gaps = st.lists(st.floats(0, 0.9), min_size=0, max_size=30)


def at(*times: float) -> Trace:
    return Trace("by hand", np.array(times), max(times) + 1)


def test_alone_everyone_is_worth_the_most() -> None:
    assert fluid_bound(at(0, 1, 2), COSTS, slo=50 * MS) == pytest.approx(0.8)


def test_a_crowd_shares_the_time_evenly() -> None:
    # 10 at once with 30 ms: 3 ms each, halfway between 2 ms (70 %) and 4 ms (80 %).
    assert fluid_bound(at(*[0.0] * 10), COSTS, slo=30 * MS) == pytest.approx(0.75)


def test_where_even_the_cheapest_takes_too_long_a_share_is_dropped() -> None:
    assert fluid_bound(at(*[0.0] * 10), COSTS, slo=5 * MS) == pytest.approx(0.6 * 0.5)


@given(gaps)
def test_the_string_keeps_arrivals_and_deadlines_and_is_taut(between: list[float]) -> None:
    arrivals = np.cumsum([0.0, *between])
    times = taut_string(arrivals, slo=1.0)
    assert len(times) == len(arrivals) + 1
    assert (times[:-1] >= arrivals - 1e-9).all()
    assert (times[1:] <= arrivals + 1 + 1e-9).all()
    steps = np.diff(times)
    for i in range(1, len(steps)):  # it turns only where it lies on a limit
        if steps[i] > steps[i - 1] + 1e-6:
            assert times[i] == pytest.approx(arrivals[i - 1] + 1), "it slows down at a deadline"
        if steps[i] < steps[i - 1] - 1e-6:
            assert times[i] == pytest.approx(arrivals[i]), "it speeds up at an arrival"


@pytest.mark.parametrize("load", [0.5, 0.9, 1.5])
@pytest.mark.parametrize("slo", [10 * MS, 50 * MS])
@pytest.mark.parametrize("policy", POLICIES)
def test_no_policy_does_better(policy: str, slo: float, load: float) -> None:
    arrivals = gamma(load * 1000, 2.0, np.random.default_rng(4), cv2=4)
    trace = Trace("gamma", arrivals, 2.0)
    controller = Controller(small_table(), max_batch=8, slo=slo, policy=policy)
    outcomes = simulate(trace, controller, Limiter(1000, controller))
    effective = summarise(outcomes, trace.seconds).effective
    assert effective is not None
    assert effective <= fluid_bound(trace, COSTS, slo) + 1e-9
