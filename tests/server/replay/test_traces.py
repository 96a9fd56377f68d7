"""Traces have the rates and the burstiness that their specs say."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from server.replay.traces import GRAMMAR, MOST_ARRIVALS, PRESETS, Times, Trace, constant, day, from_csv, specs, trace

EVERY_KIND = (
    *PRESETS,
    "poisson:load=1.3",
    "constant:load=0.5",
    "day:load=0.6",
    "step:base=0.3,peak=3,for=10",
    "step:base=0,peak=2,for=5,cv2=4",
    "ramp:from=1.5,to=0.2,tau=1000,cv2=8",
)


def cv2(times: Times) -> float:
    gaps = np.diff(times)
    return float(gaps.var() / gaps.mean() ** 2)


def per_second(times: Times, start: float, stop: float) -> float:
    return float(((times >= start) & (times < stop)).sum() / (stop - start))


@pytest.mark.parametrize("spec", EVERY_KIND)
def test_arrivals_ascend_from_0_to_the_end_and_a_seed_draws_them_again(spec: str) -> None:
    drawn = trace(spec, capacity=200, seconds=40, seed=3)
    assert drawn.name == spec
    assert drawn.seconds == 40
    assert drawn.arrivals.dtype == np.float64
    assert drawn.arrivals[0] >= 0
    assert drawn.arrivals[-1] < 40
    assert (np.diff(drawn.arrivals) >= 0).all()
    assert np.array_equal(drawn.arrivals, trace(spec, capacity=200, seconds=40, seed=3).arrivals)
    if not spec.startswith("constant"):
        assert not np.array_equal(drawn.arrivals[:100], trace(spec, capacity=200, seconds=40, seed=4).arrivals[:100])


# Four standard errors: of the mean, sqrt(cv2 / n); of CV^2, sqrt((2 cv2 + 2) / n) by the delta method for gamma gaps.
@pytest.mark.parametrize("squared", [0.5, 1, 2, 4, 8])
@pytest.mark.parametrize("load", [0.3, 1.2])
def test_gamma_has_the_mean_and_the_variation_asked_for(squared: float, load: float) -> None:
    seconds = 100_000 / (1000 * load)
    drawn = trace(f"gamma:cv2={squared},load={load}", capacity=1000, seconds=seconds, seed=1)
    assert drawn.rate == pytest.approx(1000 * load, rel=4 * (squared / 100_000) ** 0.5)
    assert cv2(drawn.arrivals) == pytest.approx(squared, rel=4 * ((2 * squared + 2) / 100_000) ** 0.5)


def test_constant_arrivals_are_evenly_spaced() -> None:
    times = constant(rate=250, seconds=2)
    assert len(times) == 500
    assert np.allclose(np.diff(times), 1 / 250)


@pytest.mark.parametrize("tau", [250, 500, 5000])
@pytest.mark.parametrize("load", [0.5, 0.8])
def test_a_ramp_climbs_at_superserves_acceleration_scaled_to_the_capacity(tau: float, load: float) -> None:
    capacity, seconds = 9_750 * 4, 60  # four times the system that tau is given for
    times = trace(f"ramp:to={load},tau={tau}", capacity, seconds, seed=0).arrivals
    ends = 6 + (load * 9_750 - 2_500) / tau
    assert per_second(times, 0, 6) == pytest.approx(4 * 2_500, rel=0.02)
    assert per_second(times, ends, 60) == pytest.approx(capacity * load, rel=0.02)
    between = per_second(times, 6, ends)
    assert between == pytest.approx((4 * 2_500 + capacity * load) / 2, rel=0.03)


def test_a_ramp_that_the_time_cuts_short_stops_on_its_way() -> None:
    times = trace("ramp:to=0.8,tau=250", capacity=9_750, seconds=10, seed=0).arrivals
    assert per_second(times, 9.5, 10) == pytest.approx(2_500 + 250 * 8.75, rel=0.05)


def test_a_step_goes_up_in_the_middle_and_comes_back() -> None:
    times = trace("step:base=0.3,peak=3,for=10", capacity=1000, seconds=30, seed=0).arrivals
    assert per_second(times, 0, 10) == pytest.approx(300, rel=0.1)
    assert per_second(times, 10, 20) == pytest.approx(3000, rel=0.05)
    assert per_second(times, 20, 30) == pytest.approx(300, rel=0.1)


def test_a_day_is_quiet_at_night_and_has_the_mean_asked_for() -> None:
    times = day(rate=1000, seconds=240, generator=np.random.default_rng(0), cv2=2)
    assert len(times) / 240 == pytest.approx(1000, rel=0.02)
    assert per_second(times, 30, 50) < 500
    assert per_second(times, 195, 205) == pytest.approx(1445, rel=0.05)


def test_there_are_15_presets_at_the_loads_of_the_comparison() -> None:
    assert len(set(PRESETS)) == 15
    gammas = [trace(spec, capacity=1000, seconds=60, seed=0) for spec in PRESETS if spec.startswith("gamma")]
    assert sorted(round(each.rate, -1) for each in gammas) == pytest.approx([300] * 3 + [500] * 3 + [750] * 3, abs=20)


def test_specs_are_separated_by_spaces_and_presets_is_a_word(tmp_path: Path) -> None:
    assert specs("poisson:load=1 presets a.csv") == ("poisson:load=1", *PRESETS, "a.csv")
    file = tmp_path / "with a space.csv"
    file.write_text("0\n1\n")
    assert specs(str(file)) == (str(file),)
    with pytest.raises(ValueError, match="no trace given"):
        specs(" ")


@pytest.mark.parametrize(
    ("spec", "says"),
    [
        ("", "one of gamma"),
        ("gamam:cv2=1,load=1", "one of gamma"),
        ("gamma:cv2=1", "load must be given"),
        ("gamma:cv2=1,load=1,rate=3", "no option 'rate'"),
        ("gamma:cv2=-1,load=1", "cv2=-1 must be a number 0 or more"),
        ("gamma:cv2=1,load=0", "load=0 must be a number more than 0"),
        ("gamma:cv2=1,load=nan", "load=nan"),
        ("gamma:cv2=1,load=inf", "load=inf"),
        ("gamma:cv2=1,load=", "load="),
        ("gamma:cv2=1,load=1e-9", "arrivals; change load or seconds"),
        ("gamma:cv2=1,load=1e9", f"{MOST_ARRIVALS:,}"),
        ("constant:load=1e9", f"{MOST_ARRIVALS:,}"),
        ("step:base=0.3,peak=3,for=100", "the trace lasts 60 s"),
    ],
)
def test_a_bad_spec_is_refused_with_what_is_wrong(spec: str, says: str) -> None:
    with pytest.raises(ValueError, match="trace '") as refusal:
        trace(spec, capacity=1000, seconds=60)
    assert says in str(refusal.value)


@pytest.mark.parametrize(("capacity", "seconds"), [(0, 60), (-1, 60), (float("nan"), 60), (1, 0), (1, float("inf"))])
def test_a_capacity_or_length_that_is_none_is_refused(capacity: float, seconds: float) -> None:
    with pytest.raises(ValueError, match="must be more than zero"):
        trace("poisson:load=1", capacity, seconds)


def test_the_grammar_names_every_kind() -> None:
    assert all(f"{kind}:" in GRAMMAR for kind in ("gamma", "poisson", "constant", "ramp", "day", "step"))


@pytest.fixture
def written(tmp_path: Path) -> Callable[[bytes], Path]:
    def write(content: bytes) -> Path:
        path = tmp_path / "mine.csv"
        path.write_bytes(content)
        return path

    return write


@pytest.mark.parametrize("head", [b"", b"seconds\n", b'\xef\xbb\xbf"seconds"\r\n', b"\n"])
def test_a_file_of_seconds_is_shifted_to_start_at_0(written: Callable[[bytes], Path], head: bytes) -> None:
    path = written(head + b"100\n100\r\n 101.5\n\n104")
    read = trace(str(path), capacity=1)
    assert read.name == "mine"
    assert read.arrivals.tolist() == [0, 0, 1.5, 4]
    assert read.seconds == pytest.approx(4 * 4 / 3)
    assert trace(str(path), capacity=1, seconds=2).arrivals.tolist() == [0, 0, 1.5]


def test_a_file_of_one_arrival_lasts_a_second(written: Callable[[bytes], Path]) -> None:
    assert from_csv(written(b"7\n")).seconds == 1


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"", "no arrivals"),
        (b"seconds\n", "no arrivals"),
        (b"0\n1\nx\n", "line 3: 'x' is not a time"),
        (b"0,1\n", "line 1: '0,1' is not a time"),
        (b"0\nnan\n", "line 2"),
        (b"0\n1e999\n", "line 2"),
        (b"2\n1\n", "line 2: 1 comes after 2; sort"),
        (b"\x00\xff\xfe" * 40, "line 1"),
        (b"9" * 10_000, "line 1"),
        ("0\n1\n".encode("utf-16"), "line 1"),
    ],
)
def test_a_hostile_file_is_refused_with_line_and_remedy(
    written: Callable[[bytes], Path], content: bytes, says: str
) -> None:
    with pytest.raises(ValueError, match=r"mine\.csv") as refusal:
        from_csv(written(content))
    assert says in str(refusal.value)
    assert len(str(refusal.value)) < 400


@pytest.mark.parametrize("times", [[], [-1.0], [1.0, 0.5], [0.0, 11.0], [float("nan")], [0.0, float("inf")]])
def test_a_trace_is_never_out_of_order(times: list[float]) -> None:
    with pytest.raises(ValueError, match="trace mine"):
        Trace("mine", np.array(times), seconds=10)
