"""Forms that come to a server which nobody else asks, and which believes that it is slow."""

from pathlib import Path

import pytest
from conftest import Running, settings

from server.answering import Asked, asked, let_in
from server.budget import Budget
from server.errors import Infeasible, Overloaded
from server.service import Service

IMAGES = 8


@pytest.fixture
def slow(running: Running, cache: Path) -> Service:
    """Its batches have taken ten times what the table says."""
    service = Service(settings(cache), running.service.engine, running.service.table)
    for _ in range(300):
        service.controller.drift.observe(0.01, 0.1)
    return service


def form(service: Service, times: float) -> list[Asked | None]:
    """Images with a deadline of so many times what the cheapest stitches take for them by the table."""
    floor = service.controller.allow(Budget()).floor
    budget = Budget(deadline=times * service.controller.costs.drain(IMAGES * floor))
    return [asked(service, budget, 1, service.clock(), "") for _ in range(IMAGES)]


def test_a_form_that_only_drift_speaks_against_is_let_in_where_nobody_else_is(slow: Service) -> None:
    with let_in(slow, form(slow, 2.0)):
        assert slow.limiter.inside == IMAGES
        with pytest.raises(Overloaded), let_in(slow, form(slow, 2.0)):
            pass
    assert slow.limiter.inside == 0


def test_a_form_that_could_never_be_in_time_is_refused_even_then(slow: Service) -> None:
    with pytest.raises((Overloaded, Infeasible)), let_in(slow, form(slow, 0.5)):
        pass
