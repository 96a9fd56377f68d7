"""The bound of what batches take, learned from those that ran."""

from collections.abc import Callable

import numpy as np
import pytest

from server.margin import STEP, WINDOW, Margin

Rng = np.random.Generator
NOISES: dict[str, Callable[[Rng, float], float]] = {
    "in proportion": lambda rng, expected: expected * float(np.exp(0.3 * rng.standard_t(5))),
    "a delay": lambda rng, expected: expected + float(rng.exponential(0.01)),
    "both": lambda rng, expected: expected * float(rng.uniform(0.8, 1.2)) + float(rng.exponential(0.005)),
}


def bound(margin: Margin, expected: float) -> float:
    return expected * (1 + margin.slope) + margin.pad


@pytest.mark.parametrize("noise", NOISES)
@pytest.mark.parametrize("promised", [0.1, 0.02])
def test_the_bound_is_exceeded_as_often_as_promised(promised: float, noise: str) -> None:
    rng, margin, missed = np.random.default_rng(0), Margin(promised), 0
    for _ in range(4000):
        expected = float(rng.uniform(0.002, 0.05))
        seconds = NOISES[noise](rng, expected)
        missed += seconds > bound(margin, expected)
        margin.observe(expected, seconds)
    assert missed / 4000 == pytest.approx(promised, rel=0.25)
    assert margin.missed == pytest.approx(promised, abs=0.1)


def fed(noise: str, promised: float = 0.01) -> Margin:
    rng, margin = np.random.default_rng(1), Margin(promised)
    for _ in range(600):
        expected = float(rng.uniform(0.002, 0.05))
        margin.observe(expected, NOISES[noise](rng, expected))
    return margin


def test_a_delay_that_any_batch_may_have_does_not_grow_with_long_ones() -> None:
    margin = fed("a delay")
    assert bound(margin, 0.5) < 0.5 + 0.15  # a bound in proportion, right for batches of 5 ms, would be 10 times that
    assert bound(margin, 0.005) > 0.005 + 0.01


def test_noise_in_proportion_is_met_in_proportion() -> None:
    margin = fed("in proportion")
    assert bound(margin, 0.5) > 0.5 * 1.4


def test_the_bound_follows_a_machine_that_becomes_noisier() -> None:
    rng, margin, missed = np.random.default_rng(1), Margin(0.05), 0
    for number in range(4000):
        width = 0.1 if number < 2000 else 0.5
        seconds = float(rng.uniform(1 - width, 1 + width))
        missed += seconds > bound(margin, 1.0)
        margin.observe(1.0, seconds)
    assert missed / 4000 == pytest.approx(0.05, rel=0.4)


def test_nothing_is_added_without_errors_or_without_a_promise() -> None:
    exact, careless = Margin(0.01), Margin(None)
    for expected in (0.01, 0.02, 0.05):
        exact.observe(expected, expected)
        careless.observe(expected, 10 * expected)
    assert (exact.pad, exact.slope) == (careless.pad, careless.slope) == (0.0, 0.0)


def test_batches_that_stall_again_and_again_do_not_drive_the_bound_away() -> None:
    margin = Margin(0.01)
    for number in range(2000):
        margin.observe(0.001, 10.0 if number % 10 == 0 else 0.001)
    assert margin.beyond(0.001) < 0.02
    for _ in range(256):
        margin.observe(0.001, 0.001)
    assert margin.beyond(0.001) < 0.0001


def test_a_batch_that_stalled_does_not_bend_the_bound() -> None:
    margin = fed("in proportion", 0.05)
    before = margin.slope, margin.pad
    margin.observe(0.003, 10.0)
    assert (margin.slope, margin.pad) == pytest.approx(before, rel=0.3)


def test_a_full_window_is_fitted_now_and_then_and_at_once_when_the_bound_is_exceeded() -> None:
    rng, margin = np.random.default_rng(0), Margin(0.1)
    for _ in range(WINDOW):
        margin.observe(float(rng.uniform(0.002, 0.05)), float(rng.uniform(0.052, 0.06)))
    bounds = []
    for _ in range(2 * STEP):
        margin.observe(float(rng.uniform(0.002, 0.05)), 0.002)
        bounds.append(margin.beyond(0.02))
    assert len(set(bounds)) in {2, 3}
    margin.observe(0.02, 1.0)
    assert margin.beyond(0.02) != bounds[-1]
