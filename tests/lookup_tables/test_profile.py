"""The profiler against a device whose time is simulated."""

import io
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lookup_tables.latency import Latency, Measurement
from lookup_tables.modules import LAUNCH
from lookup_tables.profile import Modules, checked, device_slug, launched, nearest_rank, profile
from lookup_tables.table import LookupTable

Pair = tuple[int, int]


@dataclass
class Device:
    """Takes `stitch + batch` seconds, plus what `extra` says for its nth run."""

    extra: dict[int, float] = field(default_factory=dict)
    runs: list[Pair] = field(default_factory=list)
    now: float = 100.0

    def run(self, stitch: int, batch: int) -> None:
        self.now += stitch + batch + self.extra.get(len(self.runs), 0.0)
        self.runs.append((stitch, batch))

    def profile(self, stitches: list[int], batches: list[int], rounds: int, time_limit: float | None = None) -> Latency:
        return profile(
            self.run,
            stitches,
            batches,
            "cpu-test",
            rounds=rounds,
            time_limit=time_limit,
            clock=lambda: self.now,
            progress=False,
        )

    def run_timed(self, stitch: int, batch: int) -> list[tuple[str, float]]:
        """Passes a stem and as many blocks as the stitch's number says, which take 1, 2, 3, … seconds."""
        self.runs.append((-stitch, batch))
        return [("stem", 1.0 * batch), *(("block", float(n)) for n in range(1, stitch + 1))]


def test_modules_are_measured_within_the_same_rounds() -> None:
    device = Device()
    latency = profile(
        device.run, [3], [1, 2], "cpu-test", modules=Modules(device.run_timed, [4, 6]), rounds=3, progress=False
    )
    assert device.runs == [(3, 1), (3, 2), (-4, 1), (-4, 2), (-6, 1), (-6, 2)] * 4
    assert [(m.stitch, m.batch, m.runs) for m in latency.measurements] == [(3, 1, 3), (3, 2, 3)]


def test_a_batch_gives_a_class_the_mean_over_its_modules() -> None:
    device = Device()
    latency = profile(
        device.run, [], [1, 2], "cpu-test", modules=Modules(device.run_timed, [4, 6]), rounds=3, progress=False
    )
    measured = {(m.module, m.batch): (m.p50, m.p99, m.runs) for m in latency.modules}
    assert measured == {
        ("stem", 1): (1.0, 1.0, 6),
        ("stem", 2): (2.0, 2.0, 6),
        ("block", 1): (2.5, 3.5, 6),  # three times the mean of 1..4, three times that of 1..6
        ("block", 2): (2.5, 3.5, 6),
    }


SMALL = Path(__file__).parent / "small"
PREDICTED = LookupTable.load(SMALL, SMALL / "latency.cpu-modules.csv")


def profiled(*off: float) -> Latency:
    """Stitch 0 measured at 1, 2, 3, … rows, each off by so much from what the modules predict; stitch 1 exact."""
    assert PREDICTED.latency
    of_0 = (Measurement(0, n, PREDICTED.seconds(0, n) * (1 + by), 9.0, 3) for n, by in enumerate(off, start=1))
    of_1 = (Measurement(1, n, PREDICTED.seconds(1, n), 9.0, 3) for n in range(1, len(off) + 1))
    return replace(PREDICTED.latency, measurements=(*of_0, *of_1), details={"dtype": "float32"})


def test_a_measured_stitch_stays_only_where_the_prediction_is_off() -> None:
    latency = checked(PREDICTED, profiled(0.25, 0.25, 0.25))
    assert {m.stitch for m in latency.measurements} == {0}
    assert latency.modules == profiled().modules
    assert latency.details == {
        "dtype": "float32",
        "prediction_checked": "2 stitches",
        "prediction_error_median": "10.0%",  # of three times 0 and three times 1 - 1 / 1.25
        "prediction_error_worst": "20.0%",
        "prediction_off": "0",
    }


def test_one_batch_size_that_is_off_is_noise() -> None:
    latency = checked(PREDICTED, profiled(0.25, 0.02, -0.02))
    assert not latency.measurements
    assert (latency.details["prediction_error_worst"], latency.details["prediction_off"]) == ("20.0%", "none")


def test_measured_stitches_may_all_be_kept() -> None:
    latency = checked(PREDICTED, profiled(0.01), keep=True)
    assert {m.stitch for m in latency.measurements} == {0, 1}


@dataclass
class Mixing:
    """Takes `merged` times as long for a mixture merged as it does grouped, but for the first round."""

    merged: float
    ran: list[tuple[Sequence[int], str]] = field(default_factory=list)

    def run(self, stitches: Sequence[int], way: str) -> float:
        self.ran.append((stitches, way))
        first = len(self.ran) <= 2
        return 9.0 if first else self.merged * 0.02 if way == "merged" else 0.02


def test_launching_is_what_makes_the_table_say_the_ratio_that_was_measured() -> None:
    device = Mixing(1.25)
    assert PREDICTED.latency
    latency = launched(PREDICTED, PREDICTED.latency, device.run, [0, 3], rounds=4)
    assert device.ran == [([0, 3], "merged"), ([0, 3], "grouped")] * 5
    table, pair = replace(PREDICTED, latency=latency), {0: 1, 3: 1}
    assert table.merged_seconds(pair) == pytest.approx(1.25 * table.grouped_seconds(pair))
    assert table.grouped_seconds(pair) == PREDICTED.grouped_seconds(pair)
    assert [(m.batch, m.runs) for m in latency.modules if m.module == LAUNCH] == [(2, 4)]


@pytest.mark.parametrize("off", [(0.3,), (0.3, 0.3), (-0.2, 0.3)])
@pytest.mark.parametrize("ratio", [0.95, 1.1])
def test_it_does_so_too_where_one_of_them_stays_measured(off: tuple[float, ...], ratio: float) -> None:
    assert PREDICTED.latency
    of_both = tuple(
        Measurement(stitch, n, PREDICTED.seconds(stitch, n) * (1 + by), 9.0, 3)
        for stitch, by in zip((0, 3), off, strict=False)
        for n in (1, 2)
    )
    latency = launched(PREDICTED, replace(PREDICTED.latency, measurements=of_both), Mixing(ratio).run, [0, 3])
    assert latency.measurements == of_both
    table, pair = replace(PREDICTED, latency=latency), {0: 1, 3: 1}
    assert table.merged_seconds(pair) == pytest.approx(ratio * table.grouped_seconds(pair))


def test_a_slow_device_is_asked_no_longer_than_it_must() -> None:
    device, now = Mixing(1.25), [0.0]

    def run(stitches: Sequence[int], way: str) -> float:
        now[0] += 1.5
        return device.run(stitches, way)

    assert PREDICTED.latency
    latency = launched(PREDICTED, PREDICTED.latency, run, [0, 3], clock=lambda: now[0])
    assert [m.runs for m in latency.modules if m.module == LAUNCH] == [3]


def test_where_launching_is_hidden_behind_computing_nothing_is_added() -> None:
    assert PREDICTED.latency
    assert launched(PREDICTED, PREDICTED.latency, Mixing(0.3).run, [0, 3]) == PREDICTED.latency


def test_nothing_measured_whole_checks_nothing() -> None:
    assert PREDICTED.latency
    only = replace(PREDICTED.latency, measurements=())
    assert checked(PREDICTED, only) == only


def test_rounds_go_over_all_pairs_in_turn() -> None:
    device = Device()
    device.profile([3, 5], [1, 2], rounds=4)
    assert device.runs == [(3, 1), (3, 2), (5, 1), (5, 2)] * 5


def test_every_pair_is_measured_in_seconds() -> None:
    latency = Device().profile([3, 5], [1, 2], rounds=4)
    assert latency.device == "cpu-test"
    measured = {(m.stitch, m.batch): (m.p50, m.p99, m.runs) for m in latency.measurements}
    assert measured == {(s, b): (s + b, s + b, 4) for s in (3, 5) for b in (1, 2)}


def test_the_warm_up_is_not_measured() -> None:
    (only,) = Device(extra={0: 1000.0}).profile([3], [1], rounds=5).measurements
    assert (only.p99, only.runs) == (4.0, 5)


def test_the_quantiles_are_of_the_measured_runs() -> None:
    (only,) = Device(extra={n: float(n) for n in range(201)}).profile([1], [1], rounds=200).measurements
    assert (only.p50, only.p99) == (2.0 + 100, 2.0 + 198)


def test_with_few_runs_the_p99_is_the_slowest() -> None:
    (only,) = Device(extra={3: 9.0}).profile([1], [1], rounds=5).measurements
    assert (only.p50, only.p99) == (2.0, 11.0)


def test_the_time_limit_is_kept() -> None:
    device = Device()
    (only,) = device.profile([4], [1], rounds=1000, time_limit=52.0).measurements
    assert only.runs == 9
    assert device.now - 100.0 <= 52.0


def test_a_tight_time_limit_still_gives_three_rounds() -> None:
    assert [m.runs for m in Device().profile([4, 5], [1], rounds=1000, time_limit=0.0).measurements] == [3, 3]


def test_a_limit_that_is_not_reached_changes_nothing() -> None:
    assert [m.runs for m in Device().profile([4], [1], rounds=7, time_limit=1e6).measurements] == [7]


@pytest.mark.parametrize(("stitches", "batches", "rounds"), [([], [1], 3), ([1], [], 3), ([1], [0], 3), ([1], [1], 0)])
def test_nothing_to_measure_is_refused(stitches: list[int], batches: list[int], rounds: int) -> None:
    device = Device()
    with pytest.raises(ValueError, match="a profile needs"):
        device.profile(stitches, batches, rounds)
    assert not device.runs


def test_a_failing_run_ends_the_profile() -> None:
    def run(stitch: int, batch: int) -> None:
        raise MemoryError(f"batch {batch}")

    with pytest.raises(MemoryError, match="batch 8"):
        profile(run, [1], [8], "cpu-test", progress=False)


def test_details_travel_with_the_latency() -> None:
    latency = profile(Device().run, [1], [1], "cpu-test", details={"dtype": "float32"}, rounds=1, progress=False)
    assert latency.details == {"dtype": "float32"}


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize(
    ("stream", "wanted", "shown"),
    [(Terminal(), True, True), (io.StringIO(), True, False), (Terminal(), False, False)],
)
def test_progress_is_shown_on_terminals_if_wanted(
    monkeypatch: pytest.MonkeyPatch, stream: io.StringIO, wanted: bool, shown: bool
) -> None:
    monkeypatch.setattr(sys, "stderr", stream)
    profile(Device().run, [1, 2], [1], "cpu-test", rounds=3, progress=wanted)
    assert ("8/8" in stream.getvalue()) is shown


@given(st.lists(st.floats(0, 1), min_size=1), st.sampled_from([0.5, 0.99]))
def test_the_nearest_rank_covers_its_share_and_no_smaller_one_does(drawn: list[float], quantile: float) -> None:
    found = nearest_rank(sorted(drawn), quantile)
    assert found in drawn
    assert sum(x <= found for x in drawn) >= quantile * len(drawn)
    assert sum(x < found for x in drawn) < quantile * len(drawn)


@pytest.mark.parametrize(
    ("kind", "name", "threads", "slug"),
    [
        ("cpu", "AMD EPYC 9R14 96-Core Processor", 2, "cpu-amd-epyc-9r14-2threads"),
        ("cpu", "AMD EPYC 9R14", None, "cpu-amd-epyc-9r14"),
        ("cpu", "Intel(R) Xeon(R) Platinum 8480C CPU @ 2.00GHz", 8, "cpu-intel-xeon-platinum-8480c-8threads"),
        (
            "cpu",
            "AMD Ryzen 7 7840U w/ Radeon 780M Graphics",
            4,
            "cpu-amd-ryzen-7-7840u-w-radeon-780m-graphics-4threads",
        ),
        ("cpu", "", 2, "cpu-2threads"),
        ("cuda", "NVIDIA H200", None, "cuda-nvidia-h200"),
        ("cuda", "NVIDIA GeForce RTX 4090", None, "cuda-nvidia-geforce-rtx-4090"),
        ("cpu", "../../etc/passwd\n", 1, "cpu-etc-passwd-1threads"),
    ],
)
def test_a_device_gets_a_name_fit_for_files(kind: str, name: str, threads: int | None, slug: str) -> None:
    assert device_slug(kind, name, threads) == slug
