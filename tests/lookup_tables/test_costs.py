"""Seconds of stitches and mixtures, from those of modules."""

from collections.abc import Mapping
from dataclasses import replace
from itertools import accumulate
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lookup_tables.latency import Latency, ModuleMeasurement
from lookup_tables.modules import LAUNCH
from lookup_tables.table import LookupTable, TableError, UnknownStitch, folder

FOLDER = Path(__file__).parent / "small"
SMALL = LookupTable.load(FOLDER, FOLDER / "latency.cpu-modules.csv")
WHOLE = LookupTable.load(FOLDER, FOLDER / "latency.cpu-test.csv")
DIGITS = LookupTable.load(folder("digits"))
assert DIGITS.modules
KINDS = DIGITS.modules.kinds
BATCHES = (1, 2, 4, 8, 16)

STITCHES = [entry.stitch for entry in DIGITS.entries]

mixtures = st.dictionaries(st.sampled_from(STITCHES), st.integers(1, 40), min_size=1, max_size=6)
seconds = st.floats(1e-6, 1.0)
rising = st.lists(seconds, min_size=len(BATCHES), max_size=len(BATCHES))


def measured(curves: Mapping[str, list[float]]) -> LookupTable:
    modules = tuple(
        ModuleMeasurement(kind, batch, value, 2 * value, 3)
        for kind, values in curves.items()
        for batch, value in zip(BATCHES, values, strict=True)
    )
    return replace(DIGITS, latency=Latency("cpu-test", (), {}, modules))


def concave(drawn: list[float]) -> list[float]:
    """A concave curve over BATCHES: each step per row smaller than the one before, the first one that of one row."""
    slopes = sorted(drawn, reverse=True)
    widths = [b - a for a, b in zip((0, *BATCHES), BATCHES, strict=False)]
    return list(accumulate(slope * width for slope, width in zip(slopes, widths, strict=True)))


anyhow = st.fixed_dictionaries(dict.fromkeys((*KINDS, LAUNCH), rising)).map(measured)
flattening = st.fixed_dictionaries({kind: rising.map(concave) for kind in KINDS}).map(measured)


@pytest.mark.parametrize(
    ("stitch", "rows", "milliseconds"),
    [
        pytest.param(0, 1, 0.75 + 1 + 2 * 2 + 0.5, id="input, stem, two blocks, head, output"),
        pytest.param(0, 2, 0.5 + 0.5 / 3 + 2 + 2 * 3 + 0.5 + 0.25 + 0.25 / 3, id="between two batch sizes"),
        pytest.param(2, 1, 0.75 + 1 + 2 + 0.25 + 4 + 6 + 0.5, id="through a stitching layer"),
        pytest.param(4, 1, 25, id="measured"),
        pytest.param(4, 3, 55, id="measured, between two batch sizes"),
    ],
)
def test_a_stitch_takes_what_its_modules_take(stitch: int, rows: int, milliseconds: float) -> None:
    assert SMALL.seconds(stitch, rows) == pytest.approx(milliseconds / 1e3)


def test_the_tail_is_that_of_the_modules() -> None:
    assert SMALL.seconds(0, 1, "p99") == pytest.approx((0.9 + 1.5 + 2 * 3 + 0.6) / 1e3)


def test_rows_at_one_module_run_it_together() -> None:
    four_rows = 1 + 4 + 5 + 0.5  # input, stem and first block of a, output
    three_rows = (2 + (5 - 2) * 2 / 3) + 0.5  # second block and head of a
    one_row = 0.25 + 6 + 0.5  # stitching layer, second block and head of b
    assert SMALL.merged_seconds({0: 3, 3: 1}) == pytest.approx((four_rows + three_rows + one_row) / 1e3)


def test_grouping_runs_one_after_another() -> None:
    assert SMALL.grouped_seconds({0: 3, 3: 1}) == pytest.approx(SMALL.seconds(0, 3) + SMALL.seconds(3, 1))


def launching(table: LookupTable, seconds: float) -> LookupTable:
    """The same table, on a device that needs so long to launch a call of a mixture."""
    assert table.latency
    launch = ModuleMeasurement(LAUNCH, 2, seconds, 2 * seconds, 9)
    return replace(table, latency=replace(table.latency, modules=(*table.latency.modules, launch)))


def test_a_mixture_takes_no_less_than_launching_its_calls() -> None:
    mixture, calls = {0: 3, 3: 1}, 7  # stem, two blocks and head of a; stitching layer, a block and bare head of b
    whole, entering = SMALL.merged_seconds(mixture), 0.001
    computing = whole - entering
    assert launching(SMALL, 0.9 * computing / calls).merged_seconds(mixture) == whole
    slow = launching(SMALL, 1.5 * computing / calls)
    assert slow.merged_seconds(mixture) == pytest.approx(entering + 1.5 * computing)
    assert slow.grouped_seconds(mixture) == SMALL.grouped_seconds(mixture)
    assert slow.seconds(0, 3) == SMALL.seconds(0, 3)


def test_the_faster_way_is_taken() -> None:
    for counts in ({0: 3, 3: 1}, {4: 1, 0: 1}, {1: 2, 7: 5, 0: 1}):
        assert SMALL.batch_seconds(counts) == min(SMALL.merged_seconds(counts), SMALL.grouped_seconds(counts))


def test_a_measured_stitch_moves_its_mixtures_by_its_share() -> None:
    unmeasured = replace(SMALL, latency=SMALL.latency and replace(SMALL.latency, measurements=()))
    off = SMALL.seconds(4, 4) / unmeasured.seconds(4, 4)
    assert off > 1.2
    expected = unmeasured.merged_seconds({0: 3, 4: 1}) * (1 + (off - 1) / 4)
    assert SMALL.merged_seconds({0: 3, 4: 1}) == pytest.approx(expected)


def test_without_modules_every_row_costs_its_share() -> None:
    counts = {0: 3, 3: 1}
    expected = 0.75 * WHOLE.seconds(0, 4) + 0.25 * WHOLE.seconds(3, 4)
    assert WHOLE.merged_seconds(counts) == pytest.approx(expected)


def test_capacity_is_that_of_the_best_batch_size() -> None:
    rates = [rows / SMALL.seconds(0, rows) for rows in range(1, 9)]
    assert SMALL.capacity(0, 8) == max(rates)
    assert SMALL.capacity(0, 1) == rates[0]


def test_mixtures_have_the_faults_of_their_stitches() -> None:
    with pytest.raises(UnknownStitch):
        SMALL.batch_seconds({0: 1, 5: 1})
    with pytest.raises(ValueError, match="at least one row"):
        SMALL.batch_seconds({0: 1, 1: 0})
    with pytest.raises(TableError, match="run `stitchserve profile`"):
        DIGITS.batch_seconds({0: 1})


@settings(deadline=None, max_examples=30)
@given(anyhow, st.sampled_from(STITCHES), st.integers(1, 100))
def test_of_one_stitch_all_ways_are_its_seconds(table: LookupTable, stitch: int, rows: int) -> None:
    expected = table.seconds(stitch, rows)
    assert table.merged_seconds({stitch: rows}) == expected
    assert table.grouped_seconds({stitch: rows}) == expected
    assert table.batch_seconds({stitch: rows}) == expected


@settings(deadline=None, max_examples=30)
@given(anyhow, mixtures, st.data())
def test_more_rows_never_take_less(table: LookupTable, counts: dict[int, int], data: st.DataObject) -> None:
    stitch = data.draw(st.sampled_from(sorted(counts)))
    more = counts | {stitch: counts[stitch] + data.draw(st.integers(1, 30))}
    for way in (table.merged_seconds, table.grouped_seconds, table.batch_seconds):
        assert way(more) >= way(counts) * (1 - 1e-12)


@settings(deadline=None, max_examples=30)
@given(flattening, mixtures)
def test_where_larger_batches_are_cheaper_by_the_row_merging_is_no_slower(
    table: LookupTable, counts: dict[int, int]
) -> None:
    assert table.merged_seconds(counts) <= table.grouped_seconds(counts) * (1 + 1e-9)


@settings(deadline=None, max_examples=20)
@given(anyhow, st.integers(1, 5000), st.integers(1, 5000))
def test_it_makes_no_difference_what_was_asked_before(table: LookupTable, rows: int, other: int) -> None:
    fresh = replace(table)
    table.seconds(3, other)
    table.merged_seconds({3: other, 1: 2})
    assert table.seconds(3, rows) == fresh.seconds(3, rows)
    assert table.merged_seconds({3: rows, 1: 2}) == fresh.merged_seconds({3: rows, 1: 2})
