"""Permits: taken, given back on every way out, refused when none is left or the deadline cannot be kept."""

import pytest
from made_up import MS, small_table

from server.admission import Limiter
from server.budget import Budget
from server.controller import Controller
from server.errors import Overloaded


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
