"""The lookup table's questions, on a small made-up table and on the shipped ones."""

import shutil
import subprocess
import sys
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lookup_tables.table import Entry, LookupTable, TableError, UnknownStitch, folder

FOLDER = Path(__file__).parent / "small"
SMALL = LookupTable.load(FOLDER, FOLDER / "latency.cpu-test.csv")
DEIT = LookupTable.load(folder("deit_ti_s_b"))

caps = st.none() | st.integers(0, 60)


def ids(entries: tuple[Entry, ...]) -> list[int]:
    return [entry.stitch for entry in entries]


def without_top1(table: LookupTable) -> LookupTable:
    return replace(table, entries=tuple(replace(entry, top1=None) for entry in table.entries))


def test_loading_gives_fractions_seconds_and_plain_flops() -> None:
    assert SMALL.entry(3) == Entry(3, "a[0:1]>b[1:2]", flops=250, params=25, top1=0.6)
    assert SMALL.entry(7).top1 is None
    assert SMALL.labels == ("one", "two, with a comma", "thrée")
    assert SMALL.family.anchors == ("a", "b")
    assert SMALL.family.preprocessing.std == (0.2, 0.25, 1.0)
    assert SMALL.latency is not None
    assert SMALL.latency.details == {"dtype": "float32", "threads": "2"}
    assert SMALL.seconds(0, 4, "p99") == 0.02


def test_an_unknown_stitch_is_refused_by_name() -> None:
    with pytest.raises(UnknownStitch, match="small has no stitch 5: ids go from 0 to 7"):
        SMALL.entry(5)
    with pytest.raises(UnknownStitch):
        SMALL.seconds(5)


def test_frontier_and_hull_by_flops() -> None:
    assert ids(SMALL.frontier()) == [0, 3, 4, 1]
    assert ids(SMALL.hull()) == [0, 4, 1]


def test_frontier_by_latency_depends_on_the_batch() -> None:
    assert ids(SMALL.frontier("latency")) == [0, 1]
    assert ids(SMALL.frontier("latency", rows=4)) == [0, 3, 4, 1]
    assert ids(SMALL.hull("latency", rows=4)) == [0, 4, 1]


def test_modules_that_no_stitch_passes_need_no_latency(tmp_path: Path) -> None:
    shipped = folder("deit_ti_s_b")
    shutil.copy(shipped.parent / "imagenet-1k.txt", tmp_path)
    few = tmp_path / shipped.name
    few.mkdir()
    for file in ("family.json", "modules.csv"):
        shutil.copy(shipped / file, few)
    (few / "stitches.csv").write_text("".join((shipped / "stitches.csv").read_text().splitlines(True)[:4]))
    latency = shipped / "latency.cuda-nvidia-h200.csv"
    less = few / "latency.here.csv"
    kept = [line for line in latency.read_text().splitlines(True) if not line.startswith("deit_b.bare_head")]
    less.write_text("".join(kept))
    table = LookupTable.load(few, less)
    assert ids(table.entries) == [0, 1, 2]
    assert table.seconds(2, 8) == LookupTable.load(few, latency).seconds(2, 8)
    with pytest.raises(TableError, match=r"nothing measured of module deit_b\.bare_head"):
        LookupTable.load(shipped, less)


def test_the_published_frontier_has_39_of_71_stitches() -> None:
    frontier = DEIT.frontier()
    assert (len(frontier), len(DEIT.entries)) == (39, 71)
    assert frontier[0].route == "deit_ti[0:12]"
    assert all(a.flops < b.flops and (a.top1 or 0) < (b.top1 or 0) for a, b in pairwise(frontier))


def test_the_published_hull_bridges_the_hole_between_the_pairs() -> None:
    assert ids(DEIT.hull()) == [0, 16, 15, 1, 56, 53, 47, 49, 46, 39]


def test_the_published_examples() -> None:
    first, second = DEIT.entry(24), DEIT.entry(56)
    assert (round(first.flops / 1e9, 2), first.top1) == (2.76, 0.75628)
    assert (round(second.flops / 1e9, 2), second.top1) == (10.05, 0.8125)
    assert DEIT.best(max_flops=2.76e9) == first


def test_the_published_labels() -> None:
    assert (len(DEIT.labels), len(set(DEIT.labels)), DEIT.labels[281]) == (1000, 1000, "tabby")


def test_every_shipped_table_loads() -> None:
    families = [path.parent.name for path in folder("deit_ti_s_b").parent.glob("*/family.json")]
    assert [LookupTable.load(folder(name)).family.name for name in families] == families


@pytest.mark.parametrize("name", ["nosuch", "", "..", "../lookup_tables/deit_ti_s_b"])
def test_an_unknown_family_is_refused_with_those_that_exist(name: str) -> None:
    with pytest.raises(TableError, match=r"there are .*deit_ti_s_b"):
        folder(name)


@pytest.mark.parametrize(
    ("stitch", "rows", "milliseconds"),
    [
        pytest.param(0, 1, 10, id="measured"),
        pytest.param(0, 2, 12, id="between two batch sizes"),
        pytest.param(0, 8, 24, id="beyond the largest batch"),
        pytest.param(3, 1, 13, id="between two stitches' FLOPs"),
        pytest.param(3, 4, 26.5, id="between two stitches' FLOPs in a batch"),
        pytest.param(7, 1, 14, id="a measured dip is filled"),
        pytest.param(2, 4, 45, id="beyond the dearest stitch"),
    ],
)
def test_predicted_seconds(stitch: int, rows: int, milliseconds: float) -> None:
    assert SMALL.seconds(stitch, rows) == pytest.approx(milliseconds / 1e3)


def test_no_batch_has_less_than_one_row() -> None:
    with pytest.raises(ValueError, match="at least one row, not 0"):
        SMALL.seconds(0, 0)


def test_without_a_profile_latency_says_what_to_run() -> None:
    with pytest.raises(TableError, match="run `stitchserve profile`"):
        DEIT.seconds(0)
    with pytest.raises(TableError, match="run `stitchserve profile`"):
        DEIT.best(max_seconds=0.1)
    with pytest.raises(TableError, match="run `stitchserve profile`"):
        DEIT.frontier("latency")


def test_best_under_each_cap() -> None:
    assert SMALL.best() == SMALL.entry(1)
    assert SMALL.best(max_flops=399) == SMALL.entry(4)
    assert SMALL.best(max_seconds=0.0119) == SMALL.entry(0)
    assert SMALL.best(max_seconds=0.030, rows=4) == SMALL.entry(4)
    assert SMALL.best(max_flops=300, min_top1=0.85) == SMALL.entry(4)


def test_a_stitch_of_unknown_top1_is_never_chosen_where_others_are_known() -> None:
    assert SMALL.best(max_flops=350) == SMALL.entry(4)
    assert 7 not in ids(SMALL.frontier())


def test_an_impossible_budget_has_no_best_but_a_nearest() -> None:
    assert SMALL.best(max_flops=99) is None
    assert SMALL.nearest(max_flops=99) == SMALL.entry(0)
    assert SMALL.nearest(max_flops=0) == SMALL.entry(0)
    assert SMALL.best(min_top1=0.95) is None
    assert SMALL.nearest(min_top1=0.95) == SMALL.entry(1)
    assert SMALL.nearest(max_seconds=0.001) == SMALL.entry(0)


def test_the_nearest_weighs_one_cap_against_the_other() -> None:
    # Stitch 4 is 15 % over the FLOPs and 5.6 % under the top-1; stitch 3 only 33 % under the top-1; stitch 1 54 % over.
    assert SMALL.nearest(max_flops=260, min_top1=0.9) == SMALL.entry(4)
    # Stitch 1 is 5.3 % over the FLOPs, stitch 4 is 5.6 % under the top-1 (though only 5.0 points).
    assert SMALL.nearest(max_flops=380, min_top1=0.9) == SMALL.entry(1)


def test_cheapest() -> None:
    assert SMALL.cheapest() == SMALL.entry(0)
    assert SMALL.cheapest(min_top1=0.7) == SMALL.entry(4)
    assert SMALL.cheapest(min_top1=0.7, max_flops=299) is None
    assert SMALL.cheapest(min_top1=0.95) is None


def test_where_no_top1_is_known_dearer_counts_as_better() -> None:
    table = without_top1(SMALL)
    assert ids(table.frontier()) == [0, 3, 4, 7, 1, 2]
    assert ids(table.hull()) == [0, 2]
    assert table.best(max_flops=360) == table.entry(7)
    assert table.cheapest() == table.entry(0)


def test_where_no_top1_is_known_none_can_be_demanded() -> None:
    assert without_top1(SMALL).best(min_top1=0.1) is None


@given(st.lists(st.tuples(st.integers(1, 60), st.integers(0, 60)), min_size=1, max_size=20), caps, caps)
def test_best_and_cheapest_are_what_a_search_finds(
    drawn: list[tuple[int, int]], max_flops: int | None, percent: int | None
) -> None:
    entries = tuple(Entry(i, "a[0:1]", flops, 1, top1 / 100) for i, (flops, top1) in enumerate(drawn))
    table = replace(SMALL, entries=entries, latency=None)
    min_top1 = None if percent is None else percent / 100
    met = [
        e
        for e in entries
        if (max_flops is None or e.flops <= max_flops) and (min_top1 is None or (e.top1 or 0) >= min_top1)
    ]
    best = max(met, key=lambda e: (e.top1 or 0, -e.flops, -e.stitch), default=None)
    cheapest = min(met, key=lambda e: (e.flops, -(e.top1 or 0), e.stitch), default=None)
    assert table.best(max_flops, min_top1=min_top1) == best
    assert table.cheapest(min_top1, max_flops) == cheapest
    if best is not None:
        assert table.nearest(max_flops, min_top1=min_top1) == best
        assert best in table.frontier()


def test_the_table_is_read_without_torch() -> None:
    code = "import sys, lookup_tables.table; sys.exit('torch' in sys.modules)"
    assert (
        subprocess.run([sys.executable, "-c", code], cwd=folder("deit_ti_s_b").parents[1], check=False).returncode == 0
    )
