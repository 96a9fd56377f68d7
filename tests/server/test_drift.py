"""What is learned from observed over predicted seconds."""

import pytest

from server.drift import Drift


def fed(drift: Drift, ratio: float, times: int) -> Drift:
    for _ in range(times):
        drift.observe(1.0, ratio)
    return drift


def test_the_center_follows_what_is_observed() -> None:
    assert fed(Drift(), 2.0, 200).center == pytest.approx(2.0, rel=1e-3)
    assert fed(Drift(), 0.5, 200).center == pytest.approx(0.5, rel=1e-3)


def test_one_batch_that_stalled_says_little() -> None:
    drift = fed(Drift(), 1.0, 50)
    drift.observe(1.0, 1e6)
    assert drift.center < 1.2
    assert fed(drift, 1e6, 1000).center == pytest.approx(100)


def test_without_a_promise_there_is_no_margin() -> None:
    drift = Drift(None)
    for ratio in (0.5, 2.0, 0.7, 1.4):
        drift.observe(1.0, ratio)
    assert drift.upper == drift.center


def test_without_noise_the_margin_is_nothing() -> None:
    drift = fed(Drift(0.01), 1.3, 600)
    assert drift.upper == pytest.approx(drift.center, rel=1e-3)


def test_headroom_counts_until_drift_has_seen_it() -> None:
    drift = fed(Drift(), 1.0, 10)
    assert drift.left(0.5) == 0.5
    for _ in range(100):
        drift.observe(1.0, 2.0, headroom=0.5)
    assert drift.center == pytest.approx(2.0, rel=1e-3)
    assert drift.left(0.5) == pytest.approx(1.0, rel=1e-3)
    assert drift.left(0.25) == pytest.approx(0.5, rel=1e-3)
    assert drift.left(1.0) == 1.0  # what others give back, drift must learn: never more than all


def test_others_who_do_no_harm_are_soon_forgotten() -> None:
    drift = Drift()
    for _ in range(50):
        drift.observe(1.0, 1.0, headroom=0.5)
    assert drift.left(0.5) / drift.center == pytest.approx(1.0, rel=0.01)


def test_what_headroom_foretold_does_not_widen_the_margin() -> None:
    foretold, sudden = fed(Drift(0.01), 1.0, 300), fed(Drift(0.01), 1.0, 300)
    for _ in range(100):
        foretold.observe(1.0, 2.0, headroom=0.5)
        sudden.observe(1.0, 2.0)
    assert foretold.upper / foretold.center == pytest.approx(1.0, rel=1e-3)
    assert sudden.upper / sudden.center > 1.5


def test_a_table_that_was_too_slow_is_not_answered_with_haste() -> None:
    drift = Drift(0.01)
    for _ in range(10):
        drift.observe(1.0, 0.2)
        assert drift.upper >= drift.center > 0.2
        assert drift.margin.pad >= 0.0
