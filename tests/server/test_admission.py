"""Permits: taken, given back on every way out, refused when none is left."""

import pytest

from server.admission import Limiter
from server.errors import Overloaded


def test_permits_come_back_after_success_and_failure() -> None:
    limiter = Limiter(1, lambda inside: 0.0)
    with limiter.admit() as permits:
        assert permits == limiter.inside == 1
    with pytest.raises(RuntimeError), limiter.admit():
        raise RuntimeError
    assert limiter.inside == 0


def test_beyond_capacity_is_refused_with_the_time_to_drain() -> None:
    limiter = Limiter(2, lambda inside: 3.0 * inside)
    with limiter.admit(), limiter.admit():
        with pytest.raises(Overloaded) as refusal, limiter.admit():
            pass
        assert refusal.value.retry_after == 6.0
        assert limiter.inside == 2
    with limiter.admit():
        assert limiter.inside == 1


def test_a_check_takes_nothing() -> None:
    limiter = Limiter(1, lambda inside: 0.0)
    limiter.check()
    with limiter.admit():
        assert limiter.inside == 1
        with pytest.raises(Overloaded):
            limiter.check()
    limiter.check()
    assert limiter.inside == 0


def test_several_permits_are_as_many_as_are_left() -> None:
    limiter = Limiter(5, lambda inside: 0.0)
    with limiter.admit(3) as first, limiter.admit(3) as second:
        assert (first, second, limiter.inside) == (3, 2, 5)
        with pytest.raises(Overloaded), limiter.admit(2):
            pass
    assert limiter.inside == 0
