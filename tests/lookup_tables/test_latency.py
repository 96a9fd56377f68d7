"""Curves between and beyond what was measured."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lookup_tables.latency import Curve, Latency, Measurement, ModuleMeasurement

LATENCY = Latency(
    "cpu-test",
    (
        Measurement(0, 4, 0.016, 0.020, 30),
        Measurement(0, 1, 0.010, 0.012, 30),
        Measurement(5, 1, 0.008, 0.009, 30),
        Measurement(5, 4, 0.030, 0.033, 30),
    ),
)

curves = st.dictionaries(st.integers(1, 1000), st.floats(1e-6, 1e3), min_size=1, max_size=8)


def test_between_two_points_a_curve_is_a_straight_line() -> None:
    assert Curve.through([(4, 40.0), (2, 10.0)]).at(3) == pytest.approx(25.0)


def test_below_the_first_point_a_curve_is_flat() -> None:
    assert Curve.through([(4, 40.0), (8, 80.0)]).at(1) == 40.0


def test_above_the_last_point_the_last_slope_goes_on() -> None:
    assert Curve.through([(1, 10.0), (2, 12.0), (4, 20.0)]).at(6) == pytest.approx(28.0)


def test_a_single_point_goes_on_in_proportion() -> None:
    assert Curve.through([(4, 20.0)]).at(6) == pytest.approx(30.0)


@pytest.mark.parametrize("before_the_last", [21.0, 1.0], ids=["falling", "rising too steeply"])
def test_noise_in_the_last_slope_gives_way_to_proportion(before_the_last: float) -> None:
    assert Curve.through([(1, 1.0), (3.9, before_the_last), (4, 20.0)]).at(6) == pytest.approx(30.0)


def test_of_several_values_at_one_place_the_largest_counts() -> None:
    assert Curve.through([(4, 20.0), (4, 25.0), (4, 22.0)]).at(4) == 25.0


@given(curves)
def test_a_curve_passes_through_its_points(points: dict[int, float]) -> None:
    curve = Curve.through(points.items())
    assert all(curve.at(x) == y for x, y in points.items())


@given(curves, st.integers(1, 2000), st.integers(1, 2000))
def test_a_rising_curve_never_falls_nor_promises_less(points: dict[int, float], x: int, y: int) -> None:
    curve = Curve.through(points.items())
    low, high = sorted((x, y))
    assert curve.rising().at(low) <= curve.rising().at(high) * (1 + 1e-12)
    assert all(curve.rising().at(at) >= value for at, value in points.items())


def test_measurements_come_in_any_order() -> None:
    assert LATENCY.seconds(0, 2) == pytest.approx(0.012)
    assert LATENCY.seconds(0, 4, "p99") == 0.020
    assert set(LATENCY.stitches) == {0, 5}


def test_over_flops_a_dip_is_filled() -> None:
    curve = LATENCY.over_flops({0: 100, 5: 200, 9: 300}, rows=1)
    assert (curve.at(100), curve.at(200)) == (0.010, 0.010)


def test_over_flops_takes_the_batch_and_the_quantile_asked_for() -> None:
    assert LATENCY.over_flops({0: 100, 5: 200}, rows=4, quantile="p99").at(150) == pytest.approx(0.0265)


def test_an_unmeasured_stitch_has_no_curve() -> None:
    with pytest.raises(KeyError):
        LATENCY.seconds(9, 1)


def test_a_last_block_that_was_not_measured_takes_as_long_as_others() -> None:
    old = Latency("cpu-test", (), modules=(ModuleMeasurement("a.block", 1, 0.004, 0.005, 30),))
    assert old.of_module("a.block.last").at(1) == 0.004
    new = Latency("cpu-test", (), modules=(*old.modules, ModuleMeasurement("a.block.last", 1, 0.001, 0.002, 30)))
    assert new.of_module("a.block.last").at(1) == 0.001
    assert new.of_module("a.block").at(1) == 0.004
    with pytest.raises(KeyError):
        old.of_module("b.block.last")
