"""Rates and dispersions are those of the arrivals shown."""

import numpy as np
import pytest

from server.forecast import Forecast

SLO = 0.1


def test_nothing_seen_nothing_expected() -> None:
    assert Forecast().most(1.0, deviations=3) == 0.0


def test_a_steady_rate_is_learned_from_counts() -> None:
    forecast = Forecast()
    for _ in range(400):
        forecast.observe(5, 0.05, SLO)
    assert forecast.rate == pytest.approx(100, rel=0.01)
    assert forecast.most(0.1, deviations=0) == pytest.approx(10, rel=0.01)


@pytest.mark.parametrize("dispersion", [1.0, 8.0])
def test_bursts_widen_what_is_expected(dispersion: float) -> None:
    generator = np.random.default_rng(3)
    forecast = Forecast()
    seen = []
    for _ in range(4000):
        mean = generator.gamma(20 / (dispersion - 1), dispersion - 1) if dispersion > 1 else 20.0
        forecast.observe(int(generator.poisson(mean)), 0.02, SLO)
        seen.append(forecast.dispersion)
    assert np.mean(seen[1000:]) == pytest.approx(dispersion, rel=0.35)


def test_no_time_teaches_nothing() -> None:
    forecast = Forecast()
    forecast.observe(7, 0.0, SLO)
    assert forecast.rate == 0.0


def test_a_load_that_has_gone_is_forgotten_soon_and_is_not_taken_for_bursts() -> None:
    generator = np.random.default_rng(4)
    forecast = Forecast()
    for rate, steps in ((20.0, 200), (1000.0, 300)):
        for _ in range(steps):
            forecast.observe(int(generator.poisson(rate * 0.02)), 0.02, SLO)
    assert forecast.rate > 900
    for _ in range(10):  # two SLOs, where the rate looks back ten
        forecast.observe(int(generator.poisson(20.0 * 0.02)), 0.02, SLO)
    assert forecast.rate < 200
    assert forecast.dispersion < 1.1
