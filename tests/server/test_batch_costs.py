"""Seconds of batches, levels and drains, against a table that can be reckoned by hand."""

from dataclasses import replace

import pytest
from made_up import MS, small_table

from server.batch_costs import Costs


@pytest.fixture
def costs() -> Costs:
    return Costs(small_table(), max_batch=8)


def test_the_levels_are_the_hull_of_seconds_and_worth(costs: Costs) -> None:
    # 0: 1 ms, 60 %; 1: 2 ms, 70 %; 3: 4 ms, 80 %: all on the hull; 2 is dominated.
    assert [(level.entry.stitch, level.rank) for level in costs.levels(4)] == [(0, 0), (1, 1), (3, 2)]
    assert [level.seconds for level in costs.levels(4)] == pytest.approx([4 * MS, 8 * MS, 16 * MS])
    dented = Costs(small_table((0.60, 0.61, 0.50, 0.80)), max_batch=8)
    assert [level.entry.stitch for level in dented.levels(4)] == [0, 3], "a mixture of these two beats stitch 1"


def test_a_drain_is_full_batches_and_a_rest(costs: Costs) -> None:
    assert costs.drain(0.0) == 0.0
    assert costs.drain(4 * MS) == pytest.approx(4 * MS)
    assert costs.drain(20 * MS) == pytest.approx(20 * MS)


def test_more_rows_never_count_as_faster() -> None:
    table = small_table()
    assert table.latency
    dip = [replace(one, p50=0.1 * MS) if one.batch == max(o.batch for o in table.latency.measurements) else one
           for one in table.latency.measurements]  # fmt: skip
    dented = Costs(replace(table, latency=replace(table.latency, measurements=tuple(dip))), max_batch=8)
    least = [dented.least(rows) for rows in range(1, 9)]
    assert least == sorted(least)
    assert least[-1] > dented.seconds(0, 8), "which the table says"
    assert [dented.most_rows(least[rows - 1]) >= rows for rows in range(1, 9)] == [True] * 8
    assert dented.most_rows(0.5 * least[0]) == 0


def test_a_batch_of_one_stitch_costs_what_the_table_says(costs: Costs) -> None:
    assert costs.batch({3: 2}) == costs.seconds(3, 2) == pytest.approx(8 * MS)
    assert costs.seconds(0, 3) < costs.batch({0: 1, 3: 2}) < costs.seconds(3, 3)
